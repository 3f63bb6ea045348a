"""What a model has been healed on, as the healing.json of its checkpoint tells it."""

from __future__ import annotations

from pathlib import Path

from shortlm.artifacts import Healing
from shortlm.recipe import SourceSettings, validated


def sources_of(folder: Path | str) -> list[SourceSettings]:
    """The training data of every phase that the checkpoint has been through; empty if it was never healed.

    Raises ShortLMError for a healing.json that can't be read.
    """
    path = Path(folder) / "healing.json"
    phases = Healing.load(path).phases if path.is_file() else []
    return [validated(SourceSettings, data, str(path)) for phase in phases for data in phase.settings.get("data", [])]
