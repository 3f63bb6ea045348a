"""The best that the work allows: cheap ways first, dearer ones as long as the budget of block forwards lasts.

1. Every unit alone, for one-shot by perplexity; one-shot by scores that were given; the best run; lazy greedy.
2. All sets, if there are few enough; else a beam as wide as can be, and swaps of the best set while they help.
3. The sets that these ways end with, and the next best ones, on more text, if there is some: on little text the best
   of many sets is partly luck. Where a repair follows, the best of these are repaired and compared once more.
4. For whole blocks, lazy greedy over attention and FFN, which says what these would gain; the one-shot orders' smaller
   sets, which show how the loss grows.
"""

from __future__ import annotations

from collections.abc import Iterator

from shortlm.artifacts import AFTER_REPAIR
from shortlm.choose.beam import BEAM, beam
from shortlm.choose.exhaustive import sets_of
from shortlm.choose.greedy import GREEDY, WHOLE, greedy
from shortlm.choose.local_search import best_swap, swaps
from shortlm.choose.method import Asked, Call, Given, Method, call_forwards
from shortlm.choose.one_shot import first_of, growing
from shortlm.choose.question import Question
from shortlm.choose.runs import best_run, runs_of
from shortlm.choose.trials import Step, Trials
from shortlm.errors import PlanError
from shortlm.recipe.specs import Options
from shortlm.units import ATTENTION, FFN, Mask, Unit

MULTIPLE = 12  # times what plain scoring takes, without a budget
WIDTHS = (16, 8, 4, 2)
FINALISTS = 6  # sets that are compared on more text
REPAIRED = 3  # of these, sets that are compared after a repair, where one is to follow


def auto(trials: Trials, given: Given) -> Mask:
    """The set that is best in the end."""
    question, spending = trials.question, _Spending(trials, given["multiple"])
    orders = _one_shots(trials)
    if not question.finer and runs_of(question):
        with trials.trail("best run"):
            best_run(trials, {})
    with trials.trail("greedy"):
        greedy(trials, GREEDY.options.defaults)
    if (sets := _all_sets(question, spending.left)) and spending.allows(Call(sets, [WHOLE])):
        with trials.trail("exhaustive"):
            trials.losses(sets)
            trials.found(_best(trials))
    else:
        _beamed(trials, spending)
        _swapped(trials, spending)
    chosen = _confirmed(trials)
    if not question.finer:
        _finer(trials, spending, chosen)
    _smaller_sets(trials, spending, orders)
    with trials.trail("auto") as trail:  # which has spent all that was spent
        trail.started, trail.forwards = 0.0, trials.evaluator.forwards
        trials.found(chosen)
    return chosen


class _Spending:
    """The budget of block forwards."""

    def __init__(self, trials: Trials, multiple: int):
        self.trials, self.n_blocks = trials, trials.question.model.n_blocks
        self.most = trials.most_forwards or multiple * self.n_blocks * (self.n_blocks + 1) // 2
        if trials.after_repair and trials.most_forwards and (count := _repaired_sets(trials)) > 1:
            evaluator = trials.evaluator
            self.most -= int(trials.after_repair.block_forwards(count, self.n_blocks, evaluator.sequences))

    @property
    def left(self) -> int:
        """Block forwards that may still be spent."""
        return int(self.most - self.trials.evaluator.forwards)

    def allows(self, *calls: Call) -> bool:
        """Whether these calls still fit."""
        return sum(call_forwards(call, self.n_blocks) * call.times for call in calls) <= self.left


def _one_shots(trials: Trials) -> dict[str, list[Unit]]:
    """By perplexity, and by every criterion that has scored these units: the orders, by the names of their trails."""
    question = trials.question
    with trials.trail("one-shot ppl"):
        masks = {unit: question.grown(WHOLE, unit) for unit in question.free}
        losses = dict(zip(masks, trials.losses(list(masks.values()), keep=[WHOLE]), strict=True))
        orders = {"one-shot ppl": sorted(losses, key=lambda unit: (losses[unit], unit))}
        _try_first_of(trials, orders["one-shot ppl"])
    for name, order in question.orders().items():
        if name != "ppl":
            with trials.trail(f"one-shot {name}"):
                orders[f"one-shot {name}"] = order
                _try_first_of(trials, order)
    return orders


def _try_first_of(trials: Trials, order: list[Unit]) -> None:
    removed = first_of(trials.question, order)
    trials.losses([removed])
    trials.found(removed)


