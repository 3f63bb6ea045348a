"""The verb: a budget, and scores or a model to ask, give a CutPlan."""

from __future__ import annotations

import time

from shortlm.artifacts import BlockScores, CutPlan, ModelFacts, provenance
from shortlm.choose.budget import read_budget
from shortlm.choose.methods import ASKING, READING, asks
from shortlm.choose.question import Choice, Question
from shortlm.errors import PlanError, did_you_mean, shown
from shortlm.model import facts_from_config
from shortlm.plans import plan_of
from shortlm.recipe import ChooseSettings, ModelSettings, TextSettings
from shortlm.sweep import Evaluator, Say, Work, open_job
from shortlm.units import protected_blocks


def choose(scores: BlockScores, settings: ChooseSettings, source: str = "") -> CutPlan:
    """A CutPlan within the budget, from scores. Raises PlanError if the criterion wasn't scored or the budget can't
    be met.
    """
    if asks(settings.method):
        raise PlanError(f"--method {settings.method}: asks the model and reads no scores; give --model, and no scores")
    name = settings.criterion or next(iter(scores.criteria))
    if name not in scores.criteria:
        raise PlanError(f"criterion {shown(name)} was not scored; {did_you_mean(name, scores.criteria)}")
    if scores.units:
        raise PlanError(f"scores of sublayers ({scores.units[0]}, ...): blocks are chosen; score with --units blocks")
    question = question_of(settings, scores.model)
    choice = READING[settings.method](question, name, scores.criteria[name])
    return _plan(question, settings, choice).model_copy(update={"source": source})


def search(model: ModelSettings, text: TextSettings, settings: ChooseSettings, say: Say | None = None) -> CutPlan:
    """A CutPlan within the budget, by a method that asks the model about sets of units.

    Under torchrun every process evaluates its share of the sequences. `say` is told the schedule, if one had
    to be made. Raises ShortLMError for bad input.
    """
    if not asks(settings.method):
        raise PlanError(f"--method {settings.method}: reads scores; give the file that 'score' wrote")
    question_of(settings, facts_from_config(model)).count()  # before weights and text are opened
    started = time.perf_counter()

    def work(blocks: int, shape: tuple[int, int]) -> Work:
        return Work(*shape, removals=True, check=True)

    with open_job(model, text, work, say=say) as job:
        question, evaluator = question_of(settings, job.opened.facts), Evaluator(job)
        plan = _plan(question, settings, ASKING[settings.method](question, evaluator))
        seconds = round(time.perf_counter() - started, 3)
        origin = provenance(str(job.opened.device), job.opened.dtype, seconds)
        return plan.model_copy(update={"search": evaluator.search(), "provenance": origin})


def question_of(settings: ChooseSettings, model: ModelFacts) -> Question:
    """Raises PlanError for a budget or a protection that can't be."""
    return Question(model, read_budget(settings, model), protected_blocks(settings.protect, model.n_blocks))


def _plan(question: Question, settings: ChooseSettings, choice: Choice) -> CutPlan:
    plan = plan_of(
        question.model, choice.units, settings.method, choice.criterion, question.budget.label, question.protected
    )
    return plan.model_copy(update={"scores": choice.scores, "agreement": choice.agreement})
