"""What is heard of the harness while it works: truncations, C code, children; no noise, no bars in files."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tqdm import tqdm

from shortlm.embedded import tasks_path
from shortlm.evaluate.harness import run_tasks
from shortlm.evaluate.harness_log import SHOWN, SILENT, only_what_matters
from shortlm.model import open_model
from shortlm.recipe import EvalSettings, ModelSettings


@pytest.fixture(scope="module")
def opened():
    return open_model(ModelSettings())


def long_questions(folder: Path, count: int) -> EvalSettings:
    """A task whose questions are longer than the embedded model's context of 512."""
    rows = [{"prompt": "a b " * (300 + i), "choices": ["b", "c"], "answer": 0} for i in range(count)]
    (folder / "long.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    task = yaml.safe_load((tasks_path() / "facts.yaml").read_text(encoding="utf-8").split("\n", 1)[1])
    task |= {"task": "long", "dataset_path": "json", "metric_list": [{"metric": "acc"}]}
    task["dataset_kwargs"] = {"data_files": {"test": str(folder / "long.jsonl")}}
    (folder / "long.yaml").write_text(yaml.safe_dump(task), encoding="utf-8")
    return EvalSettings(tasks=["long"], task_path=[str(folder)], task_batch=1)


def test_a_truncation_is_told_once_and_counted(opened, tmp_path, capfd):
    run_tasks(opened, long_questions(tmp_path, 3))
    first, rest = capfd.readouterr().err.splitlines()
    assert first.startswith("shortlm: lm_eval: Combined length of context (60") and "from the left." in first
    assert rest.startswith("shortlm: lm_eval: 2 more of: Combined length of context (#)")


def test_a_usual_evaluation_says_nothing(opened, capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # no git repository
    found = run_tasks(opened, EvalSettings(tasks=["village", "village_answers"], limit=2))
    assert len(found.tasks) == 6 and capfd.readouterr().err == ""


def test_c_code_and_children_reach_standard_error(capfd):
    with only_what_matters():
        os.write(2, b"device-side assert triggered\n")
        child = [sys.executable, "-c", "import os; os.write(2, b'from a child\\n')"]
        subprocess.run(child, check=True)
        print("from a task's own code", file=sys.stderr)
    assert capfd.readouterr().err.splitlines() == [
        "device-side assert triggered", "from a child", "from a task's own code"
    ]  # fmt: skip


def test_messages_are_one_line_each_without_noise(capfd):
    log = logging.getLogger("datasets.builder")
    with only_what_matters():
        log.info("a detail")
        log.warning("Using the latest\n  cached version")
        log.warning("Using the latest cached version")
        logging.getLogger("lm_eval.models").error("word " * 200)
        logging.getLogger("lm_eval").warning("t: Custom kwargs can be passed to `--metadata` in console")
        logging.getLogger("huggingface_hub").error("try 3 of 5")
    lines = capfd.readouterr().err.splitlines()
    assert lines[0] == "shortlm: datasets: Using the latest cached version"
    assert lines[1].startswith("shortlm: lm_eval: word word") and len(lines[1]) < 430 and lines[1].endswith("…")
    assert lines[2:] == ["shortlm: datasets: 1 more of: Using the latest cached version"]


def test_loggers_are_as_they_were(capfd):
    loggers = [logging.getLogger(name) for name in (*SHOWN, *SILENT)]
    before, start = [(x.level, list(x.handlers), x.propagate) for x in loggers], tqdm.__init__
    with pytest.raises(ValueError, match="x"), only_what_matters():
        logging.getLogger("lm_eval").warning("7 of 9")
        logging.getLogger("lm_eval").warning("8 of 9")
        raise ValueError("x")
    assert [(x.level, list(x.handlers), x.propagate) for x in loggers] == before and tqdm.__init__ is start
    assert capfd.readouterr().err.splitlines()[-1] == "shortlm: lm_eval: 1 more of: # of #"


@pytest.mark.parametrize("terminal", [True, False])
def test_bars_are_for_terminals(terminal, monkeypatch, capfd):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    with only_what_matters():
        assert list(tqdm(range(3), desc="questions")) == [0, 1, 2]
    assert ("questions" in capfd.readouterr().err) is terminal


def test_a_closed_standard_error_costs_nothing(monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    with only_what_matters():
        logging.getLogger("lm_eval").warning("unheard")
        assert list(tqdm(range(2))) == [0, 1]
