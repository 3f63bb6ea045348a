"""What reports make of tasks and benchmarks: differences and their significance, ratios, tables, the page, compare."""

from __future__ import annotations

import csv
import itertools
import json
import math
import random
import statistics
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from made_by_hand import Page, browser, card, cut_plan, facts, measurement, origin
from typer.testing import CliRunner

from shortlm.artifacts import (
    BenchedModel,
    Benchmark,
    Breakdown,
    Cell,
    Fluency,
    Limit,
    Measurement,
    TaskMean,
    TaskResult,
    Timing,
)  # fmt: skip
from shortlm.cli import app
from shortlm.cut import cut
from shortlm.errors import OutputError, RecipeError
from shortlm.recipe import BenchSettings, CutSettings, EvalSettings, ModelSettings, TextSettings, WorkloadSettings
from shortlm.report import Evidence, numbers, write_markdown, write_page, write_results
from shortlm.report.headline import headline, key_figures
from shortlm.report.quality import comparison
from shortlm.report.results import result_rows
from shortlm.report.roles import all_roles, colours, reference_of
from shortlm.report.speed import limit_pairs, main_case, noise_warnings, ratio, shares, speed_rows
from shortlm.report.tasks import task_difference, task_rows
from shortlm.report.tradeoff import by_size, by_speed
from shortlm.run import compare
from shortlm.statistics import mcnemar, normal_p, order_rank


def call(*args: object, code: int = 2) -> str:
    result = CliRunner().invoke(app, [str(a) for a in args], prog_name="shortlm")
    assert result.exit_code == code, result.output
    return " ".join((result.stderr if code else result.stdout).split())


def task(name: str, right: list[float], questions: str = "q") -> TaskResult:
    p = sum(right) / len(right)
    return TaskResult(
        task=name, metric="acc", value=p, stderr=math.sqrt(p * (1 - p) / (len(right) - 1)), metrics={"acc": p},
        per_question=right, questions_sha256=questions, questions=len(right), dataset="owner/data/sub", version="1.0",
    )  # fmt: skip


def tasked(role: str, seed: int, share: float) -> Measurement:
    rng = random.Random(seed)
    tasks = [task(name, [float(rng.random() < share) for _ in range(40)]) for name in ("one", "two")]
    mean = TaskMean(
        name="both", tasks=["one", "two"], weights=[0.5, 0.5], value=sum(t.value for t in tasks) / 2,
        stderr=math.hypot(*(t.stderr for t in tasks)) / 2,
    )  # fmt: skip
    fluent = Fluency(texts=2, tokens=80, distinct=[0.5, 0.7, 0.9], repeated=0.1, repeated_stderr=0.02)
    return measurement(role).model_copy(update={"tasks": tasks, "task_means": [mean], "fluency": fluent})


def cell(role: str, batch: int, seconds: list[float], output: int = 32) -> Cell:
    return Cell(
        role=role, batch=batch, prompt_tokens=64, output_tokens=output, peak_bytes=10_000_000 * batch,
        cache_bytes=1_000_000 * batch,
        runs=[Timing(seconds=s, first_token=s / 8 if output else None, utilisation=0.5, joules=3.0) for s in seconds],
    )  # fmt: skip


