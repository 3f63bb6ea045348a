"""The stages of `run` in their order: where each leaves its output, and the key by which that counts as done.

A key is the hash of a stage's settings, its inputs and the keys of the stages before it; the first ones hold the
versions of what computes. All keys are known before anything is done.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from shortlm.artifacts import Artifact, Benchmark, BlockScores, CutPlan, Healing, Manifest, Measurement
from shortlm.checkpoint import locate
from shortlm.choose import asks, compares_after_repair
from shortlm.keys import fingerprint, key_of, measured_from, model_key, phase_keys, searched_on
from shortlm.recipe import Recipe, load_recipe, to_yaml
from shortlm.run.changes import setting_change, why_other
from shortlm.run.folder import Mark, Output, RunFolder, Say

MARK = Mark("recipe.yaml", "# Written by `shortlm run`: all settings of the run in this folder.\n", "run", 17)
FILES: dict[str, tuple[str, type[Artifact]]] = {
    "score": ("scores.json", BlockScores), "choose": ("plan.json", CutPlan),
    "evaluate dense": ("eval-dense.json", Measurement), "evaluate cut": ("eval-cut.json", Measurement),
    "evaluate repaired": ("eval-repaired.json", Measurement),
    "evaluate healed": ("eval-healed.json", Measurement), "bench": ("bench.json", Benchmark),
}  # fmt: skip
FOLDERS: dict[str, tuple[str, type[Artifact]]] = {  # checkpoints, and the artifact inside
    "cut": ("manifest.json", Manifest), "repair": ("manifest.json", Manifest), "heal": ("healing.json", Healing),
}  # fmt: skip


def _searched(recipe: Recipe) -> list[Any]:
    """The settings that count where the model is asked."""
    if not asks(recipe.choose.method):
        return []
    repaired = [recipe.repair] if recipe.repair and compares_after_repair(recipe.choose.method) else []
    return [recipe.search, recipe.text.sequences, *searched_on(recipe.text, recipe.search.mix), *repaired]


def run_folder(recipe: Recipe, out: Path, force: bool, say: Say) -> RunFolder:
    """The folder of a run with what every stage will leave there. Raises ModelError if there is no such model."""
    _, commit = locate(recipe.model.model, recipe.model.revision, weights=False)

    def why(artifact: Artifact) -> str:
        old = load_recipe(out / MARK.file).model_copy(update={"name": recipe.name, "source": recipe.source})
        return why_other(artifact, {recipe.model.model: commit}, setting_change(old, recipe))

    outputs = {name: _output(recipe, out, name, key) for name, key in stage_keys(recipe, commit).items()}
    return RunFolder(out, MARK, to_yaml(recipe), outputs, why, force, say)


def place(recipe: Recipe, number: int) -> str:
    """What stands before the names of a round's stages: its folder. The last round is in the run's own."""
    return "" if number == recipe.rounds else f"round-{number}/"


def _output(recipe: Recipe, out: Path, name: str, key: str) -> Output:
    """The last checkpoint of a round is its `model`."""
    at, _, stage = name.rpartition("/")
    if stage in FILES:
        file, kind = FILES[stage]
        return Output(out / at / file, kind, key)
    inside, kind = FOLDERS[stage]
    last = "heal" if recipe.heal else "repair" if recipe.repair else "cut"
    return Output(out / at / ("model" if stage == last else stage), kind, key, inside)


def stage_keys(recipe: Recipe, commit: str | None) -> dict[str, str]:
    """The key of every stage; `commit` is the model's on the hub."""
    dense = model = model_key(recipe.model, commit)
    scored = fingerprint(recipe.text.ids or recipe.text.text)
    keys, measured = {}, {"dense": dense}
    for number in range(1, recipe.rounds + 1):
        at = place(recipe, number)
        keys[f"{at}score"] = key_of(model, recipe.scored_text, scored, recipe.score)
        rounds = [number, recipe.rounds] if recipe.rounds > 1 else []
        keys[f"{at}choose"] = key_of(keys[f"{at}score"], recipe.choose, *_searched(recipe), *rounds)
        keys[f"{at}cut"] = model = measured["cut"] = key_of(keys[f"{at}choose"], recipe.cut)
        if recipe.repair:
            keys[f"{at}repair"] = model = measured["repaired"] = key_of(
                model, recipe.repair_text, scored, recipe.repair
            )
        if recipe.heal:
            keys[f"{at}heal"] = model = measured["healed"] = phase_keys(model, recipe.heal)[-1]
    evaluation = recipe.eval.model_copy(update={"texts": recipe.eval_texts()})
    for name, key in measured.items():
        keys[f"evaluate {name}"] = key_of(key, evaluation, measured_from(evaluation))
    if recipe.bench:
        keys["bench"] = key_of(dense, model, recipe.bench)
    return keys
