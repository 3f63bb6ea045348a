"""Numbers as people read them: few digits, a unit, the error that goes with them.

Functions return plain ASCII where they can (so that the model card stays easy to edit); `typeset` gives
the page real minus signs and spaces that don't break.
"""

from __future__ import annotations

import math

SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def exp(value: float) -> float:
    """e to the power of `value`; infinite where floats end."""
    return math.exp(value) if value < 709 else math.inf


def significant(value: float, digits: int = 3) -> str:
    """3.02, 12.3, 123, 12,345; below 0.001 and from 10 million on with a power of ten."""
    if not math.isfinite(value):
        return {math.inf: "infinite", -math.inf: "-infinite"}.get(value, "not a number")
    if not value:
        return "0"
    if not 1e-3 <= abs(value) < 1e7:
        mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
        return f"{mantissa} × 10{str(int(exponent)).translate(SUPERSCRIPTS)}"
    return f"{value:,.{_decimals(value, digits)}f}"


def with_error(value: float, error: float | None) -> str:
    """3.021 ± 0.041: as many decimals as two digits of the standard error need; without one, four digits."""
    if not error or not math.isfinite(error) or error < 1e-7:
        return significant(value, 4)
    if max(abs(value), error) >= 1e7:
        return f"{significant(value)} ± {significant(error, 2)}"
    decimals = _decimals(error, 2)
    return f"{value:,.{decimals}f} ± {error:,.{decimals}f}"


def signed(text: str) -> str:
    """A plus in front of what is not negative."""
    return text if text.startswith("-") or text == "0" else f"+{text}"


def count(value: float) -> str:
    """1.77 M, 6.74 B; whole numbers below a thousand stay as they are."""
    return _scaled(value, (("", 1e0), ("K", 1e3), ("M", 1e6), ("B", 1e9), ("T", 1e12)))


def whole(value: int) -> str:
    """131,072."""
    return f"{value:,}"


def tick(value: float) -> str:
    """For an axis: as `count`, without zeros that say nothing."""
    number, _, unit = count(abs(value)).partition(" ")
    number = number.rstrip("0").rstrip(".") if "." in number else number
    return f"{'−' if value < 0 else ''}{number} {unit}".rstrip()


def size(value: float) -> str:
    """Bytes in decimal units: 3.54 MB."""
    return _scaled(value, (("B", 1e0), ("kB", 1e3), ("MB", 1e6), ("GB", 1e9), ("TB", 1e12)))


def change(before: float, after: float) -> str:
    """-33 %: the relative change, with two digits below ten per cent. Empty if nothing was there before."""
    if not before:
        return ""
    percent = 100 * (after - before) / before
    return signed(f"{percent:.{0 if abs(percent) >= 9.95 else 1}f} %")


def duration(seconds: float) -> str:
    """12.3 s, 4 min 10 s, 2 h 5 min."""
    if not seconds < 1e9:  # nobody waited so long
        return f"{significant(seconds)} s"
    if 0 < seconds < 0.1:
        return f"{seconds * 1e3:.3g} ms"
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


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


def _decimals(value: float, digits: int) -> int:
    if not value:
        return digits - 1
    exponent = int(f"{abs(value):.{digits - 1}e}".split("e")[1])  # after rounding: 9.999 has 10's exponent
    return max(0, digits - 1 - exponent)


def _scaled(value: float, units: tuple[tuple[str, float], ...]) -> str:
    if not abs(value) < 1e18:
        return significant(value)
    unit, scale = next((u for u in reversed(units) if float(f"{value:.2e}") >= u[1]), units[0])
    number = f"{value:g}" if scale == 1 else f"{value / scale:.{_decimals(value / scale, 3)}f}"
    return f"{number} {unit}".rstrip()