def benchmark(noise: float = 0.01, roles=("dense", "cut"), factor: float = 0.7, interleaved: bool = True) -> Benchmark:
    rng, cells = random.Random(4), []
    for batch in (1, 8):
        drift = [1 + 0.3 * rng.random() for _ in range(6)]
        for i, role in enumerate(roles):
            times = [batch**0.5 * d * factor**i * math.exp(rng.gauss(0, noise)) for d in drift]
            cells.append(cell(role, batch, times))
    breakdowns = [
        Breakdown(role=r, batch=1, prompt_tokens=64, steps=60, blocks=0.006 * factor**i, head=0.001, rest=0.001)
        for i, r in enumerate(roles)
    ]
    limits = [
        Limit(role=r, kind="batch", batch=b, prompt_tokens=64, output_tokens=32, value=b, stopped_by="memory",
              budget_bytes=2**30)
        for r, b in zip(roles, (40, 60, 50, 55), strict=False)
    ]  # fmt: skip
    models = [
        BenchedModel(role=r, model=facts(blocks=12 if not i else 8), weight_bytes=7_000_000)
        for i, r in enumerate(roles)
    ]
    return Benchmark(
        models=models, device="a <machine>", backend="transformers, dynamic cache", sampling="greedy decoding",
        interleaved=interleaved, cells=cells, breakdowns=breakdowns, limits=limits, provenance=origin(3.0),
    )  # fmt: skip


def plain_mcnemar(won: int, lost: int) -> float:
    """All ways in which the questions could have fallen, one by one."""
    n, seen = won + lost, abs(won - lost)
    ways = [abs(2 * sum(way) - n) >= seen for way in itertools.product((0, 1), repeat=n)]
    return sum(ways) / len(ways)


@pytest.mark.parametrize(("won", "lost"), [(0, 0), (1, 0), (3, 3), (0, 6), (7, 2), (2, 9)])
def test_mcnemar_counts_all_ways(won, lost):
    assert mcnemar(won, lost) == pytest.approx(plain_mcnemar(won, lost), rel=1e-9)


def test_mcnemar_of_many_questions_does_not_overflow():
    assert mcnemar(5000, 5000) == 1.0 and 0 < mcnemar(5000, 5300) < 0.01 and mcnemar(0, 9000) == 0.0


def test_differences_are_taken_question_by_question():
    before, after = task("t", [1, 1, 1, 0, 0, 1, 1, 0]), task("t", [1, 0, 1, 0, 0, 0, 1, 1])
    found = task_difference(before, after)
    deltas = [0, -1, 0, 0, 0, -1, 0, 1]
    assert found.paired and found.value == pytest.approx(-1 / 8)
    assert found.stderr == pytest.approx(statistics.stdev(deltas) / math.sqrt(8))
    assert found.p == pytest.approx(plain_mcnemar(1, 2)) and not found.sure


def test_other_questions_are_not_paired():
    before, after = task("t", [1, 1, 0, 1] * 5), task("t", [1, 0, 0, 1] * 5, "other")
    found = task_difference(before, after)
    assert not found.paired and found.stderr == pytest.approx(math.hypot(before.stderr, after.stderr))
    assert found.p == pytest.approx(math.erfc(abs(found.value) / found.stderr / math.sqrt(2)))


def test_scores_that_are_not_right_or_wrong_use_the_normal_distribution():
    before, after = task("t", [0.5, 0.25, 0.75, 0.1]), task("t", [0.75, 0.5, 0.8, 0.3])
    found = task_difference(before, after)
    assert found.paired and found.p == pytest.approx(normal_p(found.value, found.stderr))
    assert (
        normal_p(1.96, 1.0) == pytest.approx(0.05, abs=1e-3) and normal_p(0.0, 0.0) == 1.0 and normal_p(1, None) is None
    )


def test_means_are_compared_over_the_same_tasks():
    dense, shorter = tasked("dense", 1, 0.8), tasked("cut", 2, 0.6)
    rows = task_rows([dense, shorter])
    assert [(r.task, r.role) for r in rows] == [
        ("one", "dense"), ("one", "cut"), ("two", "dense"), ("two", "cut"), ("both", "dense"), ("both", "cut")
    ]  # fmt: skip
    parts, mean = [rows[1].difference, rows[3].difference], rows[5].difference
    assert mean.value == pytest.approx(sum(d.value for d in parts) / 2)
    assert mean.stderr == pytest.approx(math.hypot(*(d.stderr for d in parts)) / 2) and mean.paired
    shorter.task_means[0].tasks = ["one"]
    assert task_rows([dense, shorter])[5].difference.stderr is None


