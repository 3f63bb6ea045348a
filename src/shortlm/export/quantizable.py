"""Which linear layers of a model become integers: those of its blocks. What the config alone decides is decided here.

Embeddings, lm_head and other towers stay as they are, as in the published settings.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from torch import nn

from shortlm.errors import ExportError
from shortlm.model import find_anatomy, meta_model

LEAST = 0.5  # of the blocks' parameters that have to be in linear layers


@dataclass(frozen=True)
class Layers:
    """Of one model, by their paths in it."""

    quantized: dict[str, nn.Linear]
    ignored: list[str]

    @property
    def parameters(self) -> int:
        """Weights that become integers."""
        return sum(layer.weight.numel() for layer in self.quantized.values())


def quantizable(config: Any, name: str, group_size: int, trust_remote_code: bool) -> Layers:
    """Raises ExportError for a model most of whose weights are elsewhere, or whose widths don't fit the groups."""
    if getattr(config, "quantization_config", None):
        raise ExportError(f"{name}: is quantised already; give the unquantised checkpoint")
    model = meta_model(config, trust_remote_code)
    prefix = find_anatomy(model).blocks_path + "."
    linear = {path: module for path, module in model.named_modules() if isinstance(module, nn.Linear)}
    layers = Layers(
        {path: module for path, module in linear.items() if path.startswith(prefix)},
        [path for path in linear if not path.startswith(prefix)],
    )
    _refuse_elsewhere(model, prefix, layers, name)
    _refuse_uneven(layers, group_size, name)
    return layers


def _refuse_elsewhere(model: Any, prefix: str, layers: Layers, name: str) -> None:
    total = sum(p.numel() for path, p in model.named_parameters() if path.startswith(prefix))
    if layers.parameters < LEAST * total:
        raise ExportError(
            f"{name}: only {layers.parameters / total:.0%} of its blocks' parameters are in linear layers (experts in "
            "one tensor, and GPT-2's Conv1D, are not); quantise it by llm-compressor's own recipe for this model"
        )


def _refuse_uneven(layers: Layers, group_size: int, name: str) -> None:
    widths = {layer.in_features for layer in layers.quantized.values()}
    uneven = sorted(width for width in widths if group_size and width % group_size)
    if uneven:
        divisor = math.gcd(*widths)
        group = next((g for g in (128, 64, 32, 16) if divisor % g == 0 and g < group_size), 0)
        raise ExportError(
            f"{name}: a layer of {uneven[0]} inputs can't be split into groups of {group_size}; "
            f"give --group-size {group}" + ("" if group else " (a scale for each output channel)")
        )
