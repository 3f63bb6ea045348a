"""Two gloo processes: the result of one, told once; and what happens when one of them dies."""

from __future__ import annotations

import signal

import pytest
from processes import ended, run, started

from shortlm.artifacts import BlockScores, CutPlan
from shortlm.sweep import Ranks

CRITERIA = "ppl,taylor,bi,angular,magnitude,first_order,mse,taylor:batches=2"
COMMAND = ["score", "embedded", "--sequences", "7", "--length", "32", "--criteria", CRITERIA, "--resamples", "0"]


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> BlockScores:
    out = tmp_path_factory.mktemp("alone") / "scores.json"
    assert [code for code, _, _ in ended(started(run(*COMMAND, "--out", out), 1))] == [0]
    return BlockScores.load(out)


@pytest.mark.parametrize("stream", ["off", "on"])
def test_two_processes_agree_with_one(alone, tmp_path, stream):
    out = tmp_path / "scores.json"
    first, second = ended(started(run(*COMMAND, "--stream", stream, "--out", out)))
    assert (first[0], second[0]) == (0, 0), first[2] + second[2]
    assert "score and rank of each block" in first[1] and second[1] == ""
    both = BlockScores.load(out)
    assert both.processes == 2 and both.data == alone.data
    assert both.base_perplexity == pytest.approx(alone.base_perplexity, rel=1e-6)
    for spec, expected in alone.criteria.items():
        assert both.criteria[spec].scores == pytest.approx(expected.scores, rel=1e-6), spec
        for mine, theirs in zip(both.criteria[spec].per_sequence or [], expected.per_sequence or [], strict=True):
            assert mine == pytest.approx(theirs, rel=1e-4, abs=1e-7), spec


def test_a_race_of_two_processes(tmp_path):
    codes = []
    for size in (1, 2):
        args = ["score", "embedded", "--sequences", 16, "--length", 32, "--criteria", "ppl", "--select", 3]
        codes += [code for code, _, _ in ended(started(run(*args, "--out", tmp_path / f"{size}.json"), size))]
    assert codes == [0, 0, 0]
    one, two = (BlockScores.load(tmp_path / f"{size}.json").criteria["ppl"].race for size in (1, 2))
    assert one.selected == two.selected


@pytest.mark.parametrize("method", ["race", "greedy", "evolutionary:generations=2,few=64"])
def test_a_search_of_two_processes(tmp_path, method):
    plans = []
    for size in (1, 2):
        args = ["choose", "-m", "embedded", "--method", method, "--blocks", 3, "--sequences", 16, "--length", 32]
        done = ended(started(run(*args, "--out", tmp_path / f"{size}.json"), size))
        assert [code for code, _, _ in done] == [0] * size, done
        assert all(not output for _, output, _ in done[1:])
        plans.append(CutPlan.load(tmp_path / f"{size}.json"))
    one, two = plans
    assert one.removed == two.removed
    assert [tried.units for tried in two.search.tried] == [tried.units for tried in one.search.tried]


def test_a_rank_that_dies_ends_the_job_with_a_message_and_no_output(tmp_path):
    die = "import os, signal\nfrom importlib import import_module\nscoring = import_module('shortlm.score.scoring')\n"
    die += (
        f"if os.environ['RANK'] == '1': scoring.sweep = lambda *a, **k: os.kill(os.getpid(), {int(signal.SIGKILL)})\n"
    )
    out = tmp_path / "scores.json"
    first, second = ended(started(die + run(*COMMAND, "--out", out)))
    assert second[0] == -signal.SIGKILL and first[0] == 2
    assert first[2].startswith("shortlm: another process of this job has ended or can't be reached ("), first[2]
    assert first[2].strip().endswith("nothing was written; its own message tells why")
    assert not out.exists()


def test_too_few_sequences_for_the_processes(tmp_path):
    args = [
        "score",
        "embedded",
        "--sequences",
        "1",
        "--length",
        "32",
        "--criteria",
        "bi",
        "--out",
        tmp_path / "scores.json",
    ]
    for code, _, error in ended(started(run(*args))):
        assert code == 2
        assert "1 sequences for 2 processes; each needs one: give more --sequences, or fewer processes" in error


def test_a_run_shares_the_scoring_and_is_written_once(tmp_path):
    args = ["run", "--sequences", 4, "--length", 32, "--criteria", "bi", "--blocks", 2, "--protect", "ends"]
    args += ["--held-out", 4, "--new-tokens", 4, "--bench", "none", "--out", tmp_path / "run"]
    first, second = ended(started(run(*args)))
    assert (first[0], second[0]) == (0, 0), first[2] + second[2]
    assert "report.html" in first[1] and second[1] == ""
    assert BlockScores.load(tmp_path / "run" / "scores.json").processes == 2
    assert (tmp_path / "run" / "report.html").exists()


def test_what_is_not_shared_is_done_by_the_first_process_alone(tmp_path):
    first, second = ended(started(run("cut", "embedded", "--remove", 5, "--no-verify", "--out", tmp_path / "cut")))
    assert (first[0], second[0]) == (0, 0)
    assert "blocks" in first[1] and second[1] == ""


def test_shares_cover_everything_once():
    for size in (1, 2, 3, 8):
        parts = [list(range(10))[Ranks(rank, size).share(10)] for rank in range(size)]
        assert [i for part in parts for i in part] == list(range(10))
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
