"""On an accelerator: the same scores as on the processor, in memory and from disk, within a budget that is kept."""

from __future__ import annotations

import pytest
import torch
from architectures import save_tiny

from shortlm.cut import cut
from shortlm.heal import heal
from shortlm.model import open_files, quiet
from shortlm.recipe import CutSettings, HealSettings, ModelSettings, PhaseSettings, ScoreSettings
from shortlm.score import score_model
from shortlm.score.scoring import work_of
from shortlm.sweep import plan_for
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


def test_a_budget_of_the_device_is_kept(folder):
    settings = ModelSettings(model=folder, device="cuda", stream="on", memory="4GiB")
    files = open_files(settings)
    windows = windows_from_ids(IDS_BT, 96)
    plan = plan_for(files, work_of(CRITERIA, windows.shape))
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
