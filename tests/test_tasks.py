"""Tasks: the stock harness on local files, against the harness's own loop and against a plain one."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from shortlm.cli import app
from shortlm.embedded import tasks_path
from shortlm.embedded.harness_files import files
from shortlm.embedded.tasks import accuracy, questions
from shortlm.errors import ModelError, TextError
from shortlm.evaluate import evaluate
from shortlm.evaluate.harness import run_tasks
from shortlm.evaluate.harness_results import means
from shortlm.evaluate.originals import records
from shortlm.evaluate.task_names import Wanted, wanted
from shortlm.model import open_model
from shortlm.recipe import EvalSettings, ModelSettings
from shortlm.recipe.eval_settings import STOCK_TASKS


@pytest.fixture(scope="module")
def opened():
    return open_model(ModelSettings())


@pytest.fixture(scope="module")
def found(opened):
    return run_tasks(opened, EvalSettings(tasks=["village", "village_answers"], limit=40))


def test_the_committed_task_files_are_those_that_are_made():
    for name, text in files().items():
        assert (tasks_path() / name).read_text(encoding="utf-8") == text, name


def test_accuracies_are_those_of_a_plain_loop(opened, found):
    for task in ("order", "possession"):
        asked = questions(task, 40, 2_000_003)
        result = next(t for t in found.tasks if t.task == f"village_{task}")
        assert result.value == accuracy(opened.model, opened.tokenizer, asked)
        assert (
            result.metric == "acc"
            and result.questions == 40 < result.available == 200
            and len(result.per_question) == 40
        )
        p = result.value
        assert result.stderr == pytest.approx(math.sqrt(p * (1 - p) / 39))


def test_a_group_is_the_mean_of_its_tasks(found):
    (mean,) = found.means
    inner = found.tasks[:5]
    assert mean.name == "village" and mean.tasks == [t.task for t in inner]
    assert mean.value == pytest.approx(sum(t.value for t in inner) / 5)
    assert mean.stderr == pytest.approx(math.sqrt(sum(t.stderr**2 for t in inner)) / 5)


def test_written_answers_are_compared_with_the_right_ones(opened, found):
    answers = next(t for t in found.tasks if t.generates)
    assert answers.key == "village_answers, exact_match"
    asked, right = questions("possession", 40, 2_000_003), []
    for question in asked:
        given = opened.tokenizer(question.prompt, return_tensors="pt")
        out = opened.model.generate(**given, max_new_tokens=8, do_sample=False)
        text = opened.tokenizer.decode(out[0, given.input_ids.shape[1] :], skip_special_tokens=True)
        right.append(float(re.split(r"[.\n]", text)[0].strip() == question.choices[question.answer].strip()))
    assert answers.per_question == right


def test_all_questions_give_the_figures_of_the_training_record(opened):
    """The harness, and the plain loop that measured the model when it was made, agree to the last digit."""
    made = json.loads((Path(opened.checkpoint.folder) / "training.json").read_bytes())["tasks"]
    result = run_tasks(opened, EvalSettings(tasks=["village_order", "village_agreement"])).tasks
    assert {t.task.removeprefix("village_"): round(t.value, 4) for t in result} == {
        name: made[name]["accuracy"] for name in ("order", "agreement")
    }


def test_batches_make_no_difference(opened):
    one, many = (
        run_tasks(opened, EvalSettings(tasks=["village_possession"], limit=12, task_batch=size)).tasks[0]
        for size in (1, 12)
    )
    assert one == many and one.questions_sha256


def test_tasks_of_ones_own(opened, tmp_path):
    rows = [{"prompt": "Two and two are", "choices": ["four", "five"], "answer": 0}] * 3
    (tmp_path / "mine.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    config = {
        "task": "mine", "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(tmp_path / "mine.jsonl")}},
        "output_type": "multiple_choice", "test_split": "test", "doc_to_text": "{{prompt}}", "doc_to_target": "answer",
        "doc_to_choice": "choices", "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
    }  # fmt: skip
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    settings = EvalSettings(tasks=["mine:acc_norm"], task_path=[str(tmp_path)])
    (result,) = run_tasks(opened, settings).tasks
    assert result.metric == "acc_norm" and set(result.metrics) == {"acc", "acc_norm"} and result.questions == 3


def test_sets_are_expanded_once_and_keep_their_metrics():
    asked = wanted(["commonsense-7", "piqa", "gsm8k:exact_match", "none"])
    assert asked.names[:7] == [
        "boolq", "piqa", "hellaswag", "winogrande", "arc_easy", "arc_challenge", "openbookqa"
    ]  # fmt: skip
    assert asked.names[7:] == ["gsm8k"]
    norm = {task for task, metric in asked.metrics.items() if metric == "acc_norm"}
    assert norm == {"hellaswag", "arc_challenge", "openbookqa"} and asked.metrics["gsm8k"] == "exact_match"
    assert asked.sets == {"commonsense-7": asked.names[:7]}


def test_the_default_has_a_task_that_writes_if_the_model_can():
    assert EvalSettings(tasks=["default"]).for_model("x/y").tasks == STOCK_TASKS
    assert wanted(STOCK_TASKS).names[-1] == "squad_completion"
    assert wanted(STOCK_TASKS, can_write=False).names[-1] == "openbookqa"
    assert EvalSettings(tasks=["default"]).for_model("embedded").tasks == ["village", "village_answers?"]


def harness_group(found, sizes: tuple[int, int], values: tuple[float, float], metric: str = "acc"):
    pairs = zip(found.tasks[:2], sizes, values, strict=True)
    tasks = [t.model_copy(update={"questions": n, "value": v, "metric": metric}) for t, n, v in pairs]
    value = sum(n * v for n, v in zip(sizes, values, strict=True)) / sum(sizes)
    key = metric if "," in metric else f"{metric},none"
    results = {
        "groups": {"inner": {}, "outer": {}}, "results": {"inner": {key: value}, "outer": {key: value}},
        "group_subtasks": {"outer": ["inner"], "inner": [t.task for t in tasks]},
    }  # fmt: skip
    return means(results, tasks, Wanted(["outer"], {}, {}))


@pytest.mark.parametrize("metric", ["acc", "exact_match,get-answer"])
def test_a_group_weighted_by_size_is_recognised(found, metric):
    outer, inner = harness_group(found, (10, 30), (0.5, 0.9), metric)
    assert (outer.name, inner.name) == ("outer", "inner")  # the one that was asked stands first
    assert outer.weights == [0.25, 0.75] and outer.value == pytest.approx(0.8) and len(outer.tasks) == 2


def test_a_tag_is_not_complete_without_its_stock_members(tmp_path):
    from shortlm.evaluate.harness import _complete

    config = yaml.safe_load((tasks_path() / "facts.yaml").read_text(encoding="utf-8").split("\n", 1)[1])
    (tmp_path / "t.yaml").write_text(yaml.safe_dump(config | {"tag": "ai2_arc"}), encoding="utf-8")
    from lm_eval.tasks import TaskManager

    index = TaskManager(include_path=str(tmp_path), include_defaults=False).task_index
    assert _complete(index, "village_facts") and not _complete(index, "ai2_arc")


def call(*args: object, code: int = 2) -> str:
    result = CliRunner().invoke(app, [str(a) for a in args], prog_name="shortlm")
    assert result.exit_code == code, result.output
    return " ".join((result.stderr if code else result.stdout).split())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--tasks", "village:f1", "--limit", 1], "task 'village_facts' has no metric 'f1'; it has: acc"),
        (["--tasks", "village", "--task-path", "/none"], "--task-path /none: no such folder"),
        (["--local", "x=y"], "--local x: no text of that name is measured (texts: embedded), and no task is asked"),
        (["--text", "none"], "nothing to measure: give --text, --tasks or --prompt"),
        (["--tasks", "village", "--shots", 2], "--shots 2: task 'village_facts' is always asked without examples"),
        (["--length", 600], "--length 600: is more than the model's context of 512; give a smaller one"),
        (["--preset", "gptq"], "--length 2048: is more than the model's context of 512"),
        (["--local", "arc"], "--local: 'arc' is not NAME=FILE"),
        (["--prompt", "a", "--new-tokens", 600], "more than its context of 512; give a smaller"),
    ],
)  # fmt: skip
def test_mistakes_are_told_in_one_line(options, message):
    assert message in call("eval", "embedded", *options)


def test_unknown_tasks_and_data_that_cannot_be_had():
    """One test: the harness's index of all stock tasks takes seconds, and is kept by the process."""
    assert "task 'arc_esy' is unknown; did you mean arc_easy" in call("eval", "embedded", "--tasks", "arc_esy")
    line = call("eval", "embedded", "--tasks", "openbookqa")
    assert "task 'openbookqa': its data can't be had" in line and "--local openbookqa=FILE.jsonl" in line


