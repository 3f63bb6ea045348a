"""What a repair makes of the files: weights that were solved for, or factors of what writes the residual stream.

A factor before a gap stands in everything that writes there: embeddings, and the output projections with their biases.
Where the head is tied to the embeddings, the final norm takes the factor back.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import nn

from shortlm.artifacts import Fold
from shortlm.checkpoint import Checkpoint, Computed, Copy, Piece, TensorEntry
from shortlm.errors import ModelError
from shortlm.model import find_anatomy, names_in_model, output_projection
from shortlm.model.reading import dtype_of, read_tensors
from shortlm.repair.kept_weights import KeptWeights
from shortlm.units import ATTENTION, FFN


class Files:
    """The tensors of the cut model's files, by the paths that the model gives them."""

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

    def solved(self, folds: list[Fold], kept: KeptWeights) -> dict[str, Any]:
        """The functions of weights that were solved for."""
        found = {}
        for fold in (f for f in folds if f.ridge is not None):
            there = kept.read(fold.block, fold.part)
            assert there is not None
            for name in there[1]:
                full = f"{self.blocks_path}.{fold.block}.{name}"
                found[full] = partial(kept.tensor, fold.block, fold.part, name)
        return found

    def scaled(self, folds: list[Fold]) -> dict[str, Any]:
        """The functions of tensors that are scaled."""
        factors = [(fold.block, fold.factor) for fold in folds if fold.factor is not None]
        if not factors:
            return {}
        found = {}
        for name, factor in self._factors(factors).items():
            found[name] = partial(_times, self.entry(name), factor)
        anatomy, embeddings = find_anatomy(self.model), self.model.get_input_embeddings()
        if anatomy.head.weight is embeddings.weight and anatomy.norm is not None:
            total = _product(factors, 0)
            offset = _gain_offset(anatomy.norm)
            norm = next(n for n, m in self.model.named_modules() if m is anatomy.norm)
            for leaf, _ in anatomy.norm.named_parameters():
                shift = offset if leaf == "weight" else 0.0
                found[f"{norm}.{leaf}"] = partial(_times, self.entry(f"{norm}.{leaf}"), 1 / total, shift)
        return found

    def _factors(self, factors: list[tuple[int, float]]) -> dict[str, float]:
        anatomy, found = find_anatomy(self.model), dict[str, float]()
        for name, module in self.model.named_modules():
            if isinstance(module, nn.Embedding) and not name.startswith(self.blocks_path + "."):
                found[f"{name}.weight"] = _product(factors, 0)
        for j in range(len(anatomy.blocks)):
            factor = _product(factors, j)
            for part in (ATTENTION, FFN) if factor != 1 else ():
                if projection := output_projection(anatomy, j, part):
                    for leaf, _ in projection.module.named_parameters():
                        found[f"{self.blocks_path}.{j}.{projection.path}.{leaf}"] = factor
        return found


def _product(factors: list[tuple[int, float]], j: int) -> float:
    """Of all gaps behind block j."""
    product = 1.0
    for block, factor in factors:
        product *= factor if block >= j else 1.0
    return product


def _times(entry: TensorEntry, factor: float, offset: float = 0.0) -> torch.Tensor:
    stored = read_tensors({"": entry})[""]
    return ((stored.double() + offset) * factor - offset).to(stored.dtype)


def _gain_offset(norm: Any) -> float:
    """1 where a norm multiplies by 1 + its weight (Gemma), else 0."""
    alone = type(norm).__new__(type(norm))
    nn.Module.__init__(alone)
    vars(alone).update({k: v for k, v in vars(norm).items() if not k.startswith("_")})
    for name, parameter in norm.named_parameters():
        alone._parameters[name] = nn.Parameter(torch.zeros(parameter.shape), requires_grad=False)
    width = norm.weight.shape[0]
    signs_1D = torch.ones(1, width)
    signs_1D[:, ::2] = -1
    return float(alone(signs_1D).abs().max().round())
