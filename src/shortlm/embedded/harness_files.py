"""Writes the village's tasks as lm-evaluation-harness reads them: a YAML and a .jsonl each, and a group for all.

    python -m shortlm.embedded.harness_files

The files are committed; a test holds them to what this writes.
"""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from shortlm.embedded import tasks_path
from shortlm.embedded.tasks import TASKS, Question, questions

QUESTIONS = 200
SEED = 2_000_003  # that of the accuracies in tiny/training.json
METRIC = {"metric": "acc", "aggregation": "mean", "higher_is_better": True}
LOADED = "custom_dataset: !function loading.questions\n"  # a tag that safe_dump can't write


def files() -> dict[str, str]:
    """Names and contents."""
    found = {f"{task}.jsonl": _lines(questions(task, QUESTIONS, SEED)) for task in TASKS}
    found |= {f"{task}.yaml": LOADED + _dumped(_choosing(task)) for task in TASKS}
    found["answers.yaml"] = LOADED + _dumped(_writing())
    group = {"group": "village", "task": [f"village_{task}" for task in TASKS]}
    mean = [{"metric": "acc", "aggregation": "mean", "weight_by_size": False}]
    found["village.yaml"] = _dumped(group | {"aggregate_metric_list": mean, "metadata": {"version": 1.0}})
    return found


def _lines(asked: list[Question]) -> str:
    rows = ({"prompt": q.prompt, "choices": [c.strip() for c in q.choices], "answer": q.answer} for q in asked)
    return "".join(json.dumps(row) + "\n" for row in rows)


def _choosing(task: str) -> dict:
    return _common(f"village_{task}", f"{task}.jsonl") | {
        "output_type": "multiple_choice", "doc_to_target": "answer", "doc_to_choice": "choices",
        "metric_list": [METRIC],
    }  # fmt: skip


def _writing() -> dict:
    """The possession questions again; the model writes the name."""
    generation = {"until": [".", "\n"], "do_sample": False, "max_gen_toks": 8}
    return _common("village_answers", "possession.jsonl") | {
        "output_type": "generate_until", "doc_to_target": "{{choices[answer]}}", "generation_kwargs": generation,
        "filter_list": [{"name": "none", "filter": [{"function": "remove_whitespace"}, {"function": "take_first"}]}],
        "metric_list": [METRIC | {"metric": "exact_match"}],
    }  # fmt: skip


def _common(name: str, file: str) -> dict:
    return {
        "task": name, "dataset_kwargs": {"file": file}, "test_split": "test", "doc_to_text": "{{prompt}}",
        "target_delimiter": " ", "num_fewshot": 0, "metadata": {"version": 1.0},
    }  # fmt: skip


def _dumped(config: dict) -> str:
    return yaml.safe_dump(config, sort_keys=False)


def write(folder: Path) -> None:
    """Write all files."""
    for name, text in files().items():
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write(tasks_path())
