"""Configs of cut models: every per-layer field, or a refusal by name."""

from __future__ import annotations

import pytest
import torch
from architectures import ARCHITECTURES, tiny_config

from shortlm.errors import ModelError, PlanError
from shortlm.model import cut_config, find_anatomy, guard, meta_model
from shortlm.model.config import LAYER_LISTS
from shortlm.units import check_blocks

KEPT = [0, 2, 3, 5]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_per_layer_list_is_sliced(name):
    config = tiny_config(name)
    cut = cut_config(config, KEPT)
    assert cut.num_hidden_layers == len(KEPT)
    for field, value in config.to_dict().items():
        if field in LAYER_LISTS and isinstance(value, list):
            assert getattr(cut, field) == [value[i] for i in KEPT], field
    guard(config, cut, KEPT)


def test_index_lists_are_remapped():
    config = tiny_config("qwen3_moe", decoder_sparse_step=1, mlp_only_layers=[0, 1, 5])
    assert cut_config(config, KEPT).mlp_only_layers == [0, 3]


def test_periods_become_lists():
    config = tiny_config("qwen3_moe", decoder_sparse_step=2, mlp_only_layers=[5])
    cut = cut_config(config, KEPT)  # dense before: 0, 2, 4 (period) and 5
    assert (cut.decoder_sparse_step, cut.mlp_only_layers) == (1, [0, 1, 3])


def test_prefix_counts_shrink():
    config = tiny_config("qwen2", max_window_layers=3)
    assert cut_config(config, KEPT).max_window_layers == 2


def test_gpt_neo_pattern():
    from transformers import AutoConfig

    config = AutoConfig.for_model(
        "gpt_neo", num_layers=6, hidden_size=32, num_heads=4, vocab_size=96, attention_types=[[["global", "local"], 3]]
    )
    cut = cut_config(config, KEPT)
    assert cut.attention_layers == ["global", "global", "local", "local"]
    guard(config, cut, KEPT)


@pytest.mark.parametrize(
    ("name", "changes", "reason"),
    [
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx: attention is scaled"),
        ("llama", {"some_unknown_list": [1, 2, 3, 4, 5, 6]}, "'some_unknown_list' has one entry per block"),
        ("llama", {"quantization_config": {"bits": 4}}, "this checkpoint is quantised; cut the unquantised one"),
    ],
)
def test_refusals(name, changes, reason):
    config = tiny_config(name)
    for field, value in changes.items():
        setattr(config, field, value)
    with pytest.raises(ModelError) as error:
        cut_config(config, KEPT)
    assert reason in str(error.value) and name in str(error.value)


@pytest.mark.parametrize("name", ["diffllama", "minimax"])
def test_depth_dependent_architectures_are_refused_by_name(name):
    from transformers import AutoConfig

    config = AutoConfig.for_model(name, num_hidden_layers=6)
    with pytest.raises(ModelError, match=f"{name}: can't be cut soundly"):
        cut_config(config, KEPT)


def test_guard_notices_blocks_that_would_change():
    """The config of a model whose layer types were shifted, not sliced."""
    config = tiny_config("qwen2")
    wrong = cut_config(config, KEPT)
    wrong.layer_types = config.layer_types[: len(KEPT)]
    with pytest.raises(ModelError, match=r"qwen2: can't be cut soundly: block 3 would become another block at place 2"):
        guard(config, wrong, [0, 2, 3, 5])


def test_guard_notices_what_depends_on_the_number_of_blocks(monkeypatch):
    config = tiny_config("llama")
    cut = cut_config(config, KEPT)
    cut.vocab_size = 48
    with pytest.raises(ModelError, match=r"'model.embed_tokens.weight' outside the blocks depends on their number"):
        guard(config, cut, KEPT)


def test_only_the_language_model_of_a_composite_config_is_cut():
    from transformers import AutoConfig

    whole = AutoConfig.for_model("gemma3")
    towers = whole.vision_config.to_dict()
    shorter = cut_config(whole, [0, 2, 5])
    assert shorter.text_config.num_hidden_layers == 3
    assert shorter.text_config.layer_types == [whole.text_config.layer_types[i] for i in (0, 2, 5)]
    assert shorter.vision_config.to_dict() == towers
    assert whole.text_config.num_hidden_layers == 26  # the one that was given is as it was


def test_no_causal_lm():
    from transformers import AutoConfig

    with pytest.raises(ModelError, match="vit: no causal LM can be built"):
        meta_model(AutoConfig.for_model("vit"))


def test_anatomy_of_a_model_without_a_list_of_blocks():
    model = torch.nn.Module()
    model.config = tiny_config("llama")
    with pytest.raises(ModelError, match="no list of 6 blocks found"):
        find_anatomy(model)


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        ([6], "6 is out of range; the model has blocks 0..5"),
        ([-7], "-7 is out of range; the model has blocks 0..5"),
        ([1, 2, 1], "1 is given twice"),
        ([5, -1], "5 is given twice"),
        ([0, 1, 2, 3, 4, 5], "all 6 blocks; at least one has to stay"),
    ],
)
def test_bad_block_lists(blocks, message):
    with pytest.raises(PlanError, match=message):
        check_blocks(blocks, 6)


def test_good_block_lists():
    assert check_blocks([-1, 2], 6) == [2, 5]