def test_local_files_are_checked_before_anything_is_fetched(tmp_path):
    assert "--local arc_easy=no.jsonl: no such file" in call(
        "eval", "embedded", "--tasks", "arc_easy", "--local", "arc_easy=no.jsonl"
    )
    (tmp_path / "bad.jsonl").write_text('{"foo": 1}', encoding="utf-8")
    bad = f"={tmp_path / 'bad.jsonl'}"
    line = call("eval", "embedded", "--tasks", "arc_easy", "--local", f"boolq{bad}")
    assert "--local boolq: no such task is asked; asked are: arc_easy" in line
    assert "did you mean arc_easy?" in call("eval", "embedded", "--tasks", "arc_esy", "--local", f"arc_esy{bad}")
    assert "bad.jsonl is not of a form that it can read" in call(
        "eval", "embedded", "--tasks", "arc_easy", "--local", f"arc_easy{bad}"
    )


def test_a_question_that_is_too_long_is_explained(opened, tmp_path):
    long = {"prompt": "a", "choices": ["b " * 600, "c"], "answer": 0}
    (tmp_path / "long.jsonl").write_text(json.dumps(long), encoding="utf-8")
    source = yaml.safe_load((tasks_path() / "facts.yaml").read_text(encoding="utf-8").split("\n", 1)[1])
    source |= {"task": "long", "dataset_path": "json"}
    source["dataset_kwargs"] = {"data_files": {"test": str(tmp_path / "long.jsonl")}}
    (tmp_path / "long.yaml").write_text(yaml.safe_dump(source), encoding="utf-8")
    with pytest.raises(TextError, match=r"gave up on long .*max_length.*longer than the model's context of 512"):
        run_tasks(opened, EvalSettings(tasks=["long"], task_path=[str(tmp_path)]))


