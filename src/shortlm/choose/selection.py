"""The verb for methods that read scores: a budget and scores give a CutPlan."""

from __future__ import annotations

from collections.abc import Mapping

from shortlm.artifacts import BlockScores, CutPlan
from shortlm.choose.budget import read_budget
from shortlm.choose.methods import READING, asks
from shortlm.choose.question import question_of
from shortlm.errors import PlanError, did_you_mean, shown
from shortlm.plans import plan_of
from shortlm.recipe import ChooseSettings, settings_of
from shortlm.units import BLOCK


def choose(
    scores: BlockScores, settings: ChooseSettings | Mapping[str, object] | None = None, source: str = ""
) -> CutPlan:
    """A CutPlan within the budget, from scores. Raises PlanError if the criterion wasn't scored or the budget can't
    be met.
    """
    settings = settings_of(ChooseSettings, settings)
    if asks(settings.method):
        raise PlanError(f"--method {settings.method}: asks the model; give --model (scores may stand beside it)")
    name = settings.criterion or next(iter(scores.criteria))
    if name not in scores.criteria:
        raise PlanError(f"criterion {shown(name)} was not scored; {did_you_mean(name, scores.criteria)}")
    if scores.units and "units" not in settings.model_fields_set:  # what was scored is what may go
        names = {BLOCK: "blocks"}
        parts = dict.fromkeys(names.get(unit.part, unit.part) for unit in scores.units)
        settings = settings.model_copy(update={"units": list(parts)})
    question = question_of(settings, scores.model, read_budget(settings, scores.model), scores)
    choice = READING[settings.method](question, name, scores.criteria[name])
    plan = plan_of(
        question.model, choice.units, settings.method, choice.criterion, question.budget.label, question.protected
    )
    return plan.model_copy(update={"scores": choice.scores, "agreement": choice.agreement, "source": source})
