"""A time for the bench and a machine that others use too: what is cut short or left out, and that it is said."""

from __future__ import annotations

import importlib
import sys
import types

import pytest
from made_by_hand import Page
from test_measured_report import benchmark
from typer.testing import CliRunner

from shortlm import console
from shortlm.artifacts import Benchmark, Timing
from shortlm.bench import bench
from shortlm.bench.load import busy_cores
from shortlm.bench.runners import Runner
from shortlm.bench.time_limit import TimeLimit
from shortlm.cli import app
from shortlm.cut import cut
from shortlm.errors import RecipeError
from shortlm.recipe import BenchSettings, CutSettings, ModelSettings, WorkloadSettings, validated
from shortlm.report import Evidence, write_markdown, write_page
from shortlm.report.speed import bench_notes, load_note, speed_rows

UP = "the time was up (--minutes 1)"


def part(name: str) -> types.ModuleType:
    """A module of bench; as an attribute, `shortlm.bench` is the verb."""
    return importlib.import_module(f"shortlm.bench.{name}")


@pytest.fixture()
def clock(monkeypatch):
    """A clock that stands still unless it is moved."""
    at = types.SimpleNamespace(now=1000.0)
    monkeypatch.setattr(part("time_limit"), "now", lambda: at.now)
    return at


@pytest.fixture()
def timed(clock, monkeypatch):
    """Every run takes a second; nothing else takes time, and nothing is computed."""

    def time(self, case, seed):
        clock.now += 1
        return Timing(seconds=1.0)

    monkeypatch.setattr(Runner, "time", time)
    monkeypatch.setattr(Runner, "memory", lambda self, case: (10**7, 10**5))
    monkeypatch.setattr(part("fleet"), "breakdowns", lambda runners, case: [])
    monkeypatch.setattr(part("benching"), "busy_cores", lambda: (0.0, 2))


def measured(batches: list[int], runs: int, minutes: float | None, models: int = 1, **more) -> Benchmark:
    work = WorkloadSettings(batches=batches, prompt_tokens=[4], output_tokens=[4], runs=runs, warmup=0)
    settings = BenchSettings(workloads=[work], minutes=minutes, **more)
    return bench([ModelSettings()] * models, settings, ["a", "b"][:models])


def test_parts_share_the_time_that_is_left(clock):
    budget = TimeLimit(1, 3)
    assert budget.begin()
    ended = budget.rounds_until(2)
    clock.now += 19.9
    assert not ended(5)
    clock.now += 0.2
    assert ended(5) and not ended(1)  # an interval needs two here
    clock.now += 29.9  # the first part has overdrawn; the second gets half of the ten seconds left
    assert budget.begin()
    ended = budget.rounds_until(2)
    clock.now += 5.1
    assert ended(2)
    clock.now += 5
    assert not budget.begin() and budget.spent and budget.reason == UP


def test_without_minutes_there_is_all_the_time(clock):
    budget = TimeLimit(None, 1)
    clock.now += 1e9
    assert budget.begin() and not budget.spent and not budget.rounds_until(1)(100)


def test_rounds_are_cut_short_evenly(timed):
    found = measured([1, 2, 4], 40, minutes=1, breakdown=False)
    assert [len(cell.runs) for cell in found.cells] == [20, 20, 20] and found.minutes == 1
    (one, *_) = notes = bench_notes(found)
    assert len(notes) == 3 and one == (
        "batch 1, 4 + 4 tokens: a cut short after 20 of 40 rounds, the time was up (--minutes 1)"
    )


def test_enough_time_changes_nothing(timed):
    found = measured([1, 2], 8, minutes=1)
    assert [len(cell.runs) for cell in found.cells] == [8, 8] and bench_notes(found) == []


def test_a_case_keeps_the_rounds_of_an_interval_or_is_left_out(timed):
    """Twelve runs of two models take 12 seconds; of a minute, five cases have that, and the sixth has none."""
    found = measured([1, 2, 3, 4, 5, 6, 7], 40, minutes=1, models=2)
    counts = [len(cell.runs) for cell in found.cells]
    assert counts == [6, 6] * 5 + [0, 0] * 2
    assert {cell.failed for cell in found.cells[:10]} == {None}
    assert {cell.failed for cell in found.cells[10:]} == {f"left out, {UP}"}
    assert all(row.ratio is None or row.ratio.low == 1.0 for row in speed_rows(found))
    assert found.left_out == [f"the parts of a decoding step, a, b: left out, {UP}"]


def test_models_that_take_no_turns_keep_enough_in_their_two_visits(timed, monkeypatch):
    monkeypatch.setattr(part("fleet"), "free_memory", lambda device: 15_000_000)
    found = measured([1, 2], 40, minutes=1, models=2, breakdown=False)
    assert not found.interleaved and [len(cell.runs) for cell in found.cells] == [15, 15, 15, 15]
    short = measured([1, 2], 40, minutes=0.05, models=2, breakdown=False)
    assert [(len(c.runs), bool(c.failed)) for c in short.cells] == [(3, False), (0, True), (0, True), (0, True)]


def test_limits_that_are_left_out_are_said(timed, clock):
    work = WorkloadSettings(batches=[1], prompt_tokens=[4], output_tokens=[4], runs=400, warmup=100)
    settings = BenchSettings(workloads=[work], minutes=1, limits=True)
    found = bench([ModelSettings(memory="1GiB")], settings, ["a"])
    assert found.limits == [] and found.left_out[1] == f"limits, a: left out, {UP}"


