"""Numbers as people read them: few digits, a unit, the error that goes with them.

Functions return plain ASCII where they can (so that the model card stays easy to edit); `typeset` gives
the page real minus signs and spaces that don't break.
"""

from __future__ import annotations

import math

from shortlm.sizes import count as count, decimals, duration as duration, gib, significant

size = gib  # what the page's filter is called


def exp(value: float) -> float:
    """e to the power of `value`; infinite where floats end."""
    return math.exp(value) if value < 709 else math.inf


def with_error(value: float, error: float | None) -> str:
    """3.021 ± 0.041: as many decimals as two digits of the standard error need; without one, four digits."""
    if not error or not math.isfinite(error) or error < 1e-7:
        return significant(value, 4)
    if max(abs(value), error) >= 1e7:
        return f"{significant(value)} ± {significant(error, 2)}"
    places = decimals(error, 2)
    return f"{value:,.{places}f} ± {error:,.{places}f}"


def signed(text: str) -> str:
    """A plus in front of what is not negative."""
    return text if text.startswith("-") or text == "0" else f"+{text}"


def whole(value: int) -> str:
    """131,072."""
    return f"{value:,}"


def tick(value: float) -> str:
    """For an axis: as `count`, without zeros that say nothing."""
    number, _, unit = count(abs(value)).partition(" ")
    number = number.rstrip("0").rstrip(".") if "." in number else number
    return f"{'−' if value < 0 else ''}{number} {unit}".rstrip()


def change(before: float, after: float) -> str:
    """-33 %: the relative change, with two digits below ten per cent. Empty if nothing was there before."""
    if not before:
        return ""
    percent = 100 * (after - before) / before
    return signed(f"{percent:.{0 if abs(percent) >= 9.95 else 1}f} %")


def chance(p: float | None) -> str:
    """A p-value: 0.034, < 0.001."""
    if p is None:
        return "–"
    return "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def blocks(indices: list[int]) -> str:
    """3-6, 9: runs of neighbours joined by a dash; "none" if there are none."""
    runs: list[list[int]] = []
    for i in sorted(indices):
        if runs and runs[-1][-1] == i - 1:
            runs[-1] = [runs[-1][0], i]
        else:
            runs.append([i, i])
    ends = {0: "{0}", 1: "{0}, {1}"}
    return ", ".join(ends.get(b - a, "{0}–{1}").format(a, b) for a, b in runs) or "none"


def typeset(text: str) -> str:
    """For the page: a minus sign for a hyphen, a space that doesn't break before a unit."""
    return text.replace("-", "−").replace(" ", "\u00a0")