def test_the_ratio_is_taken_round_by_round():
    """The machine's drift of 30 % falls on both models of a round, so the ratio is far surer than the times."""
    paired, alone = (
        next(r.ratio for r in speed_rows(benchmark(interleaved=turns)) if r.ratio and r.case.batch == 1)
        for turns in (True, False)
    )
    assert paired.low < 1 / 0.7 < paired.high and paired.sure
    assert paired.high - paired.low < (alone.high - alone.low) / 2
    a, b = benchmark().cells[:2]
    logs = sorted(math.log(x.seconds / y.seconds) for x, y in zip(a.runs, b.runs, strict=True))
    found = ratio(a, b, paired=True)
    assert found.value == pytest.approx(math.exp(statistics.median(logs)))
    assert found.low == pytest.approx(math.exp(logs[0])) and found.high == pytest.approx(math.exp(logs[-1]))  # of six


def test_a_stalled_round_has_one_vote():
    quiet = [cell(r, 1, [s] * 10) for r, s in (("a", 2.0), ("b", 1.0))]
    stalled = [c.model_copy(deep=True) for c in quiet]
    stalled[0].runs[3].seconds = 60.0
    assert ratio(*stalled, paired=True) == ratio(*quiet, paired=True)


@pytest.mark.parametrize("count", [5, 6, 9, 10, 20, 30])
def test_the_interval_of_the_median_holds_it_in_95_of_100(count):
    """Against a count of all ways in which values can fall on either side of the median."""
    rank = order_rank(count)
    below = [sum(math.comb(count, i) for i in range(k)) / 2**count for k in (rank, rank + 1)]
    assert 2 * below[0] <= 0.05 < 2 * below[1]


def test_few_rounds_take_the_geometric_mean():
    a, b = cell("a", 1, [2.0, 2.2, 2.1]), cell("b", 1, [1.0, 1.2, 1.1])
    logs = [math.log(x.seconds / y.seconds) for x, y in zip(a.runs, b.runs, strict=True)]
    half = 4.303 * statistics.stdev(logs) / math.sqrt(3)  # Student's t of two degrees of freedom
    assert ratio(a, b, paired=True).value == pytest.approx(math.exp(statistics.mean(logs)))
    assert ratio(a, b, paired=True).high == pytest.approx(math.exp(statistics.mean(logs) + half), rel=1e-4)


def test_perplexities_over_other_tokens_are_not_compared():
    found = [measurement("a"), measurement("b")]
    for p in found[1].perplexities:
        p.data.sha256 = "0" * 64
    assert "→" not in headline(Evidence(measurements=found)) and by_size(found) == []


def test_one_run_is_never_sure():
    found = ratio(cell("a", 1, [2.0]), cell("b", 1, [1.0]), paired=True)
    assert found.value == 2.0 and not found.sure and found.low == 0.0 and found.high == math.inf


def test_a_noisy_machine_is_told():
    assert noise_warnings(benchmark()) == []
    (line, _) = noise_warnings(benchmark(noise=0.8))
    assert (
        line.startswith("batch 1, 64 + 32 tokens: cut is ") and "holds 1: too noisy a machine, or too few runs" in line
    )


def test_speed_rows_are_those_of_the_raw_runs():
    bench = benchmark()
    row, times = speed_rows(bench)[0], [r.seconds for r in bench.cells[0].runs]
    assert row.latency == statistics.median(times) and row.mean == pytest.approx(statistics.fmean(times))
    assert row.deviation == pytest.approx(statistics.pstdev(times))
    assert row.tokens_per_second == pytest.approx(32 / row.latency)
    assert row.first_token == pytest.approx(row.latency / 8) and row.per_token == pytest.approx(
        row.latency * 7 / 8 / 31
    )
    assert row.joules_per_token == pytest.approx(3 / 32) and row.utilisation == 0.5
    reading = bench.model_copy(update={"cells": [cell("dense", 2, [4.0, 4.0], output=0)]})
    assert speed_rows(reading)[0].tokens_per_second == 2 * 64 / 4 and speed_rows(reading)[0].per_token is None


