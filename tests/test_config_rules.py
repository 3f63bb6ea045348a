"""Rules of configs that count from the last block, by periods, or by references to other blocks."""

from __future__ import annotations

import math
from typing import Any

import pytest
from every_type import tiny_config_of

from shortlm.errors import ModelError
from shortlm.model import cut_config, text_config
from shortlm.model.config import refuse_shared_states


def changed(model_type: str, **fields: Any) -> Any:
    config = tiny_config_of(model_type)
    for name, value in fields.items():
        setattr(config, name, value)
    return config


def test_jambas_periods_tell_the_blocks_that_stay():
    config = changed("jamba", attn_layer_period=3, attn_layer_offset=1, expert_layer_period=2, expert_layer_offset=1)
    cut = cut_config(config, [0, 1, 2])  # attention at 1, experts at 1
    assert [i % cut.attn_layer_period == cut.attn_layer_offset for i in range(3)] == [False, True, False]
    assert [i % cut.expert_layer_period == cut.expert_layer_offset for i in range(3)] == [False, True, False]
    without = cut_config(config, [0, 2])  # neither is left
    assert all(i % without.attn_layer_period != without.attn_layer_offset for i in range(2))
    with pytest.raises(ModelError, match=r"expert_layer_period can say kinds of blocks at equal distances only"):
        cut_config(config, [0, 1, 3, 4])


def test_recurrent_gemmas_pattern_is_written_out():
    config = changed("recurrent_gemma", block_types=["recurrent", "recurrent", "attention"])
    assert cut_config(config, [0, 2, 3, 5]).block_types == ["recurrent", "attention", "recurrent", "attention"]


def test_minicpm3s_blocks_add_as_much_as_before():
    config = changed("minicpm3", scale_depth=1.4)
    cut = cut_config(config, [0, 1, 2, 5])
    assert cut.scale_depth / math.sqrt(4) == pytest.approx(1.4 / math.sqrt(6))


def test_longcats_blocks_have_two_attentions_each():
    cut = cut_config(tiny_config_of("longcat_flash"), [0, 1, 5])
    assert (cut.num_layers, cut.num_hidden_layers) == (3, 6)


def test_features_of_images_enter_the_next_block_that_stays():
    config = changed("granite4_vision", deepstack_layer_map=[[-1, 0], [-2, 3]], spatial_target_layers=[1, 4])
    cut = cut_config(config, [0, 2, 4, 5])
    assert cut.deepstack_layer_map == [[-1, 0], [-2, 2]] and cut.spatial_target_layers == [1, 2]
    with pytest.raises(ModelError, match=r"no block would be left for a feature of images \(deepstack_layer_map\)"):
        cut_config(config, [0, 1])


def test_blocks_keep_reading_the_keys_of_the_block_they_read():
    config = changed("mistral_large4_text", kv_source_layers=[0, 1, 1, 3, 3, 5])
    assert cut_config(config, [0, 1, 2, 5]).kv_source_layers == [0, 1, 1, 3]
    with pytest.raises(ModelError, match=r"block 2 reads keys and values of block 1.*remove both"):
        cut_config(config, [0, 2, 3, 4])


def test_blocks_keep_the_indexer_that_picks_their_tokens():
    config = changed("glm_moe_dsa", indexer_types=["full", "shared", "full", "shared", "full", "full"])
    assert cut_config(config, [0, 2, 3, 5]).indexer_types == ["full", "full", "shared", "full"]
    with pytest.raises(ModelError, match=r"block 3 attends to tokens picked by the indexer of block 2.*remove both"):
        cut_config(config, [0, 1, 3])


@pytest.mark.parametrize(
    ("model_type", "fields"),
    [
        ("glm_moe_dsa", {"indexer_types": ["full", "shared"] * 3}),
        ("gemma3n_text", {"num_kv_shared_layers": 2}),
        ("mistral_large4_text", {"kv_source_layers": [0, 1, 1, 3, 3, 5]}),
    ],
)
def test_blocks_that_read_more_than_the_hidden_state_are_not_run_one_at_a_time(model_type, fields):
    refuse_shared_states(tiny_config_of(model_type))
    with pytest.raises(ModelError, match=next(iter(fields)) + r".*choose by hand \(shortlm cut --remove\)"):
        refuse_shared_states(changed(model_type, **fields))


@pytest.mark.parametrize(
    ("model_type", "why"),
    [
        ("beam", "weighted by its index"), ("diffllama", "lambda depends on the block's index"),
        ("inkling2_text", "states of earlier blocks"), ("minimax", "fixed places"), ("zaya", "the router of the block"),
    ],
)  # fmt: skip
def test_maths_that_depend_on_the_index_are_refused(model_type, why):
    with pytest.raises(ModelError, match=f"can't be cut soundly .*{why}"):
        cut_config(tiny_config_of(model_type), [0, 1, 3])


def test_of_a_composite_config_the_language_models_alone_changes():
    config = tiny_config_of("gemma3")
    cut = cut_config(config, [0, 2, 5])
    assert text_config(cut).num_hidden_layers == 3 and text_config(config).num_hidden_layers == 6
    assert cut.vision_config.to_dict() == config.vision_config.to_dict()
