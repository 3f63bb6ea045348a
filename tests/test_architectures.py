"""Every listed architecture: criteria run, the sweep is exact, a cut reloads and equals the bypassed original."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from architectures import ARCHITECTURES, BLOCKS, save_tiny

from shortlm.choose import plan_by_hand
from shortlm.cut import cut
from shortlm.model import open_model, quiet
from shortlm.recipe import CutSettings, ModelSettings, ScoreSettings
from shortlm.score import CRITERIA, score_model
from shortlm.sweep import BlockCaller, bypassed, count_forwards, path_of, sweep
from shortlm.sweep.equivalence import cached_logits
from shortlm.text import windows_from_ids
from shortlm.units import blocks_mask, unit_list

IDS_BT = torch.randint(3, 96, (3, 24), generator=torch.Generator().manual_seed(0))
REMOVED = [1, 3]


@pytest.fixture(scope="module", params=ARCHITECTURES)
def opened(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    with quiet():
        save_tiny(request.param, folder)
    return open_model(ModelSettings(model=str(folder)))


def logits_by_plain_loop(model, blocks, dropped, ids_BT):
    """The model's own forward, with the forward of each dropped block replaced by one that returns its input."""
    originals = {i: blocks[i].forward for i in dropped}
    kinds = {}
    for i, block in enumerate(blocks):
        block.register_forward_hook(lambda m, args, out, i=i: kinds.update({i: isinstance(out, tuple)}))
    with torch.no_grad():
        model(input_ids=ids_BT, use_cache=False)
    for block in blocks:
        block._forward_hooks.clear()
    try:
        for i in dropped:
            blocks[i].forward = lambda h, *args, i=i, **kwargs: (h,) if kinds[i] else h
        with torch.no_grad():
            return model(input_ids=ids_BT, use_cache=False).logits
    finally:
        for i, original in originals.items():
            blocks[i].forward = original


def test_parts_are_found(opened):
    anatomy = opened.anatomy
    assert len(anatomy.blocks) == BLOCKS
    assert "norm" in type(anatomy.norm).__name__.lower()
    assert anatomy.head.weight.shape[0] == 96
    assert all((len(names) == 1 and "attn" in names[0]) or "attention" in names[0] for names in anatomy.attention)
    assert all(names in (["mlp"], ["fc1", "fc2"]) for names in anatomy.ffn)


def test_every_criterion_runs(opened):
    windows = windows_from_ids(IDS_BT, 96)
    scores = score_model(opened, windows, ScoreSettings(criteria=list(CRITERIA), batch_size=2, resamples=20))
    assert set(scores.criteria) == set(CRITERIA)
    assert all(len(c.scores) == BLOCKS for c in scores.criteria.values())


def test_sweep_equals_really_dropped_blocks(opened):
    windows = windows_from_ids(IDS_BT, 96)
    masks = [blocks_mask([i]) for i in range(BLOCKS)] + [blocks_mask([1, 3, 4]), blocks_mask([0, 5])]
    losses = sweep(BlockCaller(opened.model, opened.anatomy), windows.batches(3), masks)
    for mask, nats_S in zip(masks, losses.nats_MS, strict=True):
        logits_BTV = logits_by_plain_loop(
            opened.model, opened.anatomy.blocks, sorted(unit.block for unit in mask), IDS_BT
        )
        expected = F.cross_entropy(logits_BTV[:, :-1].flatten(0, 1), IDS_BT[:, 1:].flatten(), reduction="sum")
        assert float(nats_S.sum()) == pytest.approx(float(expected), rel=1e-5)


NORMED = ("post_attention_layernorm", "post_feedforward_layernorm")  # behind the sublayers, part of their branches
BRANCH_ENDS = dict.fromkeys(["gemma2", "gemma3_text", "olmo2"], NORMED)  # elsewhere the last module of the branch