def test_what_dropping_blocks_can_give():
    dense, shorter = shares(benchmark(factor=2 / 3))
    assert dense.ideal is None and shorter.ideal == pytest.approx(8 / (6 * 8 / 12 + 2))
    assert shorter.speedup == pytest.approx(8 / 6) and shorter.of_ideal_blocks == pytest.approx(1.0)


def test_limits_stand_beside_the_reference():
    assert [(x.role, factor) for x, factor in limit_pairs(benchmark())] == [("dense", None), ("cut", 1.5)]


def test_the_reference_is_the_dense_model_or_the_first():
    assert reference_of(["cut", "dense"]) == "dense" and reference_of(["a", "b"]) == "a" and reference_of(["a"]) is None
    assert all_roles([measurement("cut"), measurement("dense")], None) == ["dense", "cut"]
    palette = colours(["a", *"bcdefghi"])
    assert len(set(palette.values())) == 7 and palette["b"] == palette["h"] != palette["a"]


def test_points_of_quality_against_cost():
    found = [tasked("dense", 1, 0.8), tasked("cut", 2, 0.6)]
    points = by_size(found)
    assert [(p.role, p.x) for p in points] == [(m.role, m.model.parameters) for m in found]
    assert points[0].y == found[0].task_means[0].value
    speed, case = by_speed(found, benchmark())
    assert case == "batch 1, 64 + 32 tokens" == main_case(benchmark()).words
    assert speed[1].x == speed_rows(benchmark())[1].tokens_per_second
    assert by_size(found[:1]) == [] and by_speed(found, None) == ([], "")


def test_the_headline_tells_of_tasks_and_speed():
    found = [tasked("dense", 1, 0.8), tasked("cut", 2, 0.6)]
    known = Evidence(plan=cut_plan(), measurements=found, benchmark=benchmark())
    text = headline(known).replace("\u00a0", " ")
    a, b = (f"{100 * m.task_means[0].value:.1f} %" for m in found)
    speed = next(r.ratio for r in speed_rows(benchmark()) if r.ratio)
    assert f", both {a} → {b}, {numbers.significant(speed.value)} times as fast." in text
    names = [f.name for f in key_figures(known)]
    assert names == ["Blocks", "Parameters", "Perplexity", "Tasks: both", "Tokens per second", "Peak memory"]
    assert "times as fast" not in headline(replace(known, benchmark=benchmark(noise=0.8)))


def test_several_models_get_a_clause_each():
    found = [measurement(r) for r in ("a", "b", "c")]
    text = headline(Evidence(measurements=found, benchmark=benchmark(roles=("a", "b", "c"))))
    assert text.startswith("Beside a, b: perplexity × ") and "; c: " in text and "times as fast" in text


def test_of_many_models_the_headline_tells_the_best_and_the_fastest():
    names = ["dense", "a", "bb", "ccc", "dddd", "eeeee"]
    found = [measurement(name) for name in names]
    bench = benchmark(roles=("dense", "bb"))
    best = min((r for r in comparison(found) if r.difference), key=lambda r: r.difference.nats)
    text = headline(Evidence(measurements=found, benchmark=bench)).replace("\u00a0", " ")
    assert text.startswith(f"5 models beside dense; the best is {best.role}: −32 % parameters, perplexity × ")
    assert text.endswith("times as fast.") and text.count(": ") == 2 and "; the fastest is bb: " in text
    assert headline(Evidence(measurements=found)).replace("\u00a0", " ").count("; the ") == 1


