"""On an accelerator: the same scores as on the processor, in memory and from disk, within a budget that is kept."""

from __future__ import annotations

import pytest
import torch
from architectures import save_tiny

from shortlm.bench import bench
from shortlm.cut import cut
from shortlm.heal import heal
from shortlm.model import open_files, quiet
from shortlm.recipe import (
    BenchSettings,
    CutSettings,
    HealSettings,
    ModelSettings,
    PhaseSettings,
    RepairSettings,
    ScoreSettings,
    TextSettings,
    WorkloadSettings,
)  # fmt: skip
from shortlm.repair import repair
from shortlm.score import score_model
from shortlm.score.scoring import work_of
from shortlm.sweep import schedule_for
from shortlm.text import windows_from_ids

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA"),
]
CRITERIA = ["ppl", "taylor", "bi", "angular", "magnitude", "first_order"]
IDS_BT = torch.randint(3, 96, (6, 64), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("gpu") / "llama"
    with quiet():
        save_tiny("llama", path, hidden_size=256, intermediate_size=512, num_hidden_layers=12)
    return str(path)


def scored(folder: str, plan=None, **settings):
    files = open_files(ModelSettings(model=folder, **settings))
    opened = files.open(settings.get("stream") == "on")
    return score_model(opened, windows_from_ids(IDS_BT, 96), ScoreSettings(criteria=CRITERIA, resamples=0), 0, plan)


@pytest.mark.parametrize("stream", ["off", "on"])
def test_scores_equal_those_of_the_processor(folder, stream):
    expected, got = scored(folder, device="cpu"), scored(folder, device="cuda", stream=stream)
    for spec in CRITERIA:
        assert got.criteria[spec].scores == pytest.approx(expected.criteria[spec].scores, rel=1e-3, abs=1e-6), spec


def test_scores_of_sublayers_equal_those_of_the_processor(folder):
    settings = ScoreSettings(criteria=CRITERIA, units=["attention", "ffn"], resamples=0)
    windows = windows_from_ids(IDS_BT, 96)
    expected, got = (
        score_model(open_files(ModelSettings(model=folder, device=device)).open(False), windows, settings).criteria
        for device in ("cpu", "cuda")
    )
    for spec in CRITERIA:
        assert got[spec].scores == pytest.approx(expected[spec].scores, rel=1e-3, abs=1e-6), spec


def test_a_budget_of_the_device_is_kept(folder):
    settings = ModelSettings(model=folder, device="cuda", stream="on", memory="4GiB")
    files = open_files(settings)
    windows = windows_from_ids(IDS_BT, 96)
    plan = schedule_for(files, work_of(CRITERIA, windows.shape))
    torch.cuda.reset_peak_memory_stats()
    score_model(files.open(True), windows, ScoreSettings(criteria=CRITERIA, resamples=0), 0, plan)
    assert torch.cuda.max_memory_allocated() <= plan.peak_bytes


@pytest.mark.parametrize("method", ["lora", "qlora", "cpt", "last-layers", "distill"])
def test_healing(tmp_path, method):
    if method == "qlora":
        pytest.importorskip("bitsandbytes")
    phase = PhaseSettings(
        method=method, data=["embedded"], separator="\n\n", length=128, batch=16, steps=20, held_out=8, lr=1e-3,
        teacher="embedded",
    )  # fmt: skip
    cut(ModelSettings(device="cuda"), [4, 5], CutSettings(), tmp_path / "cut")
    model = ModelSettings(model=str(tmp_path / "cut"), device="cuda")
    (done,) = heal(model, HealSettings(phases=[phase]), tmp_path / "out").phases
    first, *_, last = (v.nats_per_token["embedded"] for v in done.validations)
    assert last < first and done.peak_bytes < 2**30


def test_bench_measures_on_the_device(folder):
    work = WorkloadSettings(batches=[1, 4], prompt_tokens=[16], output_tokens=[8], runs=3, warmup=1)
    settings = BenchSettings(workloads=[work], limits=True, largest=64)
    models = [ModelSettings(model=folder, device="cuda", memory="1GiB")] * 2
    found = bench(models, settings, ["a", "b"])
    assert all(0 < r.first_token < r.seconds for c in found.cells for r in c.runs)
    alike = [c.peak_bytes for c in found.cells if c.batch == 4]
    assert alike[0] == pytest.approx(alike[1], rel=0.05), "the other model's weights must not count"
    assert all(c.peak_bytes > found.models[0].weight_bytes + c.cache_bytes for c in found.cells)
    assert all(b.blocks > 0 and b.head > 0 for b in found.breakdowns)
    assert all(x.peak_bytes is None or x.peak_bytes <= x.budget_bytes for x in found.limits)


@pytest.mark.parametrize(("cache", "compile"), [("static", False), ("static", True), ("dynamic", True)])
def test_bench_with_other_caches(folder, cache, compile):
    work = WorkloadSettings(batches=[2], prompt_tokens=[16], output_tokens=[8], runs=3, warmup=2)
    settings = BenchSettings(workloads=[work], cache=cache, compile=compile)
    (cell,) = bench([ModelSettings(model=folder, device="cuda")], settings, ["a"]).cells
    assert len(cell.runs) == 3 and cell.cache_bytes


@pytest.mark.parametrize("stream", ["off", "on"])
def test_a_repair_equals_that_of_the_processor(tmp_path, stream):
    cut(ModelSettings(), [3, 4, 5], CutSettings(verify=False), tmp_path / "cut")
    settings, text = RepairSettings(calibration=60, validation=10), TextSettings(text="embedded", length=64)
    loss = {}
    for device in ("cpu", "cuda"):
        model = ModelSettings(model=str(tmp_path / "cut"), device=device, stream=stream)
        dense = ModelSettings(device=device, stream=stream)
        step = repair(model, dense, text, settings, tmp_path / device, always=True).repair
        assert step is not None
        loss[device] = step.loss
    assert loss["cuda"].repaired == pytest.approx(loss["cpu"].repaired, abs=5e-3)
    assert loss["cuda"].cut == pytest.approx(loss["cpu"].cut, abs=1e-4)