def logits_without_branches(model, anatomy, mask, ids_BT):
    """The plain way: all is computed, and what a branch is about to add is replaced by zeros."""

    def zeros(module, args, output):
        return (torch.zeros_like(output[0]), *output[1:]) if isinstance(output, tuple) else torch.zeros_like(output)

    names = {"attention": anatomy.attention, "ffn": anatomy.ffn}
    ends = dict(zip(names, BRANCH_ENDS.get(model.config.model_type, (None, None)), strict=True))
    modules = [
        anatomy.blocks[u.block].get_submodule(ends[u.part] or names[u.part][u.block][-1])
        for u in mask
        if u.part != "block"
    ]
    hooks = [module.register_forward_hook(zeros) for module in modules]
    try:
        with bypassed(anatomy.blocks, [u.block for u in mask if u.part == "block"]), torch.no_grad():
            return model(input_ids=ids_BT, use_cache=False).logits
    finally:
        for hook in hooks:
            hook.remove()


MASKS = ["2.attention", "3.ffn", "0.attention,1,2.ffn,4.attention", "5.attention,5.ffn", "0-5.attention", "1-4.ffn"]


def test_sweep_without_sublayers_equals_zeroed_branches(opened):
    windows = windows_from_ids(IDS_BT, 96)
    masks = [frozenset(unit_list(text, "mask")) for text in MASKS]
    caller = BlockCaller(opened.model, opened.anatomy)
    losses = sweep(caller, windows.batches(3), masks, check=0)
    assert caller.forwards == count_forwards([path_of(mask, BLOCKS) for mask in [frozenset(), *masks]])
    for mask, nats_S in zip(masks, losses.nats_MS, strict=True):
        logits_BTV = logits_without_branches(opened.model, opened.anatomy, mask, IDS_BT)
        expected = F.cross_entropy(logits_BTV[:, :-1].flatten(0, 1), IDS_BT[:, 1:].flatten(), reduction="sum")
        assert float(nats_S.sum()) == pytest.approx(float(expected), rel=1e-5)


def test_cut_reloads_and_equals_the_bypassed_original(opened, tmp_path):
    from transformers import AutoModelForCausalLM

    out = tmp_path / "cut"
    cut(ModelSettings(model=opened.facts.name), plan_by_hand(opened.facts, REMOVED), CutSettings(), out)
    with quiet():
        shorter = AutoModelForCausalLM.from_pretrained(out)
    expected_BTV = logits_by_plain_loop(opened.model, opened.anatomy.blocks, REMOVED, IDS_BT)
    with torch.no_grad():
        whole_BTV = shorter(input_ids=IDS_BT).logits
    assert float((whole_BTV - expected_BTV).abs().max()) <= 1e-4
    assert float((cached_logits(shorter, IDS_BT) - expected_BTV).abs().max()) <= 1e-4
    generated = shorter.generate(IDS_BT[:1], max_new_tokens=4, min_new_tokens=4, do_sample=False)
    assert generated.shape == (1, IDS_BT.shape[1] + 4)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_experts_whose_routing_turns_on_rounding_pass_the_check(tmp_path, dtype):
    """With the KV cache even the uncut model differs from itself; the cut may differ as much."""
    from architectures import tiny_model

    with quiet():
        model = tiny_model("mixtral", num_hidden_layers=12, hidden_size=128, intermediate_size=128)
        model.to(getattr(torch, dtype)).save_pretrained(tmp_path / "m")
    settings = ModelSettings(model=str(tmp_path / "m"))
    check = cut(settings, plan_by_hand(open_model(settings).facts, [3, 9]), CutSettings(), tmp_path / "out").equivalence
    assert check.max_abs_difference <= check.tolerance <= check.tolerance_cached
    assert check.max_abs_difference_cached <= check.tolerance_cached


@pytest.mark.parametrize(
    ("name", "sizes", "has_cache"),
    [
        ("mamba", {"hidden_size": 32, "num_hidden_layers": 4, "state_size": 4}, True),
        ("openai-gpt", {"n_embd": 32, "n_head": 4, "n_layer": 4}, False),
    ],
)
def test_a_state_is_proved_like_a_kv_cache_and_without_either_all_is_proved_at_once(tmp_path, name, sizes, has_cache):
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    with quiet():
        AutoModelForCausalLM.from_config(AutoConfig.for_model(name, vocab_size=96, **sizes)).save_pretrained(tmp_path)
    settings = ModelSettings(model=str(tmp_path))
    check = cut(settings, plan_by_hand(open_model(settings).facts, [1]), CutSettings(), tmp_path / "out").equivalence
    assert check.max_abs_difference <= check.tolerance
    assert (check.max_abs_difference_cached is not None) == has_cache
    assert not has_cache or check.max_abs_difference_cached <= check.tolerance_cached
