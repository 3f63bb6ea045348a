"""Why an artifact has another key than it would have now: versions, a model's commit on the hub, settings, inputs."""

from __future__ import annotations

from typing import Any

from shortlm.artifacts import ModelFacts
from shortlm.keys import COUNTED, counted_versions
from shortlm.recipe import Settings


def why_other(artifact: Any, commits: dict[str, str | None], setting: str | None) -> str:
    """What an artifact "was made with". `commits`: of every model by its name; `setting`: the first that differs."""
    versions = version_change(artifact.provenance.versions)
    commit = _commit_change(getattr(artifact, "model", None), commits)
    return versions or commit or f"other settings or inputs ({setting or 'inputs changed'})"


def version_change(made_with: dict[str, str]) -> str | None:
    """Of the packages that count, those with another version than now: 'transformers 5.20.0, now 5.23.0'."""
    now = counted_versions()
    found = [
        f"{n} {made_with[n]}, now {now.get(n, 'unknown')}"
        for n in COUNTED
        if n in made_with and made_with[n] != now.get(n)
    ]
    return ", and ".join(found) or None


def _commit_change(model: ModelFacts | None, commits: dict[str, str | None]) -> str | None:
    """Where a branch on the hub has moved on; --revision with the old commit goes on with that."""
    now = commits.get(model.name) if model else None
    changed = model and now and model.revision and model.revision != now
    return f"{model.name} at commit {model.revision}, now {now}" if model and changed else None


def setting_change(old: Settings, new: Settings, path: str = "") -> str | None:
    """The first setting that differs, as 'choose.drop: 25%, now 50%'."""
    for name in type(old).model_fields:
        before, after = getattr(old, name), getattr(new, name)
        if isinstance(before, Settings) and (inner := setting_change(before, after, f"{path}{name}.")):
            return inner
        if not isinstance(before, Settings) and before != after:
            return f"{path}{name}: {before}, now {after}"
    return None
