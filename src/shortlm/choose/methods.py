"""All ways of choosing. A new one is a file with a function, and a line here."""

from __future__ import annotations

from shortlm.choose.contiguous import contiguous
from shortlm.choose.one_shot import one_shot
from shortlm.choose.question import Asking, Reading
from shortlm.choose.race import race
from shortlm.errors import PlanError, did_you_mean

READING: dict[str, Reading] = {"one-shot": one_shot, "contiguous": contiguous}
ASKING: dict[str, Asking] = {"race": race}


def asks(method: str) -> bool:
    """Whether a method asks the model. Raises PlanError, naming the nearest, for an unknown one."""
    if method not in READING | ASKING:
        raise PlanError(f"--method {method}: unknown; {did_you_mean(method, [*READING, *ASKING])}")
    return method in ASKING
