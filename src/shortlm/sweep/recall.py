"""What an interrupted search has asked already, so that the same search goes on from there.

A search is deterministic: asked again from the beginning, it asks for the same sets in the same order. So every answer
is a file, and the answers that are there are read instead of computed.

Shapes: S sequences, M masks, T tokens.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from shortlm.errors import OutputError
from shortlm.sweep.forward import Losses


class Recall:
    """Answers in a folder, by number; nothing is kept without a folder. Every process reads, the first one `writes`."""

    def __init__(self, folder: Path | None = None, writes: bool = True):
        self.folder, self.writes, self.number = folder, writes, 0
        self.read = 0  # answers that were there

    def next(self, *asked: Any) -> tuple[Losses, int] | None:
        """The next answer and all block forwards up to it, if it is there and was to this question."""
        path = self._path()
        if path is None or not path.is_file():
            return None
        try:
            with safe_open(path, "pt") as file:
                told = file.metadata() or {}
                if told.get("asked") != _described(asked):
                    return None
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError):
            return None  # cut short: computed anew
        self.number += 1
        self.read += 1
        each = tensors.get("each_MST")
        return Losses(tensors["base_S"], tensors["nats_MS"], tensors["tokens_S"], each), int(told["forwards"])

    def keep(self, losses: Losses, forwards: int, *asked: Any) -> None:
        """An answer that was computed, with all block forwards so far. Raises OutputError if the disk is full."""
        path = self._path()
        self.number += 1
        if path is None or not self.writes:
            return
        tensors = {"base_S": losses.base_S, "nats_MS": losses.nats_MS, "tokens_S": losses.tokens_S}
        tensors |= {} if losses.each_MST is None else {"each_MST": losses.each_MST}
        metadata = {"asked": _described(asked), "forwards": str(forwards)}
        part = path.with_suffix(".part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            save_file({name: tensor.contiguous().clone() for name, tensor in tensors.items()}, part, metadata)
            os.replace(part, path)
        except (OSError, SafetensorError) as error:
            raise OutputError(f"{path.parent}: what was searched so far can't be kept ({error})") from error

    def forget(self) -> None:
        """The search is done."""
        if self.folder and self.writes:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self) -> Path | None:
        return self.folder and self.folder / f"{self.number:06}.safetensors"


def _described(asked: Sequence[Any]) -> str:
    """Masks, parts and the like, as text that is the same in every run."""

    def plain(value: Any) -> Any:
        if isinstance(value, frozenset):
            return sorted(map(str, value))
        return [plain(v) for v in value] if isinstance(value, (list, tuple)) else value

    return json.dumps(plain(list(asked)))
