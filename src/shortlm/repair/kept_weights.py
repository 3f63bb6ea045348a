"""Weights that were solved for, in a folder beside the result: memory holds one at a time, and what was interrupted
goes on from there."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from shortlm.artifacts import Fold
from shortlm.errors import OutputError


class KeptWeights:
    """One file for each: tensors by their paths inside the block, and the record of the fold."""

    def __init__(self, folder: Path | None, writes: bool = False):
        """Without a folder nothing is kept."""
        self.folder, self.writes = folder, writes

    def read(self, block: int, part: str) -> tuple[Fold, dict[str, torch.Tensor]] | None:
        """What was kept; None if nothing was, or it was cut short."""
        if self.folder is None or not (path := self.folder / _name(block, part)).is_file():
            return None
        try:
            with safe_open(path, "pt") as file:
                fold = Fold.model_validate_json((file.metadata() or {})["fold"])
                return fold, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError, KeyError, ValueError):
            return None

    def keep(self, fold: Fold, tensors: dict[str, torch.Tensor]) -> None:
        """Raises OutputError if the disk is full."""
        if self.folder is None or not self.writes:
            return
        path = self.folder / _name(fold.block, fold.part)
        part = path.with_suffix(".part")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            held = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
            save_file(held, part, {"fold": fold.model_dump_json()})
            os.replace(part, path)
        except (OSError, SafetensorError) as error:
            raise OutputError(f"{self.folder}: what was repaired so far can't be kept ({error})") from error

    def tensor(self, block: int, part: str, name: str) -> torch.Tensor:
        """One of those that were kept."""
        assert self.folder is not None
        with safe_open(self.folder / _name(block, part), "pt") as file:
            return file.get_tensor(name)

    def forget(self) -> None:
        """The result is written."""
        if self.folder is not None and self.writes:
            shutil.rmtree(self.folder, ignore_errors=True)


def _name(block: int, part: str) -> str:
    return f"{block:04}-{part}.safetensors"
