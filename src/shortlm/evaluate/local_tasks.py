"""Harness tasks that read a local file: a YAML that includes the stock one and replaces its data set.

The same can be written by hand (docs/evaluation.md); here it is done in a folder that lives as long as the evaluation.
"""

from __future__ import annotations

import json
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from shortlm.errors import TextError
from shortlm.evaluate.originals import records
from shortlm.paths import user_path


def write_local_tasks(files: dict[str, str], stock: dict[str, Any], folder: Path) -> None:
    """A YAML and a .jsonl in `folder` for each task of `files`; `stock` is the harness's index of tasks.

    Raises TextError for a task that is unknown or takes its data from code.
    """
    for task, name in files.items():
        entry = stock.get(task)
        if entry is None or entry.yaml_path is None or "task" not in entry.cfg:
            near = get_close_matches(task, stock, n=1, cutoff=0.6)
            hint = f"; did you mean {near[0]}?" if near else "; only stock tasks can read another file"
            raise TextError(f"--local {task}={name}: the harness has no task '{task}'{hint}")
        if "class" in entry.cfg or "custom_dataset" in entry.cfg:
            raise TextError(f"--local {task}={name}: this task makes its data by its own code; no file can replace it")
        file = folder / f"{task}.jsonl"
        lines = [json.dumps(record, ensure_ascii=False) for record in records(task, user_path(name))]
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")
        split = entry.cfg.get("test_split") or entry.cfg.get("validation_split") or "test"
        config = _config(task, entry.yaml_path, file, split, bool(entry.cfg.get("test_split")))
        (folder / f"{task}.yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")


def _config(task: str, stock: Path, file: Path, split: str, tested: bool) -> dict[str, Any]:
    """Examples before a question come from the file too, since the training split is not here."""
    kwargs = {"data_files": {split: str(file)}, "cache_dir": str(file.parent / "cache")}
    splits = {
        "training_split": None,
        "validation_split": None if tested else split,
        "test_split": split if tested else None,
    }
    return {
        "include": str(stock), "task": task, "tag": None,  # a tag of this name would lose its other members
        "dataset_path": "json", "dataset_name": None, "dataset_kwargs": kwargs,
        **splits, "fewshot_split": None,
    }  # fmt: skip
