"""Score, choose, cut, repair, heal: once, or in rounds that each take their share of the blocks.

With several rounds, each but the last has a folder round-1, round-2, ... of the same form in the run's; the model that
was cut and healed there is the next one's. All processes of a job go through here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from shortlm.artifacts import BlockScores, CutPlan, Healing, Manifest, blocks_after
from shortlm.choose import BUDGETS, asks, choose, compares_after_repair, race_scores, search
from shortlm.cut import cut
from shortlm.recipe import ChooseSettings, ModelSettings, Recipe
from shortlm.repair import repair
from shortlm.run.after_repair import AfterRepair
from shortlm.run.folder import Output, RunFolder
from shortlm.run.processes import meet
from shortlm.run.stages import place
from shortlm.score import score


@dataclass(frozen=True)
class Round:
    """What one round gave. Processes beside the first know the scores and the models alone."""

    scores: BlockScores
    plan: CutPlan
    manifest: Manifest
    models: dict[str, ModelSettings]  # by their roles: cut, repaired, healed, as far as there are
    healing: Healing | None

    @property
    def model(self) -> ModelSettings:
        """What comes out: the last of them."""
        return list(self.models.values())[-1]


@dataclass(frozen=True)
class Rounds:
    """All of them, and the one-shot choice by the first scores, which says how many blocks go in all."""

    whole: CutPlan
    done: list[Round]

    @property
    def first(self) -> Round:
        """Its scores are those of the original."""
        return self.done[0]

    @property
    def last(self) -> Round:
        """Its models come out."""
        return self.done[-1]

    def manifest(self) -> Manifest:
        """All rounds as one cut of the original; the equivalence check is that of the last one."""
        last = self.last.manifest
        if len(self.done) == 1:
            return last
        model, first = self.first.scores.model, self.first.manifest
        earlier = first.steps[: -2 if first.repair else -1]  # of a model that had been cut before this run
        left = blocks_after(last.steps[len(earlier) :], model.n_blocks)
        removed = [i for i in range(model.n_blocks) if i not in left]
        parameters = model.parameters - sum(model.block_parameters[i] for i in removed)
        plan = self.whole.model_copy(
            update={"removed": removed, "criterion": self.first.plan.criterion,
                    "method": f"{self.first.plan.method}, in rounds", "agreement": None,
                    "protected": [], "parameters_after": parameters}
        )  # fmt: skip
        assert last.last_cut is not None  # every round cuts
        step = last.last_cut.model_copy(update={"plan": plan, "bytes_before": first.bytes_before})
        return last.model_copy(update={"steps": [*earlier, step, *([last.repair] if last.repair else [])]})


def shorten(folder: RunFolder, recipe: Recipe) -> Rounds:
    """Every round in turn, each on the model that the one before it has left."""
    model, whole, done = recipe.model, None, []
    for number in range(1, recipe.rounds + 1):
        scores = _scored(folder, recipe, number, model)
        whole = whole or (choose(scores, _by_scores(recipe.choose)) if recipe.rounds > 1 else None)
        done.append(_shortened(folder, recipe, number, model, scores, _share(recipe, number, whole)))
        model = done[-1].model
    return Rounds(whole or done[0].plan, done)


def _scored(folder: RunFolder, recipe: Recipe, number: int, model: ModelSettings) -> BlockScores:
    name = f"{place(recipe, number)}score"
    make = race_scores if recipe.score.select else score
    return folder.do(name, lambda: make(model, recipe.scored_text, recipe.score, folder.say), shared=True)


def _by_scores(settings: ChooseSettings) -> ChooseSettings:
    return (
        settings.model_copy(update={"method": "one-shot", "criterion": None, "units": ["blocks"]})
        if asks(settings.method)
        else settings
    )


def _share(recipe: Recipe, number: int, whole: CutPlan | None) -> ChooseSettings:
    """So many blocks go in this round; earlier rounds take the remainder."""
    if recipe.rounds == 1:
        return recipe.choose
    assert whole is not None
    wanted = len(whole.removed)
    count = wanted // recipe.rounds + (number <= wanted % recipe.rounds)
    return recipe.choose.model_copy(update=dict.fromkeys(BUDGETS) | {"blocks": count})


def _shortened(
    folder: RunFolder, recipe: Recipe, number: int, model: ModelSettings, scores: BlockScores, share: ChooseSettings
) -> Round:
    """The rest of a round: choose, cut, repair, heal."""
    at = place(recipe, number)
    plan = folder.do(f"{at}choose", lambda: _chosen(folder, recipe, model, scores, share, at), asks(share.method))
    output = folder.outputs[f"{at}cut"]
    manifest = folder.do(f"{at}cut", lambda: cut(model, plan, recipe.cut, output.path, folder.force, output.key))
    meet(recipe)
    done, base = Round(scores, plan, manifest, {"cut": _at(model, output)}, None), output.key
    if recipe.repair:
        output = folder.outputs[f"{at}repair"]
        repaired = folder.do(f"{at}repair", lambda: _repaired(folder, recipe, done.model, output, base), shared=True)
        done = replace(done, manifest=repaired, models=done.models | {"repaired": _at(model, output)})
        meet(recipe)
    if recipe.heal:
        start, base, output = done.model, output.key, folder.outputs[f"{at}heal"]
        healing = folder.do(f"{at}heal", lambda: _healed(folder, recipe, start, output, base), shared=True)
        done = replace(done, healing=healing, models=done.models | {"healed": _at(model, output)})
    return done


def _at(model: ModelSettings, output: Output) -> ModelSettings:
    return model.model_copy(update={"model": str(output.path), "revision": None})


def _chosen(
    folder: RunFolder, recipe: Recipe, model: ModelSettings, scores: BlockScores, share: ChooseSettings, at: str
) -> CutPlan:
    if asks(share.method):
        out = folder.outputs[f"{at}choose"].path
        compares = compares_after_repair(share.method)
        repaired = AfterRepair(model, recipe.repair_text, recipe.repair) if recipe.repair and compares else None
        return search(model, recipe.text, share, recipe.search, folder.say, scores, out, recipe.eval.held_out, repaired)
    return choose(scores, share, f"{at}scores.json")


def _repaired(folder: RunFolder, recipe: Recipe, model: ModelSettings, output: Output, base: str) -> Manifest:
    """Against the model that the run began with. What makes it worse isn't delivered, and the run goes on."""
    assert recipe.repair is not None
    return repair(
        model, recipe.model, recipe.repair_text, recipe.repair, output.path, force=folder.force, say=folder.say,
        key=output.key, always=True, base=base,
    )  # fmt: skip


def _healed(folder: RunFolder, recipe: Recipe, model: ModelSettings, output: Output, base: str) -> Healing:
    from shortlm.heal import heal

    assert recipe.heal is not None
    return heal(model, recipe.heal, output.path, folder.force, folder.say, base)
