"""One model of the page: opened, with what is shown above its column."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from shortlm.artifacts import Manifest, manifest_of
from shortlm.bench import bytes_of_cache
from shortlm.checkpoint import short_names
from shortlm.errors import ModelError
from shortlm.model import OpenModel, open_model
from shortlm.paths import user_path
from shortlm.recipe import DemoSettings, ModelSettings
from shortlm.units import ATTENTION, FFN, Unit

RUN_REPORT = "report.html"
MOST_MODELS = 6  # columns that fit on a page


@dataclass(frozen=True)
class Contestant:
    """A column of the page."""

    name: str
    opened: OpenModel
    manifest: Manifest | None

    @property
    def weight_bytes(self) -> int:
        """Of the files."""
        return self.opened.checkpoint.nbytes

    @cached_property
    def cache_bytes(self) -> int | None:
        """Of the KV cache for one token, by computing one; None where it is another kind of cache."""
        with torch.no_grad():
            ids_BT = torch.zeros(1, 1, dtype=torch.long, device=self.opened.device)
            output = self.opened.model(input_ids=ids_BT, use_cache=True)
        return bytes_of_cache(output)

    @property
    def units(self) -> list[tuple[int, bool, bool]]:
        """Every block of the first model with whether its attention and its FFN are still there."""
        if self.manifest is None:
            return [(i, True, True) for i in range(self.opened.facts.n_blocks)]
        kept, left_out = set(self.manifest.blocks), set(self.manifest.left_out)
        return [
            (i, i in kept and Unit(i, ATTENTION) not in left_out, i in kept and Unit(i, FFN) not in left_out)
            for i in range(self.manifest.base.n_blocks)
        ]


def named_models(names: Sequence[str]) -> tuple[list[str], Path | None]:
    """The models that are meant, and the report of a run. A folder of `run` stands for its dense model and its result.

    Raises ModelError for more models than fit on a page.
    """
    models: list[str] = []
    report = None
    for name in names:
        folder = user_path(name)
        made = folder / "model"
        if not (folder / "config.json").is_file() and (manifest := manifest_of(made) if made.is_dir() else None):
            models += [manifest.base_path or manifest.base.name, str(made)]
            report = folder / RUN_REPORT if (folder / RUN_REPORT).is_file() else report
        else:
            models.append(name)
    models = list(dict.fromkeys(models))
    if len(models) > MOST_MODELS:
        raise ModelError(f"{len(models)} models are more than fit side by side; give {MOST_MODELS} at most")
    return models, report


def opened_models(names: Sequence[str], settings: DemoSettings) -> list[Contestant]:
    """All of them in memory, in the order of the columns. Raises ModelError for one that can't be opened or write."""
    found = []
    for name, short in zip(names, short_names(list(names)), strict=True):
        opened = open_model(ModelSettings(model=name, dtype=settings.dtype, device=settings.device))
        if opened.tokenizer is None or not opened.model.can_generate():
            raise ModelError(f"{name}: has no tokenizer, or can't generate text; the page needs both")
        found.append(Contestant(short, opened, manifest_of(opened.checkpoint.folder)))
    return found
