"""The engine: work counted, states shared, padding masked, the model left as it was found."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from architectures import BLOCKS, tiny_model
from hypothesis import given, settings, strategies as st

from shortlm.model import find_anatomy
from shortlm.sweep import BlockCaller, KeptStates, Tail, backward_sweep, sweep, token_nats
from shortlm.sweep.slots import Slots
from shortlm.sweep.tail import TailForm
from shortlm.sweep.trace import LiveBytes
from shortlm.units import blocks_mask

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
    assert forwards_of([blocks_mask([i]) for i in range(BLOCKS)]) == BLOCKS * (BLOCKS + 1) // 2
    assert forwards_of([]) == BLOCKS
    assert forwards_of([blocks_mask([0]), blocks_mask([0]), frozenset()]) == 2 * BLOCKS - 1


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.lists(st.frozensets(st.integers(0, BLOCKS - 1), max_size=BLOCKS - 1), max_size=6))
def test_any_masks_equal_the_plain_loop(masks):
    batches = [(IDS_BT[:2], ALL_BT[:2]), (IDS_BT[2:], ALL_BT[2:])]
    losses = sweep(CALLER, batches, [blocks_mask(mask) for mask in masks])
    assert torch.allclose(losses.base_S.float(), plain_nats(()), rtol=1e-5)
    for mask, nats_S in zip(masks, losses.nats_MS, strict=True):
        assert torch.allclose(nats_S.float(), plain_nats(mask), rtol=1e-5)


def test_padding_changes_nothing():
    longer = torch.cat([IDS_BT, torch.zeros(4, 5, dtype=torch.long)], dim=1)
    keep = torch.cat([ALL_BT, torch.zeros(4, 5, dtype=torch.bool)], dim=1)
    padded = sweep(CALLER, [(longer, keep)], [blocks_mask([2])])
    whole = sweep(CALLER, [(IDS_BT, ALL_BT)], [blocks_mask([2])])
    assert torch.allclose(padded.nats_MS, whole.nats_MS, rtol=1e-5)
    assert padded.tokens_S.tolist() == whole.tokens_S.tolist() == [15] * 4


def test_observer_sees_every_state_once():
    seen = []
    sweep(CALLER, [(IDS_BT, ALL_BT)], [blocks_mask([0])], lambda i, a, b, batch: seen.append((i, a, b)))
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


@pytest.mark.parametrize("forward_mode", [True, False])
def test_gradients_equal_autograd(forward_mode, monkeypatch):
    monkeypatch.setattr(CALLER, "no_forward_mode", set() if forward_mode else {type(CALLER.blocks[0])})
    weights_S = torch.full((4,), 1 / 60)
    got, along = {}, {}
    towards = torch.Generator().manual_seed(0)
    directions = [
        {n: torch.randn(p.shape, generator=towards) for n, p in block.named_parameters()} for block in CALLER.blocks
    ]

    def keep(block):
        got[block.index] = {name: block.total(name) for name in block.weights}
        along[block.index] = block.directional_derivatives(directions[block.index])

    backward_sweep(CALLER, [(IDS_BT[:3], ALL_BT[:3]), (IDS_BT[3:], ALL_BT[3:])], weights_S, keep)
    assert CALLER.no_forward_mode == (set() if forward_mode else {type(CALLER.blocks[0])})
    MODEL.requires_grad_(True)
    for s in range(4):
        MODEL.zero_grad()
        logits_BTV = MODEL(input_ids=IDS_BT[s, None], use_cache=False).logits
        (F.cross_entropy(logits_BTV[0, :-1], IDS_BT[s, 1:], reduction="sum") / 60).backward()
        for i, block in enumerate(CALLER.blocks):
            plain = sum((directions[i][n] * p.grad).sum() for n, p in block.named_parameters())
            assert along[i][s] == pytest.approx(float(plain), rel=1e-3, abs=1e-5)
    MODEL.zero_grad()
    logits_BTV = MODEL(input_ids=IDS_BT, use_cache=False).logits
    F.cross_entropy(logits_BTV[:, :-1].flatten(0, 1), IDS_BT[:, 1:].flatten()).backward()
    for i, block in enumerate(CALLER.blocks):
        for name, weight in block.named_parameters():
            assert torch.allclose(got[i][name], weight.grad, atol=1e-7, rtol=1e-4), (i, name)
    MODEL.requires_grad_(False)
    MODEL.zero_grad()


@pytest.mark.parametrize("name", ["llama", "gemma2", "granite", "phi", "gpt2"])
@pytest.mark.parametrize("whole", [False, True])
def test_cross_entropy_in_vocabulary_chunks(name, whole, monkeypatch):
    """Chunks of 7 of 96 logits; soft-caps (gemma2), scales (granite), biases (phi), ties (gpt2) included."""
    monkeypatch.setattr("shortlm.sweep.tail.CHUNK", {"cpu": 1})
    monkeypatch.setattr("shortlm.sweep.tail.NARROWEST", 7)
    model = tiny_model(name)
    caller = BlockCaller(model, find_anatomy(model))
    batch = caller.prepare(IDS_BT, ALL_BT)
    tail, h_BTD = Tail(caller), torch.randn(4, 16, 32, generator=torch.Generator().manual_seed(2))
    if whole:
        caller.tail_form = TailForm("whole")
    leaf_BTD = h_BTD.clone().requires_grad_(True)
    nats_BT = token_nats(caller.tail(leaf_BTD, batch), batch)
    weights_B = torch.tensor([0.5, 1.0, 2.0, 0.0])
    (nats_BT.sum(1) * weights_B).sum().backward()
    assert torch.allclose(tail.nats(h_BTD, batch), nats_BT.detach(), rtol=1e-5, atol=1e-5)
    assert torch.allclose(tail.input_grads(h_BTD, batch, weights_B), leaf_BTD.grad, rtol=1e-4, atol=1e-6)
    assert whole or caller.tail_form.kind == ("each" if name in ("gemma2", "granite") else "plain")
    assert caller.tail_form.norm_alone is not whole


def test_a_head_that_mixes_its_logits_is_computed_whole():
    model = tiny_model("llama")
    plain = type(model).forward

    def normalised(self, *args, **kwargs):
        output = plain(self, *args, **kwargs)
        output.logits = output.logits.log_softmax(-1)
        return output

    model.forward = normalised.__get__(model)
    caller = BlockCaller(model, find_anatomy(model))
    losses = sweep(caller, [(IDS_BT, ALL_BT)])
    assert torch.allclose(losses.base_S.float(), plain_nats(()), rtol=1e-5)


def test_several_states_in_one_call_change_nothing(monkeypatch):
    masks = [blocks_mask([i]) for i in range(BLOCKS)]
    results, calls = [], []
    for tokens in (1, 200):
        monkeypatch.setattr("shortlm.sweep.blocks.tokens_per_call", lambda device, tokens=tokens: tokens)
        before = CALLER.forwards
        results.append(sweep(CALLER, [(IDS_BT, ALL_BT)], masks))
        calls.append(CALLER.forwards - before)
    assert calls[0] == calls[1] == BLOCKS * (BLOCKS + 1) // 2
    assert torch.allclose(results[0].nats_MS, results[1].nats_MS, rtol=1e-6)


def test_the_head_is_not_copied_for_every_sequence(monkeypatch):
    """A product with rows that are not contiguous would be a batched one, with a copy of the weight per sequence."""
    monkeypatch.setattr("shortlm.sweep.tail.CHUNK", {"cpu": 2**12})
    model = tiny_model("llama", vocab_size=8192)
    caller = BlockCaller(model, find_anatomy(model))
    batch = caller.prepare(IDS_BT, ALL_BT)
    tail = Tail(caller)
    tail.nats(batch.h_BTD, batch)
    with LiveBytes(caller.head) as live:
        tail.nats(batch.h_BTD, batch)
    assert live.peak < caller.head.weight.nbytes


def test_no_logits_are_made_while_arguments_are_recorded(monkeypatch):
    """All products with the head are chunks of the tail: one for each state, none for each batch or joined states."""
    rows, states = [], BLOCKS + 1
    linear = F.linear

    def counted(x, weight, bias=None):
        if weight.shape[0] == MODEL.config.vocab_size:
            rows.append(x.numel() // x.shape[-1])
        return linear(x, weight, bias)

    monkeypatch.setattr(F, "linear", counted)
    monkeypatch.setattr("shortlm.sweep.blocks.tokens_per_call", lambda device: 3 * IDS_BT.numel())
    sweep(CALLER, [(IDS_BT, ALL_BT), (IDS_BT, ALL_BT)], [blocks_mask([i]) for i in range(BLOCKS)])
    assert sum(rows) == 2 * states * 4 * 15
    assert len(rows) == 2 * 3  # three states at a time


@pytest.mark.parametrize("name", ["llama", "gemma2", "opt", "gpt2", "phi"])
def test_the_tail_of_several_states_is_that_of_each(name):
    model = tiny_model(name, **({"word_embed_proj_dim": 16} if name == "opt" else {}))
    caller = BlockCaller(model, find_anatomy(model))
    batch, tail = caller.prepare(IDS_BT, ALL_BT), Tail(caller)
    states = torch.randn(3, 4, 16, 32, generator=torch.Generator().manual_seed(2)).unbind()
    together = tail.nats_of_several(states, batch)
    assert caller.tail_form.norm_alone is (name != "opt")  # whose states are projected behind the norm
    for h_BTD, nats_BT in zip(states, together, strict=True):
        assert torch.allclose(nats_BT, token_nats(caller.tail(h_BTD, batch), batch), rtol=1e-5, atol=1e-5)


def test_a_view_of_a_kept_state_keeps_its_slot(monkeypatch):
    monkeypatch.setattr("shortlm.sweep.slots.SLAB", 16)
    slots = Slots()
    last = slots.keep(torch.arange(4.0))[-1:]  # the state itself is held by nobody any more
    other = slots.keep(torch.zeros(4))
    assert float(last) == 3 and other.data_ptr() != last.data_ptr() - 12
    place = other.data_ptr()
    del other
    assert slots.keep(torch.ones(4)).data_ptr() == place


def test_an_observer_may_keep_views_of_states():
    """A criterion that keeps the last token's state sees the state as it was."""
    kept = []
    masks = [blocks_mask([i]) for i in range(BLOCKS)]
    sweep(CALLER, [(IDS_BT, ALL_BT)] * 2, masks, lambda i, a, b, batch: kept.append((b[:, -1], b[:, -1].clone())))
    assert len(kept) == 2 * BLOCKS
    assert all(torch.equal(view, copy) for view, copy in kept)


