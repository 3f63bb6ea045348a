"""Keys: hashes of settings, inputs and versions, by which work that is done already is known."""

from __future__ import annotations

import hashlib
import json
import os
from itertools import islice
from pathlib import Path
from typing import Any

from shortlm.artifacts import installed_version
from shortlm.errors import ShortLMError
from shortlm.paths import user_path
from shortlm.recipe import EvalSettings, HealSettings, ModelSettings, Settings, TextSettings, piqa_labels

MOST_FILES = 10_000
COUNTED = ("shortlm", "torch", "transformers")  # what computes: another version may give another result


def key_of(*parts: Any) -> str:
    """The hash of settings and plain values."""
    plain = [part.model_dump(mode="json") if isinstance(part, Settings) else part for part in parts]
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:16]


def counted_versions() -> dict[str, str]:
    """Of the packages that count."""
    return {name: version for name in COUNTED if (version := installed_version(name))}


def model_key(model: ModelSettings, commit: str | None) -> str:
    """Of a model as it is now: its settings, its local files or its `commit` on the hub, and what computes with it.

    A branch of the hub counts as the commit that it stands at.
    """
    model = model.model_copy(update={"revision": commit or model.revision})
    return key_of(model, fingerprint(model.model), counted_versions())


def fingerprint(name: str) -> list[Any]:
    """Names, sizes and times of the local files behind an input; the name alone for what is not local."""
    path = user_path(name)
    try:
        if name == "embedded" or not path.exists():
            return [name]
        files = sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path]
        return [os.path.realpath(path), *((p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in files)]
    except OSError as error:
        raise ShortLMError(f"{path}: can't be read ({error.strerror or error}); check its rights") from error


def _below(folder: Path) -> list[Path]:
    """All files in a folder and in those inside it. Raises ShortLMError where it is far too large a place (/, say)."""
    found = list(islice((path for path in folder.rglob("*") if path.is_file()), MOST_FILES + 1))
    if len(found) > MOST_FILES:
        raise ShortLMError(f"{folder}: holds more than {MOST_FILES:,} files; give a folder of task files alone")
    return sorted(found)


def phase_keys(base: str, settings: HealSettings) -> list[str]:
    """A key for every phase of healing: `base` (of the model), this phase and those before it, and their data.

    How it is watched does not count.
    """
    keys = []
    for phase in settings.phases:
        data = [fingerprint(source.data) for source in phase.data]
        texts = [fingerprint(text.ids or text.text) for text in phase.validate_on]
        keys.append(key_of(keys[-1] if keys else base, phase, data, texts, settings.keep_adapter))
    return keys


def searched_on(text: TextSettings, mix: list[str]) -> list[Any]:
    """The texts that a search reads."""
    names = [text.ids or text.text, *(entry.rpartition("=")[0] or entry for entry in mix)]
    return [fingerprint(name) for name in names]


def measured_from(settings: EvalSettings) -> list[Any]:
    """Everything outside the settings that an evaluation reads: texts, local files, task files, the harness."""
    texts = [fingerprint(text.ids or text.text) for text in settings.with_local_texts().texts]
    files = [user_path(file) for file in settings.local_files().values()]
    answers = [fingerprint(str(piqa_labels(file))) for file in files]
    folders = [user_path(path) for path in settings.task_path]
    tasks = [fingerprint(str(file)) for folder in folders for file in _below(folder)]
    harness = installed_version("lm_eval") if settings.tasks else None
    return [texts, [fingerprint(str(file)) for file in files], answers, tasks, harness]
