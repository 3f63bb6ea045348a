"""The tensors of a model's files by the names that the model has for them, for edits that change some of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from shortlm.checkpoint import Checkpoint, Computed, Copy, Piece, TensorEntry
from shortlm.errors import ModelError
from shortlm.model.anatomy import find_anatomy
from shortlm.model.file_names import names_in_model
from shortlm.model.reading import dtype_of


class StoredTensors:
    """The tensors of a checkpoint's files, by the paths that the model gives them."""

    def __init__(self, checkpoint: Checkpoint, model: Any):
        """`model` has no memory for its weights."""
        self.checkpoint, self.model = checkpoint, model
        self.blocks_path = find_anatomy(model).blocks_path
        self.file_of = {name: file for file, name in names_in_model(model, checkpoint).items()}

    def entry(self, name: str) -> TensorEntry:
        """Of a parameter. Raises ModelError where the files hold it otherwise, or in a type without fractions."""
        shape = tuple(self.model.get_parameter(name).shape)
        found = self.checkpoint.tensors.get(self.file_of.get(name, ""))
        if found is None or tuple(found.shape) != shape or not dtype_of(found).is_floating_point:
            raise ModelError(
                f"{self.checkpoint.name}: '{name}' can't be written: the files hold no tensor of its shape and of a "
                "floating-point type"
            )
        return found

    def stored(self, block: int, path: str) -> torch.dtype:
        """The type that the files hold a tensor of a block in."""
        return dtype_of(self.entry(f"{self.blocks_path}.{block}.{path}"))

    def pieces(self, computed: Mapping[str, Any]) -> list[Piece]:
        """All tensors; those in `computed`, by the model's names, are given by these functions."""
        by_file = {self.file_of[name]: function for name, function in computed.items()}
        return [
            Computed(file, entry.dtype, tuple(entry.shape), by_file[file]) if file in by_file else Copy(file, entry)
            for file, entry in self.checkpoint.tensors.items()
        ]
