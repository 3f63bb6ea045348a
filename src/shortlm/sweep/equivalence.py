"""The equivalence check: logits of the written model == those of the original in which the same is left out.

Both are run on the same few tokens in the same compute type: in one go, and token by token with the KV
cache. The original without them is run in one go only, since what is left out leaves its cache empty.

Shapes: B sequences, T tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from shortlm.artifacts import Equivalence
from shortlm.errors import ModelError, library_errors, reason
from shortlm.model import (
    Anatomy,
    ModelFiles,
    OpenModel,
    architecture_of,
    cache_name,
    find_anatomy,
    left_out_of,
    open_files,
    special_ids,
    vocabulary,
)
from shortlm.recipe import ModelSettings
from shortlm.sweep.blocks import BlockCaller
from shortlm.sweep.branches import Branches
from shortlm.sweep.decisions import path_of
from shortlm.sweep.replaced import bypassed
from shortlm.sweep.tail import Tail
from shortlm.units import Unit

SEQUENCES, TOKENS, PREFIX = 2, 32, 8
CACHELESS = (AttributeError, TypeError, ValueError, IndexError, KeyError, RuntimeError)  # of a model without one
Edited = Callable[[Anatomy], AbstractContextManager[object]]


@dataclass(frozen=True)
class _Without:
    """What the original is run without."""

    removed: list[int] = field(default_factory=list)
    sublayers: Sequence[Unit] = ()
    edited: Edited = lambda anatomy: nullcontext()


def check_equivalence(
    original: ModelSettings, result: Path, removed: Sequence[int] = (), sublayers: Sequence[Unit] = (),
    edited: Edited = lambda anatomy: nullcontext(),
) -> Equivalence:  # fmt: skip
    """Compare both models: `removed` are whole blocks, `sublayers` of others; `edited` does more to the original.

    Raises ModelError if they differ by more than the tolerance, or one gives NaN.
    Models that don't fit in memory (or `stream` "on") are compared block by block from disk, without the cache.
    """
    files = open_files(original)
    cut_files = open_files(original.model_copy(update={"model": str(result), "revision": None}))
    streamed = original.stream == "on" or (original.stream == "auto" and not files.fits())
    return (_streamed if streamed else _in_memory)(files, cut_files, _Without(list(removed), sublayers, edited))


def _in_memory(files: ModelFiles, cut_files: ModelFiles, without: _Without) -> Equivalence:
    """With the cache, rounding (and the routing of experts) differs from the pass at once also in the uncut model:
    four times the original's own gap is allowed there, where that is more than the tolerance.
    """
    ids_BT = _probe_ids(files.config)
    expected_BTV, own_gap, dtype = _original_logits(files, without, ids_BT)
    allowed = tolerance(dtype, expected_BTV)
    model = cut_files.open(streamed=False).model
    ids_BT = ids_BT.to(model.device)
    whole = _largest(expected_BTV - _logits(model, ids_BT))
    _refuse_difference(whole, allowed, "")
    cached = allowed_cached = None
    if own_gap is not None:
        cached, allowed_cached = _largest(expected_BTV - _cached_or_refuse(model, ids_BT)), max(allowed, 4 * own_gap)
        _refuse_difference(cached, allowed_cached, " with the KV cache")
    return Equivalence(
        max_abs_difference=whole, max_abs_difference_cached=cached, tolerance=allowed,
        tolerance_cached=allowed_cached, tokens=ids_BT.numel(), dtype=dtype,
    )  # fmt: skip


def _streamed(files: ModelFiles, cut_files: ModelFiles, without: _Without) -> Equivalence:
    """Two blocks are in memory; the removed ones are not even read."""
    ids_BT = _probe_ids(files.config)
    expected_BTV = _walked_logits(files.open(streamed=True), without, ids_BT)
    dtype = str(files.dtype).removeprefix("torch.")
    allowed = tolerance(dtype, expected_BTV)
    whole = _largest(expected_BTV - _walked_logits(cut_files.open(streamed=True), _Without(), ids_BT))
    _refuse_difference(whole, allowed, "")
    return Equivalence(
        max_abs_difference=whole, max_abs_difference_cached=None, tolerance=allowed, tokens=ids_BT.numel(),
        dtype=dtype, streamed=True,
    )  # fmt: skip


def _walked_logits(opened: OpenModel, without: _Without, ids_BT: torch.Tensor) -> torch.Tensor:
    path = path_of(frozenset(without.sublayers), len(opened.anatomy.blocks))
    caller = BlockCaller(opened.model, opened.anatomy, opened.disk)
    with torch.no_grad(), without.edited(opened.anatomy):
        batch = caller.prepare(ids_BT, torch.ones_like(ids_BT, dtype=torch.bool))
        h_BTD = batch.h_BTD
        assert h_BTD is not None
        for i in caller.visit(without=without.removed):
            h_BTD = caller(i, h_BTD, batch, path[i])
        with Tail(caller).loaded():
            return caller.tail(h_BTD, batch).float().cpu()


def _refuse_difference(difference: float, allowed: float, how: str) -> None:
    if not difference <= allowed:  # also true for NaN
        raise ModelError(
            f"the cut model's logits{how} differ from the original's by {difference:.3g} (allowed: {allowed:.3g}); "
            "nothing was written; please report this architecture"
        )


def tolerance(dtype: str, logits: torch.Tensor) -> float:
    """1e-4 in float32; in half types four units in the last place of the largest logit."""
    if dtype == "float32":
        return 1e-4
    return 4 * torch.finfo(getattr(torch, dtype)).eps * float(logits.abs().max())


def _probe_ids(config: Any) -> torch.Tensor:
    """Any tokens will do, since the two models have to agree on all of them; but none that stands for an image."""
    ids_BT = torch.randint(vocabulary(config), (SEQUENCES, TOKENS), generator=torch.Generator().manual_seed(0))
    taken = {*special_ids(config)}
    free = next(token for token in range(vocabulary(config)) if token not in taken)
    return torch.where(torch.isin(ids_BT, torch.tensor(sorted(taken))), free, ids_BT)


def _original_logits(
    files: ModelFiles, without: _Without, ids_BT: torch.Tensor
) -> tuple[torch.Tensor, float | None, str]:
    """logits_BTV of the original without that, the whole one's gap with the cache (None: no cache), the type."""
    model = files.open(streamed=False).model
    ids_BT = ids_BT.to(model.device)
    with library_errors(ModelError, f"{model.config.model_type}: can't be run on text alone"):
        whole_BTV = _logits(model, ids_BT)
    try:
        own_gap = _largest(whole_BTV - cached_logits(model, ids_BT))
    except CACHELESS:  # recurrent models may keep something else, or nothing
        own_gap = None
    anatomy = find_anatomy(model)
    left_out = Branches(anatomy).left_out(without.sublayers)
    with bypassed(anatomy.blocks, without.removed), left_out, without.edited(anatomy):
        logits_BTV = _logits(model, ids_BT)
    return logits_BTV, own_gap, str(model.dtype).removeprefix("torch.")