def test_vllm_keeps_to_the_time_too(timed, clock, monkeypatch):
    class Engine:
        def __init__(self, **given):
            pass

        def generate(self, prompts, sampling, use_tqdm):
            clock.now += 7

    monkeypatch.setitem(sys.modules, "vllm", types.SimpleNamespace(LLM=Engine, SamplingParams=lambda **given: given))
    found = measured([1, 2, 3], 40, minutes=1, backend="vllm")
    assert [len(cell.runs) for cell in found.cells] == [6, 6, 0] and found.cells[2].failed == f"left out, {UP}"


@pytest.mark.parametrize("minutes", [0, -1, float("nan"), float("inf")])
def test_a_time_is_a_finite_number_above_zero(minutes):
    with pytest.raises(RecipeError, match="--minutes: input should be"):
        validated(BenchSettings, {"minutes": minutes})


def test_others_are_told_from_ourselves(monkeypatch):
    """Of two cores and a second each, others had 1.2 seconds and we 0.5."""
    core = types.SimpleNamespace
    moments = iter([(0.0, 0.0), (0.15, 0.5)])  # of idling on each core, of our own
    load = part("load")

    class Times(tuple):
        idle = property(lambda self: self[1])

    def cpu_times(percpu):
        at.idle, at.ours = next(moments)
        return [Times((1.0 - at.idle if at.ours else 0.0, at.idle))] * 2 + [Times((50.0 * at.ours, 0.0))]

    at = core()
    monkeypatch.setattr(load, "_cores", lambda: [0, 1])
    monkeypatch.setattr(load.psutil, "cpu_times", cpu_times)
    process = core(cpu_times=lambda: core(user=at.ours, system=0.0))
    monkeypatch.setattr(load.psutil, "Process", lambda: process)
    assert busy_cores(0) == (1.2, 2)


def test_the_real_machine_can_be_asked():
    busy, cores = busy_cores(0.05)
    assert 0 <= busy <= cores + 0.5 and cores >= 1


def test_a_loaded_machine_is_told_at_once_and_kept(timed, monkeypatch):
    monkeypatch.setattr(part("benching"), "busy_cores", lambda: (1.42, 2))
    said: list[str] = []
    work = WorkloadSettings(batches=[1], prompt_tokens=[4], output_tokens=[4], runs=2, warmup=0)
    found = bench([ModelSettings()], BenchSettings(workloads=[work]), ["a"], say=said.append)
    note = "other processes kept 1.4 of 2 cores busy before the start, so times are longer and noisier"
    assert said[0] == f"warning: {note}" and bench_notes(found) == [note]
    assert (found.busy_cores, found.cores) == (1.42, 2)
    assert load_note(0.2, 2) is None and load_note(None, 0) is None and load_note(0.3, 2)


def of_a_busy_machine() -> Benchmark:
    found = benchmark()
    for cell in found.cells[:2]:
        cell.rounds = 10
    found.cells[3].runs, found.cells[3].failed = [], "left out, the time was up (--minutes 3)"
    return found.model_copy(update={"busy_cores": 1.4, "cores": 2, "minutes": 3, "left_out": ["limits: left out"]})


def pages(found: Benchmark, folder) -> tuple[str, str]:
    known = Evidence("t", benchmark=found)
    path, markdown = write_page(folder / "r.html", known), write_markdown(folder / "r.md", known)
    words = " ".join("".join(Page(path.read_text(encoding="utf-8")).words).split()).replace("\u00a0", " ")
    return words, markdown.read_text(encoding="utf-8").replace("\\", "")


def test_pages_and_console_say_what_was_left_out(tmp_path, capsys):
    words, markdown = pages(of_a_busy_machine(), tmp_path)
    console.show_benchmark(of_a_busy_machine())
    for text in (words, markdown, capsys.readouterr().out):
        assert "other processes kept 1.4 of 2 cores busy before the start" in text
        assert "dense, cut cut short after 6 of 10 rounds, the time was up (--minutes 3)" in text
        assert "cut, batch 8, 64 + 32" in text.replace("cut: batch", "cut, batch")
        assert "left out, the time was up (--minutes 3)" in text and "limits: left out" in text


def test_a_bench_without_any_time_has_a_page(tmp_path):
    found = of_a_busy_machine().model_copy(update={"breakdowns": [], "limits": []})
    for cell in found.cells:
        cell.runs, cell.failed = [], "left out, the time was up (--minutes 3)"
    words, markdown = pages(found, tmp_path)
    for text in (words, markdown):
        assert "No case was measured." in text and "dense, batch 1, 64 + 32 tokens: left out, the time was up" in text


def test_old_files_have_none_of_this():
    old = benchmark().model_dump()
    for name in ("busy_cores", "cores", "minutes", "left_out"):
        del old[name]
    for cell in old["cells"]:
        del cell["rounds"]
    assert bench_notes(Benchmark.model_validate(old)) == []


def test_the_command_takes_minutes(tmp_path, timed):
    folder = tmp_path / "shorter"
    cut(ModelSettings(), [4, 5], CutSettings(verify=False), folder)
    options = ["--batches", "1,2", "--output-tokens", "4", "--runs", "90", "--warmup", "0", "--minutes", "1"]
    result = CliRunner().invoke(app, ["bench", "embedded", str(folder), *options, "-o", str(tmp_path / "b.json")])
    assert result.exit_code == 0, result.output
    assert "note: batch 1, 64 + 4 tokens: embedded, shorter cut short after 10 of 90 rounds" in result.stdout
    assert Benchmark.load(tmp_path / "b.json").minutes == 1