def test_slots_are_used_again_once_nobody_holds_them(monkeypatch):
    monkeypatch.setattr("shortlm.sweep.slots.SLAB", 3 * 16)
    slots, one = Slots(), torch.ones(4)
    held = [slots.keep(one * i) for i in range(3)]
    places = {state.data_ptr() for state in held}
    assert len(places) == 3 and not slots.free
    held[1] = slots.keep(one * 7)  # a new slab is begun while all three are held
    assert held[1].data_ptr() not in places and len(slots.free) == 3
    assert [float(state[0]) for state in held] == [0, 7, 2]


def test_kept_states_are_not_overwritten():
    kept = KeptStates()
    sweep(CALLER, [(IDS_BT, ALL_BT)], [blocks_mask([i]) for i in range(BLOCKS)], kept)
    hidden = MODEL(input_ids=IDS_BT, output_hidden_states=True).hidden_states
    (states,) = kept.taken()
    for ours, theirs in zip(states[:-1], hidden, strict=False):  # the last of theirs is behind the norm
        assert torch.allclose(ours, theirs, atol=1e-6)


def test_out_of_memory_is_not_taken_for_a_missing_kernel(monkeypatch):
    """Forward-mode differentiation is given up for good where a kernel has none, never for want of memory."""
    from torch.autograd import forward_ad

    def exhausted(*args):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(forward_ad, "make_dual", exhausted)
    weights_S = torch.full((4,), 1 / 60)
    with pytest.raises(torch.OutOfMemoryError):
        backward_sweep(
            CALLER, [(IDS_BT, ALL_BT)], weights_S, lambda block: block.directional_derivatives(block.weights)
        )
    assert CALLER.no_forward_mode == set()
