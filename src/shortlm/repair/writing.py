"""What a repair makes of the files: weights that were solved for, or factors of what writes the residual stream.

A factor before a gap stands in everything that writes there: embeddings, and the output projections with their biases.
Where the head is tied to the embeddings, the final norm takes the factor back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import nn

from shortlm.artifacts import Fold
from shortlm.checkpoint import TensorEntry
from shortlm.model import StoredTensors, find_anatomy, output_projection
from shortlm.model.reading import read_tensors
from shortlm.repair.kept_weights import KeptWeights
from shortlm.units import ATTENTION, FFN


class Files(StoredTensors):
    """The cut model's files, and what a repair makes of them."""

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

    def scaled(self, folds: list[Fold], norms: Mapping[tuple[int, str], str]) -> dict[str, Any]:
        """The functions of tensors that are scaled; `norms`: what norms the output of a block's branch."""
        factors = [(fold.block, fold.factor) for fold in folds if fold.factor is not None]
        if not factors:
            return {}
        found: dict[str, Any] = {}
        for name, module in self.model.named_modules():
            if isinstance(module, nn.Embedding) and not name.startswith(self.blocks_path + "."):
                found |= self._times(name, module, _product(factors, 0))
        anatomy, embeddings = find_anatomy(self.model), self.model.get_input_embeddings()
        for j in range(len(anatomy.blocks)):
            if (factor := _product(factors, j)) != 1:
                for name, module in self._writing(j, norms):
                    found |= self._times(name, module, factor)
        if anatomy.head.weight is embeddings.weight and anatomy.norm is not None:
            norm = next(n for n, m in self.model.named_modules() if m is anatomy.norm)
            found |= self._times(norm, anatomy.norm, 1 / _product(factors, 0))
        return found

    def _writing(self, j: int, norms: Mapping[tuple[int, str], str]) -> Iterator[tuple[str, Any]]:
        """The modules of block j that give the size of what it adds: output projections, or norms behind them."""
        anatomy = find_anatomy(self.model)
        for part in (ATTENTION, FFN):
            if projection := output_projection(anatomy, j, part):
                path = norms.get((j, part), projection.path)
                yield f"{self.blocks_path}.{j}.{path}", anatomy.blocks[j].get_submodule(path)

    def _times(self, name: str, module: Any, factor: float) -> dict[str, Any]:
        """The functions of all tensors of a module, times a factor; the gain of some norms is 1 and more."""
        is_norm = not isinstance(module, nn.Embedding | nn.Linear) and len(module.weight.shape) == 1
        offset = _gain_offset(module) if is_norm else 0.0
        return {
            f"{name}.{leaf}": partial(_times, self.entry(f"{name}.{leaf}"), factor, offset if leaf == "weight" else 0.0)
            for leaf, _ in module.named_parameters(recurse=False)
        }


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
