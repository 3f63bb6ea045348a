"""The embedded model: a small Llama really trained on a made-up village, for work without network or GPU.

`model_path()` is a plain Hugging Face checkpoint folder, `documents(seed)` the endless corpus it was trained on,
`tasks` its multiple-choice questions and `train` the script that made it.
"""

from __future__ import annotations

from pathlib import Path

from shortlm.embedded.corpus import documents

__all__ = ["documents", "model_path", "tasks_path"]


def model_path() -> Path:
    """Folder of the committed checkpoint: weights, configuration, tokenizer and `training.json`."""
    return Path(__file__).parent / "tiny"


def tasks_path() -> Path:
    """Folder of its tasks in the form of lm-evaluation-harness."""
    return Path(__file__).parent / "harness"
