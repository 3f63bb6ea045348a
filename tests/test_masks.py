"""Any number of masks: forwards counted exactly, states bounded, prefixes kept from one call to the next."""

from __future__ import annotations

import weakref
from itertools import combinations

import pytest
import torch
from architectures import BLOCKS, save_tiny, tiny_model
from hypothesis import given, settings, strategies as st

from shortlm.errors import ScoreError
from shortlm.model import find_anatomy, open_files, quiet
from shortlm.recipe import ModelSettings
from shortlm.sweep import BlockCaller, KeptPrefixes, Scheduler, Work, count_forwards, path_of, sweep
from shortlm.sweep.decisions import DROP, in_chunks
from shortlm.sweep.frontier import most_alive
from shortlm.sweep.slots import Slots
from shortlm.units import Unit, blocks_mask

IDS_BT = torch.randint(3, 96, (4, 12), generator=torch.Generator().manual_seed(1))
BATCHES = [(part_BT, torch.ones_like(part_BT, dtype=torch.bool)) for part_BT in IDS_BT.split(2)]
TOKENS = IDS_BT.numel()
MODEL = tiny_model("llama")
CALLER = BlockCaller(MODEL, find_anatomy(MODEL))
MASKS = st.lists(
    st.frozensets(st.builds(Unit, st.integers(0, BLOCKS - 1), st.sampled_from(["block", "attention", "ffn"]))),
    max_size=12,
)


@pytest.fixture
def streamed(tmp_path):
    with quiet():
        save_tiny("llama", tmp_path / "m")
    return open_files(ModelSettings(model=str(tmp_path / "m"), stream="on"))


def forwards(masks, **options):
    """The losses, and the block forwards of one batch."""
    before = CALLER.forwards
    losses = sweep(CALLER, BATCHES, masks, **options)
    return losses, (CALLER.forwards - before) / len(BATCHES)


def plain_count(paths) -> int:
    """Distinct prefixes that end in a block that is called."""
    return len({path[: i + 1] for path in paths for i in range(len(path)) if path[i] != DROP})


@settings(max_examples=40, deadline=None, derandomize=True)
@given(MASKS, st.integers(1, 9))
def test_forwards_are_those_of_the_prefix_tree_however_few_states_are_allowed(masks, most):
    paths = [path_of(mask, BLOCKS) for mask in (frozenset(), *masks)]
    expected, free = forwards(masks)
    found, bounded = forwards(masks, most=most)
    assert free == bounded == count_forwards(paths) == plain_count(paths)
    assert torch.allclose(found.nats_MS, expected.nats_MS, rtol=1e-6)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(MASKS, st.integers(0, BLOCKS), st.integers(0, 2**BLOCKS - 1))
def test_what_is_known_is_not_counted(masks, length, bits):
    prefix = bytes(bits >> i & 1 for i in range(length))
    paths = [path_of(mask, BLOCKS) for mask in (frozenset(), *masks)]
    known = [path for path in paths if path.startswith(prefix)]
    others = [path for path in paths if not path.startswith(prefix)]
    expected = plain_count(others) + len(
        {path[: i + 1] for path in known for i in range(length, BLOCKS) if path[i] != DROP}
    )
    assert count_forwards(paths, [b"", prefix]) == expected


@pytest.mark.parametrize("together", [1, 3])
@pytest.mark.parametrize("most", [1, 4, 100])
def test_states_alive_are_as_planned(monkeypatch, together, most):
    """Every state that a slot was given for is followed until nobody holds it."""
    monkeypatch.setattr("shortlm.sweep.blocks.tokens_per_call", lambda device: together * BATCHES[0][0].numel())
    masks = [blocks_mask(removed) for removed in combinations(range(BLOCKS), 3)]
    alive, peak = [0], [0]
    keep = Slots.keep

    def followed(self, state):
        kept = keep(self, state)
        alive[0] += 1
        peak[0] = max(peak[0], alive[0])
        weakref.finalize(kept, freed)
        return kept

    def freed():
        alive[0] -= 1

    monkeypatch.setattr(Slots, "keep", followed)
    sweep(CALLER, BATCHES[:1], masks, most=most)
    planned = most_alive([path_of(mask, BLOCKS) for mask in (frozenset(), *masks)], BLOCKS, together, most)
    assert peak[0] <= planned <= peak[0] + 1  # the state that enters block 0 has no slot
    assert planned <= max(most, 2 * together) + BLOCKS * together


def test_all_sets_of_four_of_sixteen_blocks_take_few_states():
    paths = [path_of(blocks_mask(removed), 16) for removed in combinations(range(16), 4)]
    paths.append(bytes(16))
    assert len(set(paths)) == 1821
    assert count_forwards(paths) == plain_count(paths)
    assert most_alive(paths, 16, together=1, most=19) <= 32
    assert most_alive(paths, 16, together=1, most=10**6) == 1822  # with the state that the last one is made of


