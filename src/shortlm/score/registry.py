"""The criteria by name, and the little grammar: name, name:preset, name:key=value,key=value."""

from __future__ import annotations

import re
from typing import Any

from shortlm.artifacts import MOST_BLOCKS
from shortlm.errors import ScoreError, did_you_mean, shown
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


def parse(spec: str) -> tuple[type[Criterion], dict[str, Any]]:
    """The criterion and its options. Raises ScoreError, naming the nearest known name."""
    name, _, rest = spec.partition(":")
    if name not in CRITERIA:
        raise ScoreError(f"unknown criterion {shown(name)}; {did_you_mean(name, CRITERIA)}")
    kind = CRITERIA[name]
    if not rest:
        return kind, {}
    if "=" in rest:
        return kind, dict(_option(kind, spec, part) for part in rest.split(","))
    if rest not in kind.presets:
        known = did_you_mean(rest, kind.presets) if kind.presets else "it has none"
        raise ScoreError(f"criterion '{name}': unknown preset {shown(rest)}; {known}")
    return kind, kind.presets[rest]


def _option(kind: type[Criterion], spec: str, part: str) -> tuple[str, Any]:
    key, _, text = part.partition("=")
    if key not in kind.defaults:
        known = did_you_mean(key, kind.defaults) if kind.defaults else "it has none"
        raise ScoreError(f"criterion {shown(spec)}: unknown option {shown(key)}; {known}")
    value: Any = {"true": True, "false": False}.get(text, int(text) if re.fullmatch(r"-?[0-9]{1,18}", text) else text)
    allowed = CHOICES.get(key)
    if allowed and value not in allowed:
        raise ScoreError(f"criterion {shown(spec)}: {key} is {shown(text)}; known: {', '.join(map(str, allowed))}")
    if not allowed and isinstance(value, str):
        raise ScoreError(f"criterion {shown(spec)}: {key} is {shown(text)}; a whole number, true or false is needed")
    low, high = LIMITS.get(key, (None, None))
    if low is not None and not low <= value <= high:
        raise ScoreError(f"criterion {shown(spec)}: {key} is {value}; at least {low} is needed, at most {high:,}")
    return key, value