def test_every_figure_has_a_row(tmp_path):
    found = [tasked("dense", 1, 0.8), tasked("cut", 2, 0.6)]
    known = Evidence(measurements=found, benchmark=benchmark())
    write_results(tmp_path, known)
    rows = json.loads((tmp_path / "results.json").read_bytes())
    assert rows == result_rows(known)
    table = list(csv.DictReader((tmp_path / "results.csv").read_text(encoding="utf-8").splitlines()))
    assert len(table) == len(rows) and [float(r["value"]) for r in table] == [r["value"] for r in rows]
    kinds = {(r["model"], r["kind"], r["metric"]): r["value"] for r in rows}
    assert kinds["cut", "task mean", "mean"] == found[1].task_means[0].value
    assert kinds["dense", "limit", "largest batch in 1073741824 bytes, stopped by memory"] == 40
    assert kinds["cut", "task", "acc, difference to the reference"] == pytest.approx(
        task_rows(found)[3].difference.value
    )
    assert kinds["dense", "size", "weights"] == 7_000_000
    single = benchmark()
    single.cells = [cell("dense", 1, [2.0]), cell("cut", 1, [1.0])]
    assert all(math.isfinite(r["value"]) for r in result_rows(Evidence(benchmark=single)))
    assert kinds["cut", "fluency", "distinct-3"] == 0.9


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[Path, str]:
    path = tmp_path_factory.mktemp("page") / "report.html"
    found = [tasked("dense", 1, 0.8), tasked("<b>cut", 2, 0.6)]
    bench = benchmark(noise=0.8, roles=("dense", "<b>cut"))
    bench.cells.append(Cell(role="dense", batch=64, prompt_tokens=64, output_tokens=32, failed="out of memory"))
    write_page(path, Evidence("t", measurements=found, benchmark=bench))
    return path, path.read_text(encoding="utf-8")


def test_the_page_has_a_chart_for_everything(whole):
    parsed = Page(whole[1])
    assert parsed.open == [] and len(parsed.ids()) == len(set(parsed.ids()))
    charts = [a["id"] for tag, a in parsed.elements if tag == "svg"]
    assert charts == [
        "perplexity",
        "parameters",
        "tasks-chart",
        "by-latency",
        "by-speed",
        "by-size",
        "throughput-0",
        "step",
        "memory-chart",
    ]
    sections = [a["id"] for tag, a in parsed.elements if tag == "section"]
    assert sections == ["quality", "tasks", "tradeoff", "speed", "memory", "samples", "provenance"]
    words = " ".join("".join(parsed.words).split())
    for wanted in ("Noisy. batch 1", "dense, batch 64, 64 + 32 tokens: out of memory", "What fits in 1.00", "GPU busy",
                   "Energy per token", "Do they repeat themselves?", "McNemar"):  # fmt: skip
        assert wanted in words.replace("\u00a0", " "), wanted
    assert "<b>cut" not in whole[1] and "a <machine>" not in whole[1] and "None" not in words


def test_the_markdown_has_the_same_tables(tmp_path):
    found = [tasked("dense", 1, 0.8), tasked("cut", 2, 0.6)]
    write_markdown(tmp_path / "r.md", Evidence("T", plan=cut_plan(), measurements=found, benchmark=benchmark()))
    text = (tmp_path / "r.md").read_text(encoding="utf-8")
    row = next(r for r in task_rows(found) if r.role == "cut" and r.task == "one")
    assert f"| one | acc | cut | {numbers.with_error(row.value, row.stderr)} | " in text
    for wanted in (
        "## Quality",
        "## Tasks",
        "## Speed",
        "| 8 | 64 + 32 | cut |",
        "Largest batch, 64 + 32 tokens | cut | 60",
    ):
        assert wanted in text, wanted
    assert "None" not in text and "\n\n\n" not in text


