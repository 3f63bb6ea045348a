"""A way of choosing that asks the model: a function from trials to a set, its options, what it will ask."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from shortlm.choose.question import Choice, Question
from shortlm.choose.trials import Trials
from shortlm.recipe.specs import Options
from shortlm.sweep import count_forwards, path_of
from shortlm.units import Mask


class Call(NamedTuple):
    """Sets that are asked for together, the sets along which states have been kept, and how often such a call comes."""

    masks: Sequence[Mask]
    kept: Sequence[Mask] = ()
    times: int = 1


Given = Mapping[str, Any]


@dataclass(frozen=True)
class Method:
    """`search` gives the set that goes; `calls` what it will ask, as far as that can be told before (at most).

    Each of the sequences' parts is a round where losses are compared `by_parts`. `kept` is how many sets' states are
    kept from call to call, and `gradients` tells whether a backward sweep is made.
    """

    search: Callable[[Trials, Given], Mask | Choice]
    about: str
    options: Options
    calls: Callable[[Question, Given], Iterator[Call]]
    by_parts: Callable[[Given], bool] = lambda given: False
    kept: Callable[[Given], int] = lambda given: 0
    gradients: Callable[[Given], bool] = lambda given: False
    blocks_only: bool = False


@dataclass(frozen=True)
class Asked:
    """A method with its options."""

    name: str
    spec: str
    method: Method
    given: dict[str, Any] = field(default_factory=dict)

    def work(self, question: Question) -> tuple[int, int]:
        """Block forwards and lm_head calls, over all sequences, at most: the whole model, each call's prefix tree."""
        n_blocks, calls = question.model.n_blocks, list(self.method.calls(question, self.given))
        forwards = sum(call_forwards(call, n_blocks) * call.times for call in calls)
        return n_blocks + forwards, 1 + sum(len(call.masks) * call.times for call in calls)

    def largest(self, question: Question) -> list[Mask]:
        """The masks of the call that asks for most."""
        calls = self.method.calls(question, self.given)
        return list(max((call.masks for call in calls), key=len, default=()))


def call_forwards(call: Call, n_blocks: int) -> int:
    """Block forwards of one call, which begins with the states along the sets that were kept."""
    paths = [path_of(mask, n_blocks) for mask in call.kept]
    start = {b"", *(path[:i] for path in paths for i in range(1, n_blocks))}
    return count_forwards((path_of(mask, n_blocks) for mask in call.masks), start)
