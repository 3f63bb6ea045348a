"""The engine: work counted, states shared, padding masked, the model left as it was found."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from architectures import BLOCKS, tiny_model
from hypothesis import given, settings
from hypothesis import strategies as st

from shortlm.model import find_anatomy
from shortlm.sweep import BlockCaller, backward_sweep, sweep

IDS_BT = torch.randint(3, 96, (4, 16), generator=torch.Generator().manual_seed(1))
ALL_BT = torch.ones_like(IDS_BT, dtype=torch.bool)
MODEL = tiny_model("llama")
CALLER = BlockCaller(MODEL, find_anatomy(MODEL))


def plain_nats(dropped) -> torch.Tensor:
    kept = [b for i, b in enumerate(CALLER.blocks) if i not in dropped]
    layers, MODEL.model.layers = MODEL.model.layers, torch.nn.ModuleList(kept)
    MODEL.config.num_hidden_layers = len(kept)
    try:
        logits_BTV = MODEL(input_ids=IDS_BT, use_cache=False).logits
    finally:
        MODEL.model.layers = layers
        MODEL.config.num_hidden_layers = BLOCKS
    nats = F.cross_entropy(logits_BTV[:, :-1].transpose(1, 2), IDS_BT[:, 1:], reduction="none")
    return nats.sum(1)


def forwards_of(masks) -> int:
    before = CALLER.forwards
    sweep(CALLER, [(IDS_BT, ALL_BT)], masks)
    return CALLER.forwards - before


def test_all_single_removals_cost_half_a_square():
    assert forwards_of([frozenset({i}) for i in range(BLOCKS)]) == BLOCKS * (BLOCKS + 1) // 2
    assert forwards_of([]) == BLOCKS
    assert forwards_of([frozenset({0}), frozenset({0}), frozenset()]) == 2 * BLOCKS - 1


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.lists(st.frozensets(st.integers(0, BLOCKS - 1), max_size=BLOCKS - 1), max_size=6))
def test_any_masks_equal_the_plain_loop(masks):
    losses = sweep(CALLER, [(IDS_BT[:2], ALL_BT[:2]), (IDS_BT[2:], ALL_BT[2:])], masks)
    assert torch.allclose(losses.base_S.float(), plain_nats(()), rtol=1e-5)
    for mask, nats_S in zip(masks, losses.nats_MS, strict=True):
        assert torch.allclose(nats_S.float(), plain_nats(mask), rtol=1e-5)


def test_padding_changes_nothing():
    longer = torch.cat([IDS_BT, torch.zeros(4, 5, dtype=torch.long)], dim=1)
    keep = torch.cat([ALL_BT, torch.zeros(4, 5, dtype=torch.bool)], dim=1)
    padded = sweep(CALLER, [(longer, keep)], [frozenset({2})])
    whole = sweep(CALLER, [(IDS_BT, ALL_BT)], [frozenset({2})])
    assert torch.allclose(padded.nats_MS, whole.nats_MS, rtol=1e-5)
    assert padded.tokens_S.tolist() == whole.tokens_S.tolist() == [15] * 4


def test_observer_sees_every_state_once():
    seen = []
    sweep(CALLER, [(IDS_BT, ALL_BT)], [frozenset({0})], lambda i, a, b, batch: seen.append((i, a, b)))
    hidden = MODEL(input_ids=IDS_BT, output_hidden_states=True).hidden_states
    assert [i for i, _, _ in seen] == list(range(BLOCKS))
    for i, before, _ in seen:
        assert torch.allclose(before, hidden[i], atol=1e-6)


def test_model_is_restored_even_on_error():
    def fail(i, a, b, batch):
        raise KeyError("stop")

    with pytest.raises(KeyError):
        sweep(CALLER, [(IDS_BT, ALL_BT)], [], fail)
    assert all("forward" not in vars(block) for block in CALLER.blocks)
    assert not any(p.requires_grad or p.grad is not None for p in MODEL.parameters())


def test_gradients_equal_autograd():
    weights_S = torch.full((4,), 1 / 60)
    got, shares = {}, {}

    def keep(block):
        got[block.index] = block.total()
        shares[block.index] = list(block.per_sequence())

    backward_sweep(CALLER, [(IDS_BT[:3], ALL_BT[:3]), (IDS_BT[3:], ALL_BT[3:])], weights_S, keep)
    MODEL.requires_grad_(True)
    logits_BTV = MODEL(input_ids=IDS_BT, use_cache=False).logits
    F.cross_entropy(logits_BTV[:, :-1].flatten(0, 1), IDS_BT[:, 1:].flatten()).backward()
    for i, block in enumerate(CALLER.blocks):
        for name, weight in block.named_parameters():
            assert torch.allclose(got[i][name], weight.grad, atol=1e-7, rtol=1e-4), (i, name)
            together = torch.stack([grads[name] for grads in shares[i]]).sum(0)
            assert torch.allclose(together, weight.grad, atol=1e-7, rtol=1e-4)
    MODEL.requires_grad_(False)
    MODEL.zero_grad()
