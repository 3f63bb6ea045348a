"""What a repair will take: memory, block forwards, products in float64, and how long by times measured here.

Shapes: B sequences, T tokens, D hidden, F inputs of an output projection, N tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from shortlm.artifacts import WorkEstimate, WorkRow, provenance
from shortlm.errors import RepairError
from shortlm.model import facts_from_config, find_anatomy, output_projection, text_config
from shortlm.repair.sources import Sources
from shortlm.sizes import byte_size, gib
from shortlm.sweep import MadeUpModel, ModelSize, seconds, taken_memory, widest
from shortlm.units import ATTENTION

MARGIN = 0.2  # of what is planned beyond the process itself: the heap's gaps, kernels' own memory
PROBE = 512  # tokens of the product that is timed


@dataclass(frozen=True)
class Solving:
    """One weight that will be solved for."""

    inputs: int  # F, or D of a map behind the weight
    outputs: int  # D
    share: float  # of a block's work, in each call that is made for it

    def flops(self, tokens: int, ridges: int) -> float:
        """In float64: sums (half of Z'Z, which is symmetric), then a Cholesky factor and a solution for every ridge."""
        sums = 2.0 * tokens * self.inputs * (self.inputs / 2 + self.outputs)
        return sums + ridges * (self.inputs**3 / 3 + 2.0 * self.inputs**2 * self.outputs)

    @property
    def nbytes(self) -> int:
        """In float64: Z'Z; Z'E, a solution and the weight that comes out."""
        return 8 * self.inputs * (self.inputs + 3 * self.outputs)


def solvings(sources: Sources) -> list[Solving]:
    """All weights that the method solves for, from the config alone."""
    how, pairing, anatomy = sources.how, sources.pairing, find_anatomy(sources.files.model)
    found, width = [], text_config(sources.cut.config).hidden_size
    for j in range(pairing.first, len(pairing.blocks)) if how.solves else ():
        parameters = sum(p.numel() for p in anatomy.blocks[j].parameters())
        for part in how.parts if how.everywhere or pairing.is_before_gap(j) else ():
            if projection := output_projection(anatomy, j, part):
                names = anatomy.attention[j]
                attention = sum(p.numel() for n in names for p in anatomy.blocks[j].get_submodule(n).parameters())
                share = attention / parameters if part == ATTENTION else 1.0
                found.append(Solving(projection.width if how.solves == "refit" else width, width, share))
    return found


def streams(sources: Sources) -> bool:
    """Whether blocks are read from disk one by one: as asked, or else where both models don't fit."""
    wishes = {sources.cut.settings.stream, sources.dense.settings.stream}
    if "on" in wishes or "off" in wishes:
        return "on" in wishes
    if budget := _budget(sources):
        return _needed(sources, False) > budget
    return not (sources.cut.fits() and sources.dense.fits())


def refuse_beyond_memory(sources: Sources) -> None:
    """Raise RepairError, saying what is needed, where a budget is given and too little."""
    budget = _budget(sources)
    if budget is None or (needed := _needed(sources, streams(sources))) <= budget:
        return
    parts = ", ".join(f"{name} {gib(size)}" for name, size in _parts(sources, streams(sources)).items())
    raise RepairError(
        f"--memory {gib(budget)} is too little: {gib(needed)} are needed ({parts}, and room for error); give that "
        "much, or fewer --calibration windows"
    )


def plan_repair(sources: Sources, measure: bool = True) -> WorkEstimate:
    """What it takes, before any weight is read; with `measure` a made-up block and a product in float64 are timed."""
    streamed, settings = streams(sources), sources.settings
    (windows, tokens), weights = sources.shape, solvings(sources)
    size, cost, forwards = sources.batch_size, sources.call_cost, _forwards(sources, weights)
    wide = sum(one.flops(settings.calibration * tokens, _ridges(sources)) for one in weights)
    read = sources.cut.checkpoint.nbytes + sources.dense.checkpoint.nbytes
    took = None
    if measure:
        block = _made_up(sources).times(size, tokens).block
        took = forwards / size * block + (wide / _rate(sources, weights) if weights else 0.0)
    row = WorkRow(
        name=str(sources.how), streamed=streamed, batch_size=size, passes=1,
        peak_bytes=sum(_parts(sources, streamed).values()), parts=_parts(sources, streamed), bytes_read=read,
        exact=cost.exact, block_forwards=round(forwards / size), flops=forwards / size * cost.flops + wide,
        seconds=took,
    )  # fmt: skip
    return WorkEstimate(
        model=facts_from_config(sources.cut.settings), sequences=windows, tokens=tokens,
        weights_bytes=read, rows=[row], disk_bytes_per_second=None,
        provenance=provenance(str(sources.cut.device), str(sources.cut.dtype).removeprefix("torch.")),
    )  # fmt: skip


def _budget(sources: Sources) -> int | None:
    return byte_size(sources.cut.settings.memory) if sources.cut.settings.memory else None


def _needed(sources: Sources, streamed: bool) -> int:
    base, total = taken_memory(sources.cut.device), sum(_parts(sources, streamed).values())
    return int(total + MARGIN * (total - base))


def _ridges(sources: Sources) -> int:
    return len(sources.settings.ridges) if sources.how.ridge else 1


def _forwards(sources: Sources, weights: list[Solving]) -> float:
    """Of blocks, each for one window."""
    fitted, validation = sources.settings.calibration, sources.settings.validation
    plain = sources.pairing.n_dense * (fitted + validation) + len(sources.pairing.blocks) * (fitted + 2 * validation)
    after_attention = sum(one.share * (fitted + validation) for one in weights if one.share < 1)
    fits = sum(one.share * (fitted + validation * (1 + _ridges(sources))) for one in weights)
    return plain + after_attention + fits


def _parts(sources: Sources, streamed: bool) -> dict[str, int]:
    """What the peak is made of."""
    sizes = [
        ModelSize.of(files.config, files.dtype, files.settings.trust_remote_code, files.checkpoint)
        for files in (sources.cut, sources.dense)
    ]
    weights = sum((1 + s.copies) * max(s.blocks) + s.rest if streamed else s.total for s in sizes)
    weighed, cost, windows = solvings(sources), sources.call_cost, sources.shape[0]
    sides = 2 * windows + sources.settings.validation + windows * any(one.share < 1 for one in weighed)
    return {
        "process": taken_memory(sources.cut.device), "weights": weights,
        "hidden states": cost.state_bytes // sources.batch_size * sides,
        "one call": cost.forward_bytes + sizes[0].largest_weight,
        "sums in float64": max((one.nbytes for one in weighed), default=0),
    }  # fmt: skip


def _made_up(sources: Sources) -> MadeUpModel:
    cut = sources.cut
    return MadeUpModel(cut.config, cut.dtype, cut.device, trust_remote_code=cut.settings.trust_remote_code)


def _rate(sources: Sources, weights: list[Solving]) -> float:
    """Floating-point operations per second of a product Z'Z in float64."""
    device, inputs = sources.cut.device, max(one.inputs for one in weights)
    z_NF = torch.ones(PROBE, inputs, dtype=widest(device), device=device)
    gram_FF = torch.zeros(inputs, inputs, dtype=widest(device), device=device)
    return 2.0 * PROBE * inputs**2 / seconds(lambda: gram_FF.addmm_(z_NF.T, z_NF), device)
