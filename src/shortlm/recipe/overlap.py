"""Whether a text that is measured is one that was trained on: perplexity there says nothing about other text."""

from __future__ import annotations

from pathlib import Path

from shortlm.paths import user_path
from shortlm.recipe.heal_settings import SourceSettings
from shortlm.recipe.stages import TextSettings


def trained_on(measured: TextSettings, source: SourceSettings) -> bool:
    """The same file, the same split of a hub data set, or the embedded text of the same seed.

    Of token ids nobody knows which text they are. Windows that are skipped don't tell two texts apart, since all of
    a source is trained on.
    """
    if measured.ids is not None or _place(measured.text) != _place(source.data):
        return False
    if measured.text == "embedded":
        return measured.seed == source.seed
    is_file = _place(measured.text).exists()
    return is_file or (measured.subset, measured.split) == (source.subset, source.split)


def _place(name: str) -> Path:
    """Two spellings of one file are one; names of hub data sets stay different ones."""
    return user_path(name).resolve()
