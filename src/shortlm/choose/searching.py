"""The verb for methods that ask the model: a budget, a model and text give a CutPlan."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from shortlm.artifacts import BlockScores, CutPlan, ModelFacts, provenance
from shortlm.checkpoint import locate
from shortlm.choose.auto import MULTIPLE
from shortlm.choose.budget import Cost, given_budget, read_budget
from shortlm.choose.costs import cache_cost, latency_cost
from shortlm.choose.method import Asked
from shortlm.choose.methods import asked, asks
from shortlm.choose.question import Choice, Question, question_of
from shortlm.choose.recording import recorded
from shortlm.choose.trials import AfterRepair, Trials
from shortlm.errors import PlanError, TextError
from shortlm.keys import key_of, model_key, searched_on
from shortlm.model import ModelFiles, facts_from_config, text_config, vocabulary
from shortlm.plans import plan_of
from shortlm.progress import is_main
from shortlm.recipe import ChooseSettings, ModelSettings, Plain, SearchSettings, TextSettings, settings_of
from shortlm.sizes import duration
from shortlm.sweep import Evaluator, Job, Recall, Say, Work, call_times, open_job
from shortlm.text import open_windows

ROUNDS = 16  # parts of the text, where losses are compared part by part
FIRST_SEQUENCES = 10  # of --sequences auto
LONG = 1e11  # products of weights and tokens, from which on calls are timed to say how long it takes


def search(
    model: ModelSettings | Plain, text: TextSettings | Plain | None = None,
    settings: ChooseSettings | Mapping[str, object] | None = None,
    how: SearchSettings | Mapping[str, object] | None = None,
    say: Say | None = None, scores: BlockScores | None = None, out: Path | None = None, reserved: int = 0,
    after_repair: AfterRepair | None = None,
) -> CutPlan:  # fmt: skip
    """A CutPlan within the budget, by a method that asks the model about sets of units.

    Under torchrun every process evaluates its share of the sequences. `say` is told what it will take. `scores` are
    where some methods begin. With `out`, the file that the plan goes to, an interrupted search is kept beside it, and
    the same search goes on from there. So many windows behind the text are `reserved` for a later evaluation: nothing
    is chosen by them. With `after_repair`, `auto` compares its last sets as they are once repaired. Raises ShortLMError
    for bad input.
    """
    model, text = settings_of(ModelSettings, model), settings_of(TextSettings, text)
    settings, how = settings_of(ChooseSettings, settings), settings_of(SearchSettings, how)
    say = say or (lambda line: None)
    method = asked(settings.method)
    facts = facts_from_config(model)  # before weights and text are opened
    question = question_before(settings, facts, lambda: cache_cost(model), scores)
    one = _Search(model, settings, how, method, question, say, scores, out, reserved, after_repair)
    if text.sequences != "auto":
        return one.plan(text, text.sequences)
    return _until_stable(one, text, how.most_sequences, say)


def _until_stable(one: _Search, text: TextSettings, most: int, say: Say) -> CutPlan:
    """Twice the text, until it chooses the same units as half of it, or is sure by itself, or the limit is reached."""
    count, before = min(FIRST_SEQUENCES, most), None
    while True:
        plan = one.plan(text.model_copy(update={"sequences": count}), most)
        assert plan.search is not None
        sure = plan.search.certainty
        stable = (before is not None and before.units == plan.units) or (sure is not None and sure.enough)
        if stable or 2 * count > most:
            why = "the choice is stable" if stable else f"the limit of {most}; the choice is not stable"
            say(f"--sequences auto: {count} sequences: {why}")
            notes = [*plan.search.notes, f"{count} sequences: {why}"]
            return plan.model_copy(update={"search": plan.search.model_copy(update={"notes": notes})})
        count, before = 2 * count, plan


class _Search:
    """A search that can be made on texts of several sizes."""

    def __init__(
        self, model: ModelSettings, settings: ChooseSettings, how: SearchSettings, method: Asked, question: Question,
        say: Say, scores: BlockScores | None, out: Path | None, reserved: int, after_repair: AfterRepair | None,
    ):  # fmt: skip
        self.model, self.settings, self.how, self.method, self.question = model, settings, how, method, question
        self.say, self.scores, self.out, self.reserved = say, scores, out, reserved
        self.after_repair = after_repair

    def plan(self, text: TextSettings, reach: int) -> CutPlan:
        """The plan by this text; what is held out begins behind `reach` windows."""
        started, (model, how) = time.perf_counter(), (self.model, self.how)
        with open_job(model, text, self._work, say=self.say, mix=how.mix) as job:
            trials, recall = self._trials(job, text, reach)
            held_out = self._behind(job, text, reach, how.held_out)
            self._say_before(trials, held_out)
            choice = self._choice(trials)
            if held_out is None and how.held_out:
                trials.notes.append("no text was left to hold out: how the sets do on other text is not known")
            told = recorded(trials, frozenset(choice.units), held_out, how.resamples)
            question = trials.question
            plan = plan_of(
                question.model, sorted(choice.units), self.method.spec, choice.criterion, question.budget.label,
                question.protected,
            )  # fmt: skip
            seconds = round(time.perf_counter() - started, 3)
            origin = provenance(str(job.opened.device), job.opened.dtype, seconds)
            recall.forget()
        return plan.model_copy(update={"scores": choice.scores, "search": told, "provenance": origin})

    def _trials(self, job: Job, text: TextSettings, reach: int) -> tuple[Trials, Recall]:
        how, method = self.how, self.method.method
        recall = Recall(self._folder(text), writes=job.ranks.rank == 0)
        evaluator = Evaluator(
            job, kept_bytes=job.kept_bytes, top_k=how.top_k if how.objective == "kl" else 0, recall=recall,
            rounds=ROUNDS if method.by_parts(self.method.given) else 1,
        )  # fmt: skip
        unseen = max(how.held_out, self.reserved)
        more = self._behind(job, text, reach + unseen, how.confirm) if self.method.name == "auto" else None
        trials = Trials(self._question(job), evaluator, more)
        trials.after_repair = self.after_repair
        if how.budget_minutes is not None:
            trials.most_forwards = self._affordable(job, evaluator, how.budget_minutes)
        return trials, recall

    def _choice(self, trials: Trials) -> Choice:
        name = self.method.name
        if name == "auto":
            found = self.method.method.search(trials, self.method.given)
        else:
            with trials.trail(self.method.spec):
                found = self.method.method.search(trials, self.method.given)
        if isinstance(found, Choice):
            return found
        return Choice(list(found), self.how.objective)

    def _work(self, files: ModelFiles, shape: tuple[int, int]) -> Work:
        given, method = self.method.given, self.method.method
        width = getattr(text_config(files.config), "hidden_size", 0)
        state = width * files.dtype.itemsize * shape[0] * shape[1]
        dense = 8 * self.how.top_k * shape[0] * shape[1] if self.how.objective == "kl" else 0
        return Work(
            *shape, masks=tuple(self.method.largest(self.question)), gradients=method.gradients(given), check=True,
            kept_bytes=state * (self.question.model.n_blocks - 1) * method.kept(given), held_bytes=dense,
        )  # fmt: skip

    def _question(self, job: Job) -> Question:
        """With what only the model itself can tell."""
        facts = job.opened.facts
        if self.settings.speed_up is None:
            return replace(self.question, model=facts)
        if job.opened.disk:
            raise PlanError("--speed-up is measured by decoding: the model has to fit in memory; give another budget")
        budget = read_budget(self.settings, facts, {"latency": latency_cost(job.opened)})
        question = question_of(self.settings, facts, budget, self.scores)
        question.refuse_impossible()
        return question

    def _behind(self, job: Job, text: TextSettings, skipped: int, count: int) -> Evaluator | None:
        """Text behind so many windows of that of the search; None if there is none."""
        if not count or text.ids is not None or not text.sequences:
            return None
        behind = text.for_model(self.model.model).model_copy(update={"skip": text.skip + skipped, "sequences": count})
        try:
            windows = open_windows(behind, job.opened.tokenizer, vocabulary(job.opened.model.config))
        except TextError:
            return None
        return Evaluator(job, check=False, windows=windows) if count >= job.ranks.size else None

    def _folder(self, text: TextSettings) -> Path | None:
        """Where what was asked is kept, by all that the answers depend on."""
        if self.out is None:
            return None
        _, commit = locate(self.model.model, self.model.revision, weights=False)
        read = searched_on(text, self.how.mix)
        key = key_of("search", model_key(self.model, commit), text, read, self.settings, self.how)
        return self.out.parent / f".{self.out.name}.search-{key[:12]}"

    def _affordable(self, job: Job, evaluator: Evaluator, minutes: float) -> int:
        """Block forwards over all sequences in that time, on the process that takes longest."""
        heads = 2 / self.question.model.n_blocks  # lm_head calls for each block forward of single removals
        return max(1, int(60 * minutes / job.ranks.most(self._seconds(evaluator, 1, heads))))

    def _seconds(self, evaluator: Evaluator, forwards: float, heads: float) -> float:
        """Of so many block forwards and lm_head calls over all sequences, which the processes share."""
        calls = evaluator.sequences / evaluator.batch / evaluator.job.ranks.size
        times = call_times(evaluator.job.opened, evaluator.batch, evaluator.windows.shape[1])
        return calls * (forwards * times.block + heads * times.head)

    def _say_before(self, trials: Trials, held_out: Evaluator | None) -> None:
        """What it will take, and how long where that is more than a moment."""
        evaluator, (forwards, heads) = trials.evaluator, self.method.work(trials.question)
        if self.method.name == "auto":
            most = max(forwards, trials.most_forwards or MULTIPLE * evaluator.n_blocks * (evaluator.n_blocks + 1) // 2)
            forwards, heads = most, heads * most // forwards
        line = f"search: {self.method.spec}, at most {forwards:,} block forwards over {evaluator.sequences:,} sequences"
        if forwards * evaluator.tokens * evaluator.job.opened.facts.block_parameters[0] > LONG:
            seconds = self._seconds(evaluator, forwards, heads)
            if held_out:  # about the sets of a greedy search
                steps = min(len(trials.question.free), evaluator.n_blocks // 2)
                seconds += self._seconds(held_out, steps * evaluator.n_blocks / 2, steps)
            line += f", about {duration(seconds)}"
        if is_main():
            self.say(line)


def question_before(
    settings: ChooseSettings, facts: ModelFacts, cache: Callable[[], Cost], scores: BlockScores | None = None
) -> Question:
    """What can be told from the config alone: a speed-up is asked of the model itself later. `cache` tells the cost of
    units in the KV cache. Raises PlanError for a budget, units or a protection that can't be.
    """
    _refuse_unread(settings, facts, scores)
    name, _ = given_budget(settings)
    costs: dict[str, Cost] = {"kv": cache()} if name == "drop_kv" else {}
    if name == "speed_up":  # by parameters, until it is measured
        costs["latency"] = lambda unit: facts.parameters_of(unit) / facts.parameters
    question = question_of(settings, facts, read_budget(settings, facts, costs), scores)
    method = asked(settings.method).method if asks(settings.method) else None
    if question.finer and method and method.blocks_only:
        given = ",".join(settings.units)
        raise PlanError(f"--method {settings.method}: is for whole blocks; with --units {given} take greedy or auto")
    if name != "speed_up":
        question.refuse_impossible()
    return question


def _refuse_unread(settings: ChooseSettings, facts: ModelFacts, scores: BlockScores | None) -> None:
    """What would be passed over in silence."""
    if settings.criterion and asks(settings.method):
        raise PlanError(
            f"--criterion {settings.criterion}: --method {settings.method} asks the model; give --method one-shot, "
            "or leave out the criterion"
        )
    if scores and scores.model.block_parameters != facts.block_parameters:
        raise PlanError(
            f"the scores are of {scores.model.name} ({scores.model.n_blocks} blocks), the model is {facts.name} "
            f"({facts.n_blocks} blocks); give --model {scores.model.name}"
        )
