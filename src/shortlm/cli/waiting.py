"""How long torch's threads spin while they wait for one another: set before torch is imported.

They spin for seconds by default, which takes the cores away from other processes just when these are busy: healing
a small model beside two of them ran at a ninth of its speed (benchmarks/spinning.py). Spinning a little costs nothing
on a quiet machine. Where the user has set any variable of OpenMP's, nothing is changed.
"""

from __future__ import annotations

import os

SPINS = "10000"


def spin_briefly() -> None:
    """Tell GNU's OpenMP, which torch's CPU build comes with; other runtimes don't read this variable."""
    if not any(name.startswith(("OMP_", "GOMP_")) for name in os.environ):
        os.environ["GOMP_SPINCOUNT"] = SPINS