def test_from_disk_masks_go_through_in_chunks(streamed):
    masks = [blocks_mask(removed) for removed in combinations(range(BLOCKS), 2)]
    paths = [path_of(mask, BLOCKS) for mask in (frozenset(), *masks)]
    opened = streamed.open(streamed=True)
    caller = BlockCaller(opened.model, opened.anatomy, opened.disk)
    seen, visits = [], []
    losses = sweep(
        caller,
        BATCHES,
        masks,
        observer=lambda i, *_: seen.append(i),
        visitor=visits.append,
        per_pass=2,
        most=5,
        check=0,
    )
    expected, _ = forwards(masks)
    assert torch.allclose(losses.nats_MS, expected.nats_MS, rtol=1e-6)
    chunks = in_chunks(paths, 5)
    assert [len(chunk) for chunk in chunks] == [4, 4, 4, 4]
    assert caller.forwards == len(BATCHES) * sum(map(count_forwards, chunks))
    assert seen == [i for i in range(BLOCKS) for _ in BATCHES]
    assert visits == list(range(BLOCKS))


def tightest(scheduler, work, stream) -> int:
    """The smallest budget for which there is a plan with two sequences at a time."""
    low, high = scheduler.base, scheduler.base + 2**30
    while high - low > 1:
        middle = (low + high) // 2
        try:
            scheduler.within(work, middle, stream == "on", batch_size=2)
            high = middle
        except ScoreError:
            low = middle
    return high


@pytest.mark.parametrize("stream", ["on", "off"])
def test_plans_count_what_masks_take_and_keep_a_budget(monkeypatch, streamed, stream):
    for module in ("blocks", "scheduler"):  # one state at a time, or else all go together anyway
        monkeypatch.setattr(f"shortlm.sweep.{module}.tokens_per_call", lambda device: 24)
    masks = tuple(blocks_mask(removed) for removed in combinations(range(BLOCKS), 3))
    scheduler, work = Scheduler.of(streamed), Work(4, 12, masks=masks)
    free = scheduler.within(work, None, stream == "on", batch_size=2)
    assert (free.most, free.chunks, free.lm_head_calls) == (None, 1, 2 * 21)
    tight = scheduler.within(work, tightest(scheduler, work, stream), stream == "on", batch_size=2)
    assert tight.most == 1
    assert tight.peak_bytes < free.peak_bytes
    opened = streamed.open(stream == "on")
    caller = BlockCaller(opened.model, opened.anatomy, opened.disk)
    sweep(caller, BATCHES, masks, per_pass=tight.batches_per_pass, most=tight.most)
    assert caller.forwards == tight.block_forwards
    assert tight.chunks == (1 if stream == "off" else 21)
    assert (stream == "off") == (tight.block_forwards == free.block_forwards)


def test_a_search_goes_on_from_the_states_of_its_current_set():
    current, kept = frozenset({Unit(2)}), KeptPrefixes(2**20, TOKENS)
    first, taken = forwards([current], kept=kept, keep=[current])
    assert taken == count_forwards([bytes(BLOCKS), path_of(current, BLOCKS)])
    candidates = [current | {Unit(i)} for i in range(3, BLOCKS)]
    paths = [path_of(mask, BLOCKS) for mask in (frozenset(), *candidates)]
    prefixes = [b"", *(path_of(current, BLOCKS)[:i] for i in range(1, BLOCKS))]
    again, taken = forwards(candidates, kept=kept, keep=[candidates[-1]])
    assert taken == count_forwards(paths, prefixes) < count_forwards(paths)
    expected, _ = forwards(candidates)
    assert torch.equal(again.nats_MS, expected.nats_MS)
    assert torch.equal(again.base_S, first.base_S)
    last = path_of(candidates[-1], BLOCKS)  # states behind a dropped block are those before it
    assert set(kept.states[0]) == {last[:i] for i in range(1, BLOCKS) if last[i - 1] != DROP}


def test_schedules_count_what_is_kept_and_checked(streamed):
    scheduler, masks = Scheduler.of(streamed), (blocks_mask([1]),)
    plain = scheduler.schedule(Work(4, 12, masks=masks), False, 2, 1)
    kept = scheduler.schedule(Work(4, 12, masks=masks, kept_bytes=12345), False, 2, 1)
    assert kept.parts["hidden states"] == plain.parts["hidden states"] + 12345
    assert scheduler.schedule(Work(4, 12, masks=masks, check=True), False, 2, 1).checked == 2 * 2  # whole and masked
    assert scheduler.schedule(Work(4, 12, check=True), False, 2, 1).checked == 2


@pytest.mark.parametrize("states", [0, 1, 3])
def test_only_as_many_states_are_kept_as_fit(states):
    current = frozenset({Unit(2)})
    of_all = sum(ids_BT.numel() for ids_BT, _ in BATCHES) * MODEL.config.hidden_size * 4
    kept = KeptPrefixes(states * of_all + 1, TOKENS)
    forwards([current], kept=kept, keep=[current])
    held = sum(state.nbytes for of_batch in kept.states.values() for state in of_batch.values())
    assert held == states * of_all
    _, taken = forwards([current], kept=kept, keep=[current])
    known = [b"", *kept.wanted]
    assert taken == count_forwards([bytes(BLOCKS), path_of(current, BLOCKS)], known)
