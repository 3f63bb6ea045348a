"""The tensors of the narrower checkpoint: slices of the source's, and biases that are computed."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch

from shortlm.checkpoint import Computed, Copy, Piece, Slice, TensorEntry
from shortlm.model import StoredTensors
from shortlm.model.reading import dtype_of, read_tensors
from shortlm.width.form import Form
from shortlm.width.groups import Groups, Kept
from shortlm.width.masking import Means, bias_of, removed_inputs


def narrowed_pieces(
    stored: StoredTensors, groups: Sequence[Groups], kept: Kept, form: Form, means: Means | None
) -> list[Piece]:
    """All of them, in the order of the files. Raises ModelError for files that hold a tensor otherwise."""
    sliced: dict[str, tuple[int, list[int]]] = {}
    for g in groups:
        if len(kept[g.block, g.part]) < g.count:
            for tensor in g.tensors:
                name = f"{stored.blocks_path}.{g.block}.{tensor.name}"
                stored.entry(name)
                sliced[stored.file_of[name]] = (tensor.axis, tensor.indices(kept[g.block, g.part]))
    biases = _biases(stored, groups, kept, form, means)
    pieces: list[Piece] = []
    for file, entry in stored.checkpoint.tensors.items():
        if file in biases:
            pieces.append(biases.pop(file))
        elif file in sliced:
            axis, indices = sliced[file]
            pieces.append(Slice(file, entry, {axis: indices}))
        else:
            pieces.append(Copy(file, entry))
        weight = file.removesuffix(".weight") + ".bias"
        if file.endswith(".weight") and weight in biases and weight not in stored.checkpoint.tensors:
            pieces.append(biases.pop(weight))
    assert not biases
    return pieces


def _biases(
    stored: StoredTensors, groups: Sequence[Groups], kept: Kept, form: Form, means: Means | None
) -> dict[str, Piece]:
    """By their names in the files: those of output projections, and zeros where the config makes others too."""
    found: dict[str, Piece] = {}
    of_output = {(g.block, f"{g.output}.bias"): g for g in groups if means is not None}
    shapes = _shapes(form)
    for key, g in of_output.items():
        if removed := removed_inputs(g, kept):
            assert means is not None
            piece = _computed(stored, *key, partial(_bias, stored, g, removed, means[g.block, g.part]), shapes)
            found[piece.name] = piece
    for i, names in form.added.items():
        for name in names:
            zeros = _computed(stored, i, name, None, shapes)
            found.setdefault(zeros.name, zeros)
    return found


def _computed(stored: StoredTensors, i: int, name: str, compute: Any, shapes: dict[str, tuple[int, ...]]) -> Computed:
    full = f"{stored.blocks_path}.{i}.{name}"
    weight = stored.entry(full.removesuffix(".bias") + ".weight")
    file = stored.file_of[full.removesuffix(".bias") + ".weight"].removesuffix(".weight") + ".bias"
    shape = shapes[full]
    return Computed(file, weight.dtype, shape, compute or partial(torch.zeros, shape, dtype=dtype_of(weight)))


def _shapes(form: Form) -> dict[str, tuple[int, ...]]:
    from shortlm.model import meta_model

    return {name: tuple(p.shape) for name, p in meta_model(form.config).named_parameters()}


def _bias(stored: StoredTensors, g: Groups, removed: Sequence[int], mean_F: torch.Tensor) -> torch.Tensor:
    path = f"{stored.blocks_path}.{g.block}.{g.output}"
    weight = _read(stored.entry(f"{path}.weight"))
    bias_D = bias_of(weight, mean_F, removed)
    if old := stored.checkpoint.tensors.get(stored.file_of[f"{path}.weight"].removesuffix(".weight") + ".bias"):
        bias_D += _read(old).float()
    return bias_D.to(weight.dtype)


def _read(entry: TensorEntry) -> torch.Tensor:
    return read_tensors({"": entry})[""]
