"""The whole path: model + text -> score -> choose -> cut -> repair -> heal -> evaluate -> bench -> report.

Every stage writes its artifact into the run folder, and is kept where it is there with its key (folder.py), so that a
run that was killed goes on where it stopped.
"""

from __future__ import annotations

from pathlib import Path

from shortlm.artifacts import Benchmark, Measurement
from shortlm.bench import bench
from shortlm.evaluate import evaluate
from shortlm.paths import user_path
from shortlm.progress import is_main
from shortlm.recipe import Recipe, to_yaml
from shortlm.report import Evidence, History
from shortlm.run.checks import check_inputs, check_settings
from shortlm.run.drawing import draw, draw_card
from shortlm.run.folder import RunFolder, Say
from shortlm.run.processes import join, meet
from shortlm.run.rounds import Rounds, shorten
from shortlm.run.stages import run_folder


def run(recipe: Recipe, out: Path | str, force: bool = False, say: Say = lambda line: None) -> Path:
    """Do all stages that are not done yet in the folder `out`; returns the path of its report.html.

    Under torchrun the processes share scoring and healing; the first one does the rest.

    Raises OutputError if a stage's output is there but can't be read, or was made with other settings, inputs or
    versions (`force` redoes it), and whatever the stages raise. `say` gets one line per stage.
    """
    out = user_path(out)
    page = out / "report.html"
    # 1. What settings and config alone decide, before the folder is claimed and anything else is read
    recipe = recipe.model_copy(update={"text": recipe.text.for_model(recipe.model.model)})
    recipe.refuse_training_on_what_is_measured()
    if is_main():
        check_settings(recipe)
    # 2. The folder and the processes; what would fail later fails now
    folder = run_folder(recipe, out, force, say)
    join(recipe)
    if is_main():
        folder.claim()
        check_inputs(recipe, out)
    meet(recipe)
    # 3. Score, choose, cut, repair, heal; all processes
    rounds = shorten(folder, recipe)
    if not is_main():
        return page
    # 4. Quality and speed, before and after
    measured, benched = _measured(folder, recipe, rounds), _benched(folder, recipe, rounds)
    # 5. The page and the card
    card = out / "model" / "README.md"
    if folder.made_any or not page.exists() or not card.exists():
        evidence = _evidence(recipe, rounds, measured, benched)
        draw(out, evidence)
        draw_card(card.parent, evidence)
    say(f"{'report':17} {page}")
    return page


def _measured(folder: RunFolder, recipe: Recipe, rounds: Rounds) -> list[Measurement]:
    """The original, the cut, the repaired and the healed model."""
    evaluation = recipe.eval.model_copy(update={"texts": recipe.eval_texts()}).for_model(recipe.model.model)
    models = {"dense": recipe.model, **rounds.last.models}

    def measured(role: str) -> Measurement:
        return folder.do(f"evaluate {role}", lambda: evaluate(models[role], evaluation, role))

    return [measured(role) for role in models]


def _benched(folder: RunFolder, recipe: Recipe, rounds: Rounds) -> Benchmark | None:
    """The original beside the model that comes out (a repaired or healed model is as fast as the cut one).

    What can't be run here (too large for the memory, too short a context) is left out and said: the page is not lost.
    """
    if (settings := recipe.bench) is None:
        return None
    models, roles = [recipe.model, rounds.last.model], ["dense", list(rounds.last.models)[-1]]
    return folder.do_if_possible("bench", lambda: bench(models, settings, roles))


def _evidence(recipe: Recipe, rounds: Rounds, measured: list[Measurement], benched: Benchmark | None) -> Evidence:
    """Scores are those of the original; rounds count as one cut."""
    return Evidence(
        title=recipe.name, scores=rounds.first.scores, manifest=rounds.manifest(), healing=rounds.last.healing,
        measurements=measured, benchmark=benched, settings=to_yaml(recipe),
        histories={role: found for role, m in rounds.last.models.items() if (found := History.of(Path(m.model)))},
    )  # fmt: skip
