"""All ways of choosing. A new one is a file with a function, and a line here."""

from __future__ import annotations

from shortlm.choose.auto import AUTO
from shortlm.choose.beam import BEAM
from shortlm.choose.contiguous import contiguous
from shortlm.choose.evolutionary import EVOLUTIONARY
from shortlm.choose.exhaustive import EXHAUSTIVE
from shortlm.choose.greedy import GREEDY
from shortlm.choose.local_search import LOCAL_SEARCH
from shortlm.choose.method import Asked, Method
from shortlm.choose.one_shot import one_shot
from shortlm.choose.question import Reading
from shortlm.choose.race import RACE
from shortlm.choose.runs import RUNS
from shortlm.errors import PlanError
from shortlm.recipe.specs import Options, read_spec

READING: dict[str, Reading] = {"one-shot": one_shot, "contiguous": contiguous}
ASKING: dict[str, Method] = {
    "auto": AUTO, "greedy": GREEDY, "beam": BEAM, "evolutionary": EVOLUTIONARY, "local-search": LOCAL_SEARCH,
    "runs": RUNS, "exhaustive": EXHAUSTIVE, "race": RACE,
}  # fmt: skip
KNOWN = {**dict.fromkeys(READING, Options()), **{name: method.options for name, method in ASKING.items()}}


def asks(method: str) -> bool:
    """Whether a method asks the model. Raises PlanError, naming the nearest, for an unknown one or unknown options."""
    return read_spec(method, "method", KNOWN, PlanError)[0] in ASKING


def compares_after_repair(method: str) -> bool:
    """Whether a method compares its last sets as they are once repaired, where a repair is given. Raises PlanError."""
    return read_spec(method, "method", KNOWN, PlanError)[0] == "auto"


def asked(spec: str) -> Asked:
    """A method that asks the model, with its options. Raises PlanError, as for a method that reads scores."""
    name, given = read_spec(spec, "method", KNOWN, PlanError)
    if name not in ASKING:
        raise PlanError(f"--method {name}: reads scores; give the file that 'score' wrote")
    return Asked(name, spec, ASKING[name], given)