def test_a_model_without_tokenizer_or_without_generation_is_refused(opened, monkeypatch):
    from dataclasses import replace

    with pytest.raises(ModelError, match="tasks need a tokenizer"):
        run_tasks(replace(opened, tokenizer=None), EvalSettings(tasks=["village"]))
    monkeypatch.setattr(opened.model, "can_generate", lambda: False)
    with pytest.raises(ModelError, match="can't generate text, and task 'village_answers' needs that"):
        run_tasks(opened, EvalSettings(tasks=["village_answers"], limit=2))
    assert run_tasks(opened, EvalSettings(tasks=["village_answers?"], limit=2)).tasks == []


ORIGINALS = {
    "arc_easy": ("a.jsonl", [{"id": "1", "question": {"stem": "Why?", "choices": [
        {"text": "so", "label": "A"}, {"text": "not", "label": "B"}]}, "answerKey": "B"}],
        {"question": "Why?", "choices": {"text": ["so", "not"], "label": ["A", "B"]}, "answerKey": "B"}),
    "boolq": ("b.jsonl", [{"question": "is it", "passage": "It is.", "idx": 0, "label": "false"}],
        {"question": "is it", "passage": "It is.", "idx": 0, "label": 0}),
    "winogrande": ("w.jsonl", [{"context_options": ["Ann saw Marta so Marta", "Ann saw Marta so Mary"],
        "continuation": "left.", "gold": 1}],
        {"sentence": "Ann saw Marta so _ left.", "option1": "Marta", "option2": "Mary", "answer": "2"}),
    "hellaswag": ("h.json", [{"ctx_a": "x", "label": "1"}], {"ctx_a": "x", "label": "1"}),
}  # fmt: skip


@pytest.mark.parametrize("task", ORIGINALS)
def test_original_forms_become_those_of_the_hub(task, tmp_path):
    name, rows, expected = ORIGINALS[task]
    text = json.dumps(rows) if name.endswith(".json") else "\n".join(map(json.dumps, rows))
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert records(task, tmp_path / name) == [expected]


def test_tables_and_separate_answers(tmp_path):
    (tmp_path / "t.tsv").write_text(
        "ID\tQuestion Stem\tChoices\tComplete Question\tAnswer Key\n"
        '7\tA "cat" is\t(A) big (B) a pet (C) red (D) old\tx\tB\n',
        encoding="utf-8",
    )
    (row,) = records("openbookqa", tmp_path / "t.tsv")
    assert row == {
        "question_stem": 'A "cat" is', "answerKey": "B",
        "choices": {"text": ["big", "a pet", "red", "old"], "label": ["A", "B", "C", "D"]},
    }  # fmt: skip
    goal = {"id": "1", "goal": "g", "sol1": "a", "sol2": "b"}
    (tmp_path / "dev.jsonl").write_text(json.dumps(goal), encoding="utf-8")
    with pytest.raises(TextError, match=r"its answers are missing; put dev-labels\.lst beside it"):
        records("piqa", tmp_path / "dev.jsonl")
    (tmp_path / "dev-labels.lst").write_text("1\n", encoding="utf-8")
    assert records("piqa", tmp_path / "dev.jsonl") == [{"goal": "g", "sol1": "a", "sol2": "b", "label": 1}]
    (tmp_path / "dev-labels.lst").write_text("1\n0\n", encoding="utf-8")
    with pytest.raises(TextError, match="has 2 answers for 1 questions"):
        records("piqa", tmp_path / "dev.jsonl")


