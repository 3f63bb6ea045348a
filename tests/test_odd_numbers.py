"""Numbers that are valid and odd: as large as floats go, almost nothing, zero. All is drawn, all is printed.

Warnings are errors here, so an overflow inside matplotlib would be one.
"""

from __future__ import annotations

import io
import math
import subprocess
import sys
from typing import Any

import pytest
from made_by_hand import block_scores, cut_plan, manifest, measurement
from test_markdown import healing
from test_measured_report import benchmark, tasked

from shortlm import console
from shortlm.artifacts import Artifact, Validation
from shortlm.report import Evidence, loss_chart, model_card, numbers, write_markdown, write_page, write_results
from shortlm.report.quality_charts import perplexity_chart, tradeoff_chart
from shortlm.report.results import result_rows
from shortlm.report.runs import runs_chart
from shortlm.report.score_charts import scores_chart, within_reach
from shortlm.report.speed import ratio, speed_rows
from shortlm.report.tradeoff import Point


def changed(artifact: Any, name: str, value: float) -> Any:
    """The artifact with `value` in every field of that name."""

    def walk(part: Any) -> Any:
        if isinstance(part, dict):
            return {k: _like(v, value) if k == name else walk(v) for k, v in part.items()}
        return [walk(item) for item in part] if isinstance(part, list) else part

    return type(artifact).model_validate(walk(artifact.model_dump()))


def _like(old: Any, value: float) -> Any:
    return [_like(item, value) for item in old] if isinstance(old, list) else value


def healed() -> Any:
    found = healing()
    found.phases[0].validations = [
        Validation(step=n, tokens=n, seconds=1.0, nats_per_token={"t": 2.0}) for n in (0, found.phases[0].kept_step)
    ]
    return found


def shown(folder, monkeypatch, **changes: Artifact) -> str:
    """Everything that is drawn and printed of a whole set of artifacts."""
    parts: dict[str, Any] = {
        "scores": block_scores(), "plan": cut_plan(), "manifest": manifest(), "dense": tasked("dense", 1, 0.8),
        "healed": tasked("healed", 2, 0.6), "healing": healed(), "bench": benchmark(roles=("dense", "healed")),
    } | changes  # fmt: skip
    measured, bench = [parts["dense"], parts["healed"]], parts["bench"]
    common = {name: parts[name] for name in ("scores", "plan", "manifest", "healing")}
    known = Evidence("t", **common, measurements=measured, benchmark=bench)
    write_page(folder / "r.html", known, force=True)
    write_markdown(folder / "r.md", known, force=True)
    write_results(folder, known, force=True)
    loss_chart(parts["healing"])
    model_card(known)
    said = io.StringIO()
    monkeypatch.setattr(console.out, "_file", said)  # `file` would leave the stream of this test behind
    console.show_scores(parts["scores"])
    console.show_plan(parts["plan"])
    console.show_manifest(parts["manifest"], folder)
    console.show_healing(parts["healing"], folder)
    for m in measured:
        console.show_measurement(m)
    console.show_benchmark(bench)
    return said.getvalue()


ODD = [
    ("healed", "perplexity", 5e-324), ("healed", "perplexity", 1e308), ("healed", "nats_per_token", 1e308),
    ("healed", "stderr_nats", 1e308), ("healed", "value", 1e308), ("healed", "per_question", 1e308),
    ("bench", "seconds", 0.0), ("bench", "seconds", 1e308), ("bench", "blocks", 0.0), ("bench", "blocks", 1e308),
    ("dense", "block_parameters", 0), ("manifest", "bytes_before", 0),
    ("healing", "nats_per_token", {"t": 1e308}), ("healing", "loss", 1e308), ("healing", "seconds", 5e-324),
]  # fmt: skip


@pytest.mark.parametrize(("part", "name", "value"), ODD)
def test_everything_is_drawn_and_printed(part, name, value, tmp_path, monkeypatch):
    whole = {"plan": cut_plan(), "manifest": manifest(), "dense": tasked("dense", 1, 0.8), "healing": healed(),
             "healed": tasked("healed", 2, 0.6), "bench": benchmark(roles=("dense", "healed"))}[part]  # fmt: skip
    assert shown(tmp_path, monkeypatch, **{part: changed(whole, name, value)})


