"""Sizes, counts and times as people write them: '6GiB', '5.5B' to numbers, and numbers to '1.53 GiB', '4 min 10 s'.

pydantic's ByteSize is not taken: it reads what its pattern begins with, '1,5GB' as one byte and '5.GB' as five.
"""

from __future__ import annotations

import math
import re

from shortlm.errors import PlanError, shortened

UNITS = {"": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12, "kib": 2**10, "mib": 2**20, "gib": 2**30}
MOST = 1e18  # more than there is of anything
COUNTS = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "t": 10**12}
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def byte_size(text: str) -> int:
    """Bytes. Raises ValueError if `text` is no size."""
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([a-z]*)\s*", text.lower())
    size = float(match[1]) * UNITS[match[2]] if match and match[2] in UNITS else 0.0
    if not 1 <= size <= MOST:
        raise ValueError("a size is needed, e.g. 5GB or 500MiB")
    return int(size)


def quantity(text: str) -> int:
    """'5.5B', '780M' or '5524115456'. Raises ValueError if `text` is no number of things."""
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([kmbt]?)\s*", text.lower().replace(",", "").replace("_", ""))
    number = float(match[1]) * COUNTS[match[2]] if match else 0.0
    if not 0 < number <= MOST:
        raise ValueError("a number is needed, e.g. 5.5B, 780M or 5524115456")
    return round(number)


def gib(size: float) -> str:
    """Bytes in binary units: 1.53 GiB, 12.3 MiB."""
    return _scaled(size, (("B", 2**0), ("KiB", 2**10), ("MiB", 2**20), ("GiB", 2**30), ("TiB", 2**40)))


def count(value: float) -> str:
    """1.77 M, 6.74 B; whole numbers below a thousand stay as they are."""
    return _scaled(value, (("", 1e0), ("K", 1e3), ("M", 1e6), ("B", 1e9), ("T", 1e12)))


def duration(seconds: float) -> str:
    """12.3 s, 4 min 10 s, 2 h 5 min, 3.2 days."""
    if not seconds < 1e9:  # nobody waited so long
        return f"{significant(seconds)} s"
    if 0 < seconds < 0.1:
        return f"{seconds * 1e3:.3g} ms"
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min" if minutes < 2 * 1440 else f"{minutes / 1440:.1f} days"


def significant(value: float, digits: int = 3) -> str:
    """3.02, 12.3, 123, 12,345; below 0.001 and from 10 million on with a power of ten."""
    if not math.isfinite(value):
        return {math.inf: "infinite", -math.inf: "-infinite"}.get(value, "not a number")
    if not value:
        return "0"
    if not 1e-3 <= abs(value) < 1e7:
        mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
        return f"{mantissa} × 10{str(int(exponent)).translate(SUPERSCRIPTS)}"
    return f"{value:,.{decimals(value, digits)}f}"


def decimals(value: float, digits: int) -> int:
    """Behind the point, so that so many digits are shown."""
    if not value:
        return digits - 1
    exponent = int(f"{abs(value):.{digits - 1}e}".split("e")[1])  # after rounding: 9.999 has 10's exponent
    return max(0, digits - 1 - exponent)


def _scaled(value: float, units: tuple[tuple[str, float], ...]) -> str:
    if not abs(value) < MOST:
        return significant(value)
    unit, scale = next((u for u in reversed(units) if float(f"{value / u[1]:.2e}") >= 1), units[0])
    number = f"{value:g}" if scale == 1 else f"{value / scale:.{decimals(value / scale, 3)}f}"
    return f"{number} {unit}".rstrip()


def share(text: str, name: str) -> float:
    """'25%' or '0.25' as 0.25. Raises PlanError unless it lies between 0 and 1."""
    number = re.fullmatch(r"\s*([0-9.]+)\s*(%?)\s*", text[:100])
    option = "--" + name.replace("_", "-")
    try:
        value = float(number[1]) / (100 if number[2] else 1) if number else -1.0
    except ValueError:
        value = -1.0
    if not 0 < value < 1:
        raise PlanError(
            f"{option} {shortened(text, 100)}: a share between 0 and 100% is needed, e.g. 25% "
            "(a number of blocks is --blocks)"
        )
    return value


def parameter_count(text: str) -> int:
    """'5.5B', '780M' or '5524115456'. Raises PlanError if it is none."""
    try:
        return quantity(text)
    except ValueError as error:
        raise PlanError(
            f"--to-params {shortened(text, 100)}: a parameter count is needed, e.g. 5.5B, 780M or 5524115456"
        ) from error
