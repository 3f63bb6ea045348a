"""`manifest.json` as it was before there were steps: one cut, and what it left."""

from __future__ import annotations

from typing import Any

from shortlm.artifacts import Manifest


def of_one_cut(manifest: Manifest) -> dict[str, Any]:
    """The last cut alone, without the folder of its base, which the first version didn't keep."""
    step = manifest.last_cut.model_dump(mode="json")
    return {
        "kind": "Manifest", "plan": step["plan"], "blocks": manifest.blocks, "bytes_before": step["bytes_before"],
        "bytes_after": step["bytes_after"], "proof": step["equivalence"], "provenance": step["provenance"],
    }  # fmt: skip


FACTS = {
    "name": "m", "revision": None, "architecture": "LlamaForCausalLM", "n_blocks": 6, "block_parameters": [100] * 6,
    "parameters": 900,
}  # fmt: skip
ORIGIN = {
    "created": "2026-11-22T03:00:00+00:00", "versions": {"python": "3.12.3"}, "machine": "Linux x86_64, 2 cores",
    "device": "cpu", "dtype": "float32", "seconds": 0.5, "key": "0123456789abcdef",
}  # fmt: skip
PLAN = {
    "kind": "CutPlan", "model": FACTS, "removed": [1, 4], "method": "one-shot", "criterion": "ppl", "budget": "33%",
    "protected": [0, 5], "scores": [1.0, 0.1, 2.0, 3.0, 0.2, 5.0], "parameters_after": 700, "agreement": 0.8,
    "source": "scores.json", "provenance": ORIGIN,
}  # fmt: skip
CUT_ONCE = {
    "kind": "Manifest", "plan": PLAN, "blocks": [0, 2, 3, 5], "base_path": "/models/m", "bytes_before": 3600,
    "bytes_after": 2800, "provenance": ORIGIN,
    "proof": {"max_abs_difference": 2e-6, "max_abs_difference_cached": 3e-6, "tolerance": 1e-4,
              "tolerance_cached": 1e-4, "streamed": False, "tokens": 64, "dtype": "float32"},
}  # fmt: skip
LATER = {"name": "first", "n_blocks": 4, "block_parameters": [100] * 4, "parameters": 700}
CUT_TWICE = {
    "kind": "Manifest", "blocks": [0, 3, 5], "base_path": "/models/first", "bytes_before": 2800, "bytes_after": 2400,
    "plan": PLAN | {"model": FACTS | LATER, "removed": [1], "scores": None, "protected": [], "parameters_after": 600},
    "proof": None, "provenance": ORIGIN,
}  # fmt: skip
