"""Plans: their counts are those of the work that is done, budgets are kept, and too little is told."""

from __future__ import annotations

import re

import pytest
import torch
from architectures import ARCHITECTURES, BLOCKS, save_tiny, tiny_config, tiny_model

from shortlm.errors import ScoreError, TextError
from shortlm.model import find_anatomy, open_files, quiet
from shortlm.recipe import ModelSettings, ScoreSettings, TextSettings
from shortlm.score import plan_memory, score, score_model
from shortlm.score.scoring import work_of
from shortlm.sizes import byte_size, gib
from shortlm.sweep import BlockCaller, MadeUpModel, Scheduler, auto_batch_size
from shortlm.sweep.trace import LiveBytes, call_cost
from shortlm.text import windows_from_ids

IDS_BT = torch.randint(3, 96, (7, 16), generator=torch.Generator().manual_seed(0))
WINDOWS = windows_from_ids(IDS_BT, 96)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def llama(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("planned") / "llama"
    with quiet():
        save_tiny("llama", folder)
    return str(folder)


def test_batches_are_of_nearly_equal_size():
    assert [auto_batch_size(n, 128, CPU) for n in (1, 5, 6, 10, 11, 64)] == [1, 5, 3, 5, 4, 5]
    assert auto_batch_size(3, 4096, CPU) == 1
    assert auto_batch_size(0, 0, CPU) == 1


@pytest.mark.parametrize("stream", ["on", "off"])
@pytest.mark.parametrize("together", [1, 2, 4])
@pytest.mark.parametrize(
    "criteria", ["ppl", "bi", "taylor", "first_order", "ppl,angular,taylor", "taylor,taylor:batches=2", "magnitude"]
)
def test_counts_are_those_of_the_work(llama, criteria, together, stream):
    files = open_files(ModelSettings(model=llama, stream=stream))
    specs = re.split(r",(?!batches)", criteria)
    windows = None if criteria == "magnitude" else WINDOWS
    work = work_of(specs, (0, 0) if windows is None else windows.shape)
    plan = Scheduler.of(files).schedule(work, stream == "on", 2, together)
    opened = files.open(plan.streamed)
    scores = score_model(opened, windows, ScoreSettings(criteria=specs, resamples=0), 0, plan)
    assert plan.block_forwards == scores.block_forwards
    assert plan.passes == (1 if stream == "off" or windows is None else {1: 4, 2: 2, 4: 1}[together])
    if opened.disk:
        rows = opened.disk.table.nbytes * (plan.passes + 2)  # of the embeddings only rows are read, at most all
        assert plan.bytes_read <= opened.disk.bytes_read <= plan.bytes_read + rows


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_costs_found_on_shapes_are_those_of_a_real_call(name):
    """The same count of live bytes, over fake tensors and over real ones."""
    model = tiny_model(name)
    caller = BlockCaller(model, find_anatomy(model))
    batch = caller.prepare(IDS_BT, torch.ones_like(IDS_BT, dtype=torch.bool))
    live = []
    for i, block in enumerate(caller.blocks):
        with torch.no_grad(), LiveBytes(block) as counted:
            caller(i, batch.h_BTD, batch)
        live.append(counted.peak)
    cost = call_cost(tiny_config(name), torch.float32, 7, 16)
    assert cost.exact
    assert cost.state_bytes == batch.h_BTD.numel() * 4
    assert cost.forward_bytes == pytest.approx(max(live), rel=0.2)


def test_what_cannot_run_on_shapes_is_estimated_above(monkeypatch):
    exact = call_cost(tiny_config("llama"), torch.float32, 4, 16, True)
    monkeypatch.setattr("shortlm.sweep.trace._traced", lambda *args, **kwargs: 1 / 0)
    rough = call_cost(tiny_config("llama"), torch.float32, 4, 16, True)
    assert not rough.exact
    assert rough.forward_bytes >= exact.forward_bytes and rough.backward_bytes >= exact.backward_bytes
    assert rough.flops == pytest.approx(exact.flops, rel=0.1)


def test_a_budget_makes_more_passes_and_changes_nothing(llama, monkeypatch):
    files = open_files(ModelSettings(model=llama, stream="on"))
    work = work_of(["ppl", "bi"], WINDOWS.shape)
    scheduler = Scheduler.of(files)
    plans = [scheduler.schedule(work, True, 1, n) for n in (7, 1)]
    assert plans[1].peak_bytes < plans[0].peak_bytes
    monkeypatch.setattr("shortlm.sweep.scheduler.MARGIN", 0)
    tight = scheduler.within(work, plans[1].peak_bytes, True)
    assert tight.peak_bytes <= plans[1].peak_bytes and tight.passes > 1
    settings = ScoreSettings(criteria=["ppl", "bi", "taylor"], resamples=0)
    wide, narrow = (score_model(files.open(True), WINDOWS, settings, 0, plan) for plan in (plans[0], tight))
    for spec in settings.criteria:
        assert narrow.criteria[spec].scores == pytest.approx(wide.criteria[spec].scores, rel=1e-6)


@pytest.mark.parametrize(("stream", "way_out"), [("on", "a smaller --length"), ("off", "--stream on")])
def test_a_budget_too_small_says_how_much_is_needed(llama, tmp_path, stream, way_out):
    ids = tmp_path / "ids.json"
    ids.write_text(str(IDS_BT.tolist()))
    settings = ModelSettings(model=llama, stream=stream, memory="1MiB")
    message = rf"--memory 1.00 MiB is too little: [\d.]+ [GM]iB are needed \(process .*weights .*\); .*{way_out}"
    with pytest.raises(ScoreError, match=message):
        score(settings, TextSettings(ids=str(ids)), ScoreSettings(criteria=["ppl"]))


def test_auto_takes_from_disk_what_the_budget_cannot_hold(llama, tmp_path, monkeypatch):
    ids, told = tmp_path / "ids.json", []
    ids.write_text(str(IDS_BT.tolist()))
    monkeypatch.setattr("shortlm.sweep.scheduler.taken_memory", lambda device: 0)
    scheduler = Scheduler.of(open_files(ModelSettings(model=llama)))
    work = work_of(["bi"], WINDOWS.shape)
    need = [scheduler.within(work, None, streamed).peak_bytes for streamed in (False, True)]
    monkeypatch.setattr("shortlm.sweep.scheduler.CHUNK", {"cpu": 1})
    need = [scheduler.within(work, None, streamed).peak_bytes for streamed in (False, True)]
    assert need[1] < need[0]
    monkeypatch.setattr("shortlm.sweep.scheduler.MARGIN", 0)
    for budget, where in ((need[0], "model in memory"), (need[1], "blocks from disk")):
        settings = ModelSettings(model=llama, memory=str(budget))
        scores = score(settings, TextSettings(ids=str(ids)), ScoreSettings(criteria=["bi"]), told.append)
        assert told[-1].startswith(f"schedule: {where}, ")
        assert len(scores.criteria["bi"].scores) == BLOCKS


def test_plan_memory_from_a_config_alone(llama, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_bytes(
        (open_files(ModelSettings(model=llama)).checkpoint.folder / "config.json").read_bytes()
    )
    settings = ModelSettings(model=str(tmp_path / "model"), stream="on")
    plan = plan_memory(settings, TextSettings(length=15), ScoreSettings(criteria=["ppl", "taylor", "magnitude"]))
    assert [row.name for row in plan.rows] == ["ppl", "taylor", "magnitude", "all together"]
    assert plan.disk_bytes_per_second is None and (plan.sequences, plan.tokens) == (10, 16)
    assert all(row.seconds > 0 and row.streamed for row in plan.rows)
    assert plan.rows[0].block_forwards == BLOCKS * (BLOCKS + 1) // 2
    assert plan.rows[3].peak_bytes >= max(row.peak_bytes for row in plan.rows[:3])
    elsewhere = settings.model_copy(update={"device": "cuda:7", "memory": "4GiB"})
    rows = plan_memory(elsewhere, TextSettings(length=15), ScoreSettings(criteria=["ppl"])).rows
    assert rows[0].seconds is None and rows[0].parts["process"] == 0
    with pytest.raises(TextError, match="planning needs numbers: give --sequences and --length"):
        plan_memory(settings, TextSettings(ids="x.json"), ScoreSettings())


@pytest.mark.parametrize("name", ["llama", "gemma2", "falcon", "mixtral", "qwen3_moe", "gpt2"])
def test_times_are_measured_on_a_made_up_block(name):
    made_up = MadeUpModel(tiny_config(name), torch.float32, CPU)
    times = made_up.times(2, 16)
    assert times.block > 0 and times.head > 0
    assert len(made_up.directional_derivatives(next(iter(made_up.kinds)), 2, 16)) == 2


def test_sizes():
    assert [byte_size(t) for t in ("6GiB", "500MB", "12", "0.5kib")] == [6 * 2**30, 500 * 10**6, 12, 512]
    assert [gib(n) for n in (2**30, 3 * 2**20, 100, 2**30 - 1)] == ["1.00 GiB", "3.00 MiB", "100 B", "1.00 GiB"]
