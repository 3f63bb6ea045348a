"""Sets of units as the page compares and writes them."""

from __future__ import annotations

from collections.abc import Iterable

from shortlm.report.numbers import blocks
from shortlm.units import ATTENTION, BLOCK, FFN, Unit


def is_fine(units: Iterable[Unit]) -> bool:
    """Whether there is an attention or FFN among them."""
    return any(unit.part != BLOCK for unit in units)


def sublayers(units: Iterable[Unit]) -> frozenset[Unit]:
    """The same set with every block as its attention and FFN."""
    return frozenset(
        Unit(unit.block, part) for unit in units for part in ((ATTENTION, FFN) if unit.part == BLOCK else (unit.part,))
    )


def unit_name(unit: Unit) -> str:
    """block 7, 7.attention."""
    return f"block {unit.block}" if unit.part == BLOCK else str(unit)


def units_text(units: Iterable[Unit]) -> str:
    """5-8; attention 3, 9; FFN 10: blocks first; a block whose sublayers are both there is a block."""
    gone = sublayers(units)
    attention, ffn = ({unit.block for unit in gone if unit.part == part} for part in (ATTENTION, FFN))
    found = [("", attention & ffn), ("attention ", attention - ffn), ("FFN ", ffn - attention)]
    return "; ".join(name + blocks(sorted(indices)) for name, indices in found if indices) or "none"