def test_the_card_gives_tasks_to_the_hub():
    front, body = card(measured=[tasked("dense", 1, 0.8), tasked("cut", 2, 0.6)], benchmark=benchmark())
    results = front["model-index"][0]["results"]
    assert [r["dataset"]["name"] for r in results] == ["embedded", "wikitext-2", "one", "two"]
    assert results[2]["dataset"] == {"type": "owner/data", "name": "one", "config": "sub"}
    assert results[2]["metrics"][0]["type"] == "acc"
    assert "## Tasks" in body and "## Speed" in body


@pytest.fixture(scope="module")
def shorter(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("compared") / "shorter"
    cut(ModelSettings(), [4, 5], CutSettings(verify=False), folder)
    return str(folder)


def test_compare_goes_on_and_keeps_what_is_unchanged(shorter, tmp_path, monkeypatch):
    models = [ModelSettings(), ModelSettings(model=shorter)]
    text = TextSettings(text="embedded", sequences=4, length=32)
    evaluation = EvalSettings(texts=[text], tasks=["village_facts"], limit=4, new_tokens=8)
    quick = WorkloadSettings(batches=[1], prompt_tokens=[4], output_tokens=[4], runs=3, warmup=0)
    benching, said = BenchSettings(workloads=[quick]), []
    page = compare(models, evaluation, benching, tmp_path / "c", "Both", say=said.append)
    names = [
        "bench.json",
        "comparison.yaml",
        "eval-0.json",
        "eval-1.json",
        "report.html",
        "report.md",
        "results.csv",
        "results.json",
    ]
    assert sorted(p.name for p in page.parent.iterdir()) == names
    assert [Measurement.load(page.parent / f"eval-{i}.json").role for i in (0, 1)] == ["embedded", "shorter"]
    assert Benchmark.load(page.parent / "bench.json").models[1].model.n_blocks == 10
    assert "Both" in page.read_text(encoding="utf-8")
    before, said = {p.name: p.read_bytes() for p in page.parent.iterdir()}, []
    compare(models, evaluation, benching, tmp_path / "c", "Both", say=said.append)
    assert len(said) == 4 and all(line.startswith("kept ") for line in said[:3]) and "erplexity" in said[3]
    assert before == {p.name: p.read_bytes() for p in page.parent.iterdir()}
    other = evaluation.model_copy(update={"limit": 3})
    with pytest.raises(OutputError, match=r"eval-0\.json: was made with other settings .*give --force"):
        compare(models, other, benching, tmp_path / "c")
    with monkeypatch.context() as patch:
        patch.setattr("shortlm.keys.installed_version", lambda name: "99.0" if name == "torch" else None)
        with pytest.raises(OutputError, match=r"eval-0\.json: was made with .*torch \d.*, now 99\.0.*; give --force"):
            compare(models, evaluation, benching, tmp_path / "c")
    (page.parent / "eval-1.json").write_bytes(before["eval-1.json"][:100])
    with pytest.raises(OutputError, match=r"eval-1\.json: can't be read \(is not a Measurement file: .*; delete "):
        compare(models, evaluation, benching, tmp_path / "c")
    compare(models, other, benching, tmp_path / "c", force=True)
    assert Measurement.load(page.parent / "eval-1.json").tasks[0].questions == 3


def test_compare_refuses(shorter, tmp_path):
    with pytest.raises(RecipeError, match="one model alone can't be compared"):
        compare([ModelSettings()], EvalSettings(), None, tmp_path / "x")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("x")
    assert "holds no comparison" in call("compare", "embedded", shorter, "-o", tmp_path / "mine")
    (tmp_path / "run").mkdir()
    for name in ("recipe.yaml", "bench.json", "eval-dense.json"):
        (tmp_path / "run" / name).write_text("{}")
    assert "holds no comparison" in call("compare", "embedded", shorter, "-o", tmp_path / "run", "--force")


def test_two_models_by_any_name_have_a_headline(shorter):
    found = [measurement(role) for role in ("some/dense-model", "shorter")]
    text = headline(Evidence(measurements=found)).replace("\u00a0", " ")
    assert text.startswith("Perplexity ") and " → " in text


def test_metrics_that_are_no_shares_are_shown_as_they_are():
    found = [tasked("dense", 1, 0.8), tasked("cut", 2, 0.6)]
    for m, value in zip(found, (12.0, 15.0), strict=True):
        m.task_means.clear()
        m.tasks = [m.tasks[0].model_copy(update={"metric": "word_perplexity", "value": value, "per_question": []})]
    text = headline(Evidence(plan=cut_plan(), measurements=found)).replace("\u00a0", " ")
    assert "one 12.0 → 15.0" in text
    (figure,) = [f for f in key_figures(Evidence(plan=cut_plan(), measurements=found)) if f.name.startswith("Tasks")]
    assert figure.note.replace("\u00a0", " ").startswith("word_perplexity; +3.0") and "points" not in figure.note


def test_evaluations_of_two_folders_can_be_told_apart(shorter, tmp_path):
    files = [tmp_path / "a.json", tmp_path / "b.json"]
    for model, file in zip(("embedded", shorter), files, strict=True):
        call(
            "eval",
            "-m",
            model,
            "--text",
            "embedded",
            "--sequences",
            4,
            "--length",
            32,
            "--new-tokens",
            4,
            "-o",
            file,
            code=0,
        )
    call("report", "--eval", files[0], "--eval", files[1], "-o", tmp_path / "r.html", code=0)
    page = Page((tmp_path / "r.html").read_text(encoding="utf-8"))
    assert "shorter" in page.words and "×\u00a0" in "".join(page.words)
    call("report", "--eval", files[0], "--eval", files[0], "-o", tmp_path / "s.html", code=0)
    assert "embedded (2)" in (tmp_path / "s.html").read_text(encoding="utf-8")


def test_runs_bench_before_and_after(tmp_path):
    out = tmp_path / "run"
    bench = tmp_path / "bench.yaml"
    bench.write_text(yaml.safe_dump({"workloads": [{"batches": [1], "output_tokens": [4], "runs": 3}]}))
    options = ["--sequences", 4, "--length", 32, "-c", "bi", "--blocks", 2, "--held-out", 4, "--new-tokens", 4]
    said = call("run", *options, "--bench", bench, "--tasks", "village_facts", "--limit", 4, "-o", out, code=0)
    assert "bench " in said
    assert [m.role for m in Benchmark.load(out / "bench.json").models] == ["dense", "cut"]
    assert Measurement.load(out / "eval-cut.json").tasks[0].questions == 4
    card_text = (out / "model" / "README.md").read_text(encoding="utf-8")
    assert (
        "village_facts"
        in yaml.safe_load(card_text.split("---\n")[1])["model-index"][0]["results"][1]["dataset"]["name"]
    )
    assert "times as fast" in (out / "report.html").read_text(encoding="utf-8").lower()
    again = call("run", *options, "--bench", bench, "--tasks", "village_facts", "--limit", 4, "-o", out, code=0)
    assert again.count("kept") == 6


def test_a_run_whose_bench_is_impossible_still_has_a_page(tmp_path):
    out, bench = tmp_path / "run", tmp_path / "bench.yaml"
    bench.write_text(yaml.safe_dump({"workloads": [{"output_tokens": [600]}]}))
    options = ["--sequences", 4, "--length", 32, "-c", "bi", "--blocks", 2, "--held-out", 4, "--new-tokens", 4]
    said = call("run", *options, "--bench", bench, "-o", out, code=0)
    assert "bench left out: embedded: 64 tokens of prompt and 600 of output are more than its context of 512" in said
    assert (out / "report.html").exists() and not (out / "bench.json").exists()


@pytest.mark.browser
def test_a_browser_draws_every_chart_in_light_and_dark(whole, tmp_path):
    text = browser(whole[0], tmp_path)
    assert text.stdout.count('class="chart"') == 8 and ":CONSOLE" not in text.stderr
