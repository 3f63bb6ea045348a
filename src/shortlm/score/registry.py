"""The criteria by name, with what their options may be."""

from __future__ import annotations

from typing import Any

from shortlm.artifacts import MOST_BLOCKS
from shortlm.errors import ScoreError
from shortlm.recipe.specs import Options, read_spec
from shortlm.score.angular import Angular
from shortlm.score.baselines import Depth, Random
from shortlm.score.criterion import Criterion
from shortlm.score.ppl import Ppl
from shortlm.score.tokenwise import BlockInfluence, RelativeMagnitude, SquaredDifference
from shortlm.score.weights import REDUCTIONS, FirstOrder, Magnitude, Taylor

_KINDS = (
    Ppl,
    Taylor,
    BlockInfluence,
    Angular,
    Magnitude,
    RelativeMagnitude,
    SquaredDifference,
    FirstOrder,
    Random,
    Depth,
)
CRITERIA: dict[str, type[Criterion]] = {kind.name: kind for kind in _KINDS}
CHOICES = {
    "reduction": ("mean", "sum"), "last_state": ("pre-norm", "post-norm"),
    "weights": tuple(REDUCTIONS), "block": tuple(REDUCTIONS), "p": (1, 2),
}  # fmt: skip
LIMITS = {"batches": (1, 1_000_000), "first_start": (0, MOST_BLOCKS), "seed": (0, 2**62)}
KNOWN = {name: Options(kind.defaults, kind.presets, CHOICES, LIMITS) for name, kind in CRITERIA.items()}


def parse(spec: str) -> tuple[type[Criterion], dict[str, Any]]:
    """The criterion and its options. Raises ScoreError, naming the nearest known name."""
    name, options = read_spec(spec, "criterion", KNOWN, ScoreError)
    return CRITERIA[name], options
