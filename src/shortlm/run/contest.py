"""One model made smaller in several ways, at the same number of parameters, and all of them measured side by side.

Every way has a folder of its own, in which its stages are kept as those of `run`; the comparison of what comes out has
one too. So a contest that was stopped goes on, and one more way costs only itself (and the bench).
"""

from __future__ import annotations

import os
from pathlib import Path

from shortlm.artifacts import Healing, Manifest
from shortlm.checkpoint import locate
from shortlm.errors import RankError, RecipeError
from shortlm.keys import fingerprint, key_of, model_key, phase_keys
from shortlm.model import facts_from_config
from shortlm.paths import user_path
from shortlm.recipe import Contest, ModelSettings, Way, to_yaml
from shortlm.repair import repair, repairs_widths
from shortlm.run.changes import why_other
from shortlm.run.checks import check_inputs, check_settings
from shortlm.run.comparison import compare
from shortlm.run.folder import Mark, Output, RunFolder, Say
from shortlm.run.rounds import shorten
from shortlm.run.stages import run_folder
from shortlm.sizes import share
from shortlm.width import Sources, prune_width

MARK = Mark("contest.yaml", "# Written by `shortlm compare`: all settings of the contest in this folder.\n", "contest")
WIDTH_MARK = Mark("way.yaml", "# Written by `shortlm compare`: the settings of one way.\n", "way", 17)


def compare_ways(contest: Contest, out: Path | str, force: bool = False, say: Say = lambda line: None) -> Path:
    """Make the models, measure them and draw report.html (returned) in the folder `out`/comparison.

    Raises RankError under several processes, OutputError if the folder holds something else, and what the stages raise.
    """
    out = user_path(out)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise RankError("compare RECIPE.yaml: makes its models in one process; start it without torchrun")
    # 1. What the settings alone decide
    contest = contest.model_copy(update={"text": contest.text.for_model(contest.model.model)})
    recipes, left = [contest.recipe(way) for way in contest.ways], parameters_left(contest)
    for way, recipe in zip(contest.ways, recipes, strict=True):
        recipe.refuse_training_on_what_is_measured()
        check_settings(recipe)
        if way.width and way.repair and not repairs_widths(way.repair.method):
            raise RecipeError(f"way '{way.name}': repair by {way.repair.method} mends gaps between blocks; give refit")
        if way.width:
            Sources.of(contest.model, way.width.model_copy(update={"to_params": str(left)}))
    # 2. The folder; what would fail later fails now
    RunFolder(out, MARK, to_yaml(contest), {}, lambda artifact: "", force, say).claim()
    for way, recipe in zip(contest.ways, recipes, strict=True):
        check_inputs(recipe, out / "ways" / way.folder)
    # 3. Every way in turn
    models, names = [contest.model], ["dense"]
    for way, recipe in zip(contest.ways, recipes, strict=True):
        say(f"{way.name}:")
        if way.choose:
            folder = run_folder(recipe, out / "ways" / way.folder, force, say)
            folder.claim()
            models.append(shorten(folder, recipe).last.model)
        else:
            models.append(_narrowed(contest, way, left, out / "ways" / way.folder, force, say))
        names.append(way.name)
    # 4. All side by side
    evaluation = contest.eval.model_copy(update={"texts": recipes[0].eval_texts()})
    return compare(models, evaluation, contest.bench, out / "comparison", contest.name, force, say, names)


def parameters_left(contest: Contest) -> int:
    """Without that share of the blocks, of mean size, rounded as `choose` rounds it."""
    facts = facts_from_config(contest.model)
    blocks = max(1, int(share(contest.drop, "drop") * facts.n_blocks + 0.5))
    return facts.parameters - round(blocks * sum(facts.block_parameters) / facts.n_blocks)


def _narrowed(contest: Contest, way: Way, left: int, out: Path, force: bool, say: Say) -> ModelSettings:
    """The stages of a width: narrow, repair, heal."""
    assert way.width is not None
    recipe, settings = contest.recipe(way), way.width.model_copy(update={"to_params": str(left)})
    folder = _folder(contest, way, settings.to_params or "", out, force, say)
    folder.claim()
    dense = contest.model

    def at(name: str) -> ModelSettings:
        return dense.model_copy(update={"model": str(folder.outputs[name].path), "revision": None})

    output = folder.outputs["width"]
    folder.do("width", lambda: prune_width(dense, recipe.scored_text, settings, output.path, force, say, output.key))
    model, base = at("width"), output.key
    if (repairing := way.repair) is not None:
        narrow, target, earlier = model, folder.outputs["repair"], base
        folder.do("repair", lambda: repair(
            narrow, dense, recipe.repair_text, repairing, target.path, force=force, say=say, key=target.key,
            always=True, base=earlier,
        ))  # fmt: skip
        model, base = at("repair"), target.key
    if (healing := contest.heal) is not None:
        from shortlm.heal import heal

        start, healed, before = model, folder.outputs["heal"], base
        folder.do("heal", lambda: heal(start, healing, healed.path, force, say, before))
        model = at("heal")
    return model


def _folder(contest: Contest, way: Way, left: str, out: Path, force: bool, say: Say) -> RunFolder:
    _, commit = locate(contest.model.model, contest.model.revision, weights=False)
    recipe = contest.recipe(way)
    text, key = recipe.scored_text, model_key(contest.model, commit)
    key = key_of(key, text, fingerprint(text.ids or text.text), way.width, left)
    outputs = {"width": Output(out / "width", Manifest, key, "manifest.json")}
    if way.repair:
        key = key_of(key, recipe.repair_text, way.repair)
        outputs["repair"] = Output(out / "repair", Manifest, key, "manifest.json")
    if contest.heal:
        key = phase_keys(key, contest.heal)[-1]
        outputs["heal"] = Output(out / "heal", Healing, key, "healing.json")
    settings = to_yaml(recipe.model_copy(update={"repair": way.repair})) + (to_yaml(way.width) if way.width else "")
    by_name = {contest.model.model: commit}
    return RunFolder(
        out, WIDTH_MARK, settings, outputs, lambda artifact: why_other(artifact, by_name, None), force, say
    )