def _smaller_sets(trials: Trials, spending: _Spending, orders: dict[str, list[Unit]]) -> None:
    """The sets of fewer units by each order, which show how the loss grows, as far as the work allows."""
    for trail in trials.trails:
        if trail.name in orders:
            smaller = growing(trials.question, orders[trail.name])[:-1]
            if spending.allows(Call([mask for mask in smaller if not trials.knows(mask)])):
                trials.ask(smaller)
                trail.steps[:0] = [Step(mask, trail.steps[-1].forwards) for mask in smaller]


def _all_sets(question: Question, forwards: int) -> list[Mask]:
    """None if there are more than can be afforded: nearly each takes a block forward of its own."""
    try:
        return sets_of(question, max(1, forwards))
    except PlanError:
        return []


def _beamed(trials: Trials, spending: _Spending) -> None:
    for width in WIDTHS:
        asked = Asked("beam", f"beam:width={width}", BEAM, {"width": width})
        if spending.allows(*BEAM.calls(trials.question, asked.given)):
            with trials.trail(asked.spec):
                beam(trials, asked.given)
            return


def _swapped(trials: Trials, spending: _Spending) -> None:
    removed = _best(trials)
    with trials.trail("local search"):
        trials.found(removed)
        while spending.allows(Call([m for m in swaps(trials.question, removed) if not trials.knows(m)], [removed])):
            better = best_swap(trials, removed)
            if better is None:
                return
            removed = better
            trials.found(removed)
    trials.notes.append("swaps of the best set were not tried to the end: the budget of work was spent")


def _best(trials: Trials) -> Mask:
    return min(_answers(trials), key=lambda mask: (trials.loss(mask), sorted(mask)))


def _answers(trials: Trials) -> list[Mask]:
    return [mask for mask in trials.known if trials.question.met(mask)]


def _confirmed(trials: Trials) -> Mask:
    """The best of the ways' last sets and of the runners-up, on more text where there is some."""
    ends = [trail.steps[-1].mask for trail in trials.trails if trail.steps]
    ranked = sorted(_answers(trials), key=lambda mask: (trials.loss(mask), sorted(mask)))
    finalists = sorted({*(m for m in ends if trials.question.met(m)), *ranked[:FINALISTS]}, key=trials.loss)[:FINALISTS]
    return _after_repair(trials, trials.confirmed(finalists))


def _after_repair(trials: Trials, ranked: list[Mask]) -> Mask:
    """The best of these, of which the first is best as it is: the set that is best after a repair may be another."""
    count = min(_repaired_sets(trials), len(ranked))
    if trials.after_repair is None or count < 2:
        return ranked[0]
    losses = trials.after_repair.losses([sorted(mask) for mask in ranked[:count]])
    told = [f"{','.join(map(str, sorted(mask)))} {loss:.4f}" for mask, loss in zip(ranked, losses, strict=False)]
    trials.notes.append(f"{AFTER_REPAIR}: {'; '.join(told)}")
    return ranked[min(range(count), key=lambda n: losses[n])]


def _repaired_sets(trials: Trials) -> int:
    """How many are repaired: fewer where a budget of time was given and they would take more than half of it."""
    repair, evaluator = trials.after_repair, trials.evaluator
    if repair is None or trials.most_forwards is None:
        return REPAIRED
    half, asked = trials.most_forwards / 2, (evaluator.n_blocks, evaluator.sequences)
    return next((n for n in range(REPAIRED, 1, -1) if repair.block_forwards(n, *asked) <= half), 1)


def _finer(trials: Trials, spending: _Spending, chosen: Mask) -> None:
    """What attention and FFN apart would gain, at no more parameters kept."""
    model = trials.question.model
    if not (all(model.attention_parameters or [0]) and all(model.ffn_parameters or [0])):
        return  # they can't be told apart in every block
    finer, given = trials.question.at_least_as_small(chosen, (ATTENTION, FFN)), GREEDY.options.defaults
    if not finer.possible or not spending.allows(*_halved(GREEDY.calls(finer, given))):
        return
    with trials.asking(finer), trials.trail("greedy over attention and FFN"):
        greedy(trials, given)


def _halved(calls: Iterator[Call]) -> Iterator[Call]:
    """Lazy greedy asks for half of the candidates or less."""
    return (Call(call.masks[::2], call.kept, call.times) for call in calls)


def _calls(question: Question, given: Given) -> Iterator[Call]:
    """What is done in any case; the rest is bounded by the budget."""
    yield Call([question.grown(WHOLE, unit) for unit in question.free], [WHOLE])
    yield from GREEDY.calls(question, GREEDY.options.defaults)


AUTO = Method(
    auto, "the best that the work allows: one-shot, runs, greedy, all sets or a beam and swaps",
    Options({"multiple": MULTIPLE}, limits={"multiple": (1, 1_000_000)}), _calls, kept=lambda given: 3,
)  # fmt: skip