@pytest.mark.parametrize(
    ("text", "message"),
    [("[1]", "a list of objects is needed"), ("{", "line 1: is not valid JSON"), ("", "holds no questions"),
     ('{"question": 1, "passage": "p", "label": "maybe"}', "lacks a part (an answer is 'maybe'")],
)  # fmt: skip
def test_damaged_files_of_questions(text, message, tmp_path):
    (tmp_path / "q.jsonl").write_text(text, encoding="utf-8")
    with pytest.raises(TextError) as error:
        records("boolq", tmp_path / "q.jsonl")
    assert message in str(error.value)


def test_real_questions_from_local_files(shared, tmp_path):
    """The published set and a task beside it, on the original files; HellaSwag, which is not there, is made up."""
    places = {
        "boolq": "boolq/val.jsonl", "piqa": "piqa/dev.jsonl", "winogrande": "winogrande/winogrande.jsonl",
        "arc_easy": "arc/ARC-Easy-Test.jsonl", "arc_challenge": "arc/ARC-Challenge-Test.jsonl",
        "openbookqa": "openbookqa/test.tsv", "copa": "copa/val.jsonl",
    }  # fmt: skip
    local = [f"{task}={shared / 'data/tasks' / place}" for task, place in places.items()]
    made_up = {"activity_label": "Play", "ctx_a": "Tom has a ball.", "ctx_b": "he", "label": "1"}
    made_up["endings"] = ["eats it.", "kicks it.", "reads it.", "is it."]
    (tmp_path / "h.jsonl").write_text("\n".join([json.dumps(made_up)] * 6), encoding="utf-8")
    model = ModelSettings(model=str(shared / "data/models/stories260K"))
    local.append(f"hellaswag={tmp_path / 'h.jsonl'}")
    result = evaluate(model, EvalSettings(tasks=["commonsense-7", "copa"], local=local, limit=6, samples=0))
    published = {"boolq": "acc", "piqa": "acc", "hellaswag": "acc_norm", "winogrande": "acc", "arc_easy": "acc",
                 "arc_challenge": "acc_norm", "openbookqa": "acc_norm"}  # fmt: skip
    assert {t.task: t.metric for t in result.tasks} == published | {"copa": "acc"}
    assert all(t.questions == 6 and t.dataset == "local file" for t in result.tasks)
    (mean,) = result.task_means
    assert mean.name == "commonsense-7" and mean.tasks == list(published)
    assert mean.value == pytest.approx(sum(t.value for t in result.tasks[:7]) / 7)


def harness_command(model: Path, tasks: str, folder: Path, out: Path, *more: str) -> dict:
    """What lm-evaluation-harness's own command writes for the same model and task files."""
    command = [sys.executable, "-m", "lm_eval", "run", "--model", "hf", "--model_args", f"pretrained={model}"]
    command += ["--tasks", tasks, "--include_path", str(folder), "--output_path", str(out), "--device", "cpu", *more]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(next(out.rglob("results_*.json")).read_bytes())["results"]


@pytest.mark.slow
def test_the_harness_own_command_gives_the_same(opened, tmp_path):
    theirs = harness_command(
        opened.checkpoint.folder, "village,village_answers", tasks_path(), tmp_path, "--batch_size", "16"
    )
    ours = run_tasks(opened, EvalSettings(tasks=["village", "village_answers"], task_batch=16))
    for task in ours.tasks:
        assert theirs[task.task][f"{task.metric},none"] == task.value
        assert theirs[task.task][f"{task.metric}_stderr,none"] == task.stderr
    assert theirs["village"]["acc,none"] == ours.means[0].value


@pytest.mark.slow
def test_the_harness_own_command_gives_the_same_on_real_questions(shared, tmp_path):
    from shortlm.evaluate.harness import _stock
    from shortlm.evaluate.local_tasks import write_local_tasks

    data, model = shared / "data/tasks", shared / "data/models/stories260K"
    files = {
        "arc_easy": str(data / "arc/ARC-Easy-Test.jsonl"), "boolq": str(data / "boolq/val.jsonl"),
        "winogrande": str(data / "winogrande/winogrande.jsonl"), "openbookqa": str(data / "openbookqa/test.tsv"),
    }  # fmt: skip
    (tmp_path / "tasks").mkdir()
    write_local_tasks(files, _stock().task_index, tmp_path / "tasks")
    more = ("--batch_size", "8", "--limit", "200")
    theirs = harness_command(model, ",".join(files), tmp_path / "tasks", tmp_path / "out", *more)
    local = [f"{task}={file}" for task, file in files.items()]
    settings = EvalSettings(tasks=list(files), local=local, limit=200, task_batch=8, samples=0)
    for task in evaluate(ModelSettings(model=str(model)), settings).tasks:
        assert {f"{name},none": value for name, value in task.metrics.items()} == {
            name: value for name, value in theirs[task.task].items() if name in ("acc,none", "acc_norm,none")
        }
