"""Which model is compared with which: one is the reference, the others stand beside it, each with its colour."""

from __future__ import annotations

from collections.abc import Iterable

from shortlm.artifacts import Benchmark, Measurement
from shortlm.report.svg import COLOURS, SERIES


def reference_of(roles: Iterable[str]) -> str | None:
    """The dense model, or the first of several; None if there is nothing to compare."""
    found = list(dict.fromkeys(roles))
    if "dense" in found:
        return "dense"
    return found[0] if len(found) > 1 else None


def all_roles(measurements: list[Measurement], benchmark: Benchmark | None) -> list[str]:
    """Every model once, the reference first."""
    found = list(
        dict.fromkeys([m.role for m in measurements] + [m.role for m in (benchmark.models if benchmark else [])])
    )
    first = reference_of(found)
    return sorted(found, key=lambda role: role != first)


def colours(roles: list[str]) -> dict[str, str]:
    """Grey for the reference, a colour of its own for each of the others (from the ninth on again)."""
    first = reference_of(roles)
    others = [role for role in roles if role != first]
    found = {role: COLOURS[SERIES[i % len(SERIES)]] for i, role in enumerate(others)}
    return found | ({first: COLOURS["soft"]} if first is not None else {})
