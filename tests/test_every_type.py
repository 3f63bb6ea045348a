"""Every type that docs/architectures.md calls supported, cut again: slow."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import transformers
from cut_of_every_type import TOLERANCE, tried

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results" / "architectures.json"
FILE = json.loads(RESULTS.read_text())
SUPPORTED = [row["model_type"] for row in FILE["types"] if row["outcome"] == "exact"]
SOME = ["falcon_h1", "gemma3", "gpt_oss", "jamba", "mistral3", "nemotron_h", "qwen3_next"]  # not only when asked for


@pytest.mark.parametrize("model_type", [*SOME, *(pytest.param(t, marks=pytest.mark.slow) for t in SUPPORTED)])
def test_a_cut_reloads_with_all_weights_and_equals_the_bypassed_original(model_type, tmp_path):
    if transformers.__version__ != FILE["versions"]["transformers"] and model_type not in transformers.CONFIG_MAPPING:
        pytest.skip(f"this transformers doesn't know {model_type}")
    became = tried(model_type, tmp_path)
    assert became["outcome"] == "exact", became["why"]
    assert became["gap"] <= TOLERANCE < became["moved"] / 100
    assert became["gap_cached"] is None or became["gap_cached"] <= max(TOLERANCE, 4 * became["own_gap_cached"])
    assert became["generates"]


def test_the_page_says_what_was_measured():
    page = (RESULTS.parents[2] / "docs" / "architectures.md").read_text()
    assert f"**{len(SUPPORTED)} are cut exactly**" in page
    assert all(f"| {name} |" in page for name in SUPPORTED)