def _cached_or_refuse(model: Any, ids_BT: torch.Tensor) -> torch.Tensor:
    try:
        return cached_logits(model, ids_BT)
    except CACHELESS as error:
        own = left_out_of(model.config)
        way_out = "remove whole blocks, or choose --as zeroed" if own else "keep another block of their kind"
        raise ModelError(
            f"without these units {architecture_of(model.config)} can't decode with its KV cache ({reason(error)}); "
            + way_out
        ) from error


def _logits(model: Any, ids_BT: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=ids_BT, use_cache=False).logits.float().cpu()


def cached_logits(model: Any, ids_BT: torch.Tensor) -> torch.Tensor:
    """logits_BTV computed as generation does: a prefix at once, then token by token with the KV cache."""
    name = cache_name(model)
    parts: list[torch.Tensor] = []
    cache: dict[str, Any] = {}  # the first call makes it
    with torch.no_grad():
        for ids in [ids_BT[:, :PREFIX], *ids_BT[:, PREFIX:].split(1, dim=1)]:
            output = model(input_ids=ids, use_cache=True, **cache)
            cache = {name: output[name]}
            parts.append(output.logits.float().cpu())
    return torch.cat(parts, dim=1)


def _largest(difference: torch.Tensor) -> float:
    return float(difference.abs().max())