EXTREMES = {
    "largest": [1e308] * 6, "both ends": [1e308, -1e308, 0.0, 1.0, 5e-324, -1.0], "smallest": [5e-324] * 6,
    "all decades": [10.0**i for i in (-300, -200, -100, 100, 200, 300)], "growing": [i * 1e307 for i in range(6)],
}  # fmt: skip


@pytest.mark.parametrize("name", EXTREMES)
@pytest.mark.parametrize("error", [None, 0.0, 1e308, math.inf])
def test_scores_of_any_size_are_drawn(name, error):
    values = EXTREMES[name]
    found = block_scores().criteria["ppl"].model_copy(update={"scores": values, "stderr": error and [error] * 6})
    for dense in (None, 1e308, 5e-324):
        assert scores_chart("c", "n", found, [1], [0], dense).startswith("<svg")


def test_large_scores_are_drawn_in_units_of_a_power_of_ten():
    found = block_scores().criteria["ppl"].model_copy(update={"scores": EXTREMES["growing"], "stderr": None})
    scaled, dense, power = within_reach(found, 1e307)
    assert power == 307 and scaled.scores == [0, 1, 2, 3, 4, 5] and dense == 1.0
    svg = scores_chart("c", "n", found, [1], [0], None)
    assert "perplexity × 1e307" in svg and "block 3, protected" not in svg and "3.000 × 10³⁰⁷" in svg
    plain = block_scores().criteria["ppl"]
    assert within_reach(plain, 3.0) == (plain, 3.0, 0)


@pytest.mark.parametrize("x", [0.0, 1.0, 1e308])
@pytest.mark.parametrize("y", [0.0, -1e308, 1e308, 5e-324])
def test_points_of_any_size_are_drawn(x, y):
    for stderr in (None, 1e308):
        assert tradeoff_chart("c", [Point("a", x, y, stderr), Point("b", 1.0, 2.0, 0.1)], "x", "y", {})


def test_runs_and_no_rows():
    assert runs_chart("r", "n", [[1e308, -1e308], [math.nan]], [0]).startswith("<svg")


def test_what_can_not_be_a_number_has_no_row():
    found = [tasked("dense", 1, 0.8), changed(tasked("cut", 2, 0.6), "stderr_nats", 1e308)]
    rows = result_rows(Evidence(measurements=found, benchmark=changed(benchmark(), "seconds", 0.0)))
    assert all(math.isfinite(r["value"]) and (r["stderr"] is None or math.isfinite(r["stderr"])) for r in rows)


def test_runs_that_took_no_time_count_as_a_tick():
    bench = changed(benchmark(), "seconds", 0.0)
    assert speed_rows(bench)[0].tokens_per_second == 32 / 1e-9
    assert ratio(*bench.cells[:2], paired=True).value == 1.0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (numbers.duration(math.inf), "infinite s"), (numbers.duration(1e308), "1.00 × 10³⁰⁸ s"),
        (numbers.count(math.inf), "infinite"), (numbers.size(1e308), "1.00 × 10³⁰⁸"),
        (str(numbers.exp(1e308)), "inf"), (str(numbers.exp(-1e308)), "0.0"), (str(numbers.exp(0)), "1.0"),
    ],
)  # fmt: skip
def test_numbers_beyond_reason_are_written(text, expected):
    assert text == expected


def test_a_wild_perplexity_keeps_its_figure():
    from shortlm.report.quality import comparison

    svg = perplexity_chart(
        "p", comparison([measurement("dense"), changed(measurement("cut"), "perplexity", 1e308)]), {}
    )
    assert "cut 1.00 × 10³⁰⁸" in svg


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_streams_cost_nothing(closed, tmp_path):
    """`choose` prints a table; the plan is written all the same."""
    scores, plan = tmp_path / "scores.json", tmp_path / "plan.json"
    block_scores().save(scores)
    command = f"exec '{sys.executable}' -m shortlm choose '{scores}' --blocks 2 -o '{plan}' {closed}"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0 and plan.exists(), done.stderr
