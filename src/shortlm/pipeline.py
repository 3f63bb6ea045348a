"""The whole path: model + text -> score -> choose -> cut -> heal -> evaluate -> bench -> report.

Every stage writes its artifact into the run folder, with the hash of its settings and inputs (`key`). A
stage whose output is there with the same key is kept, so that a run that was killed goes on where it stopped.

With several rounds, each but the last has a folder round-1, round-2, ... of the same form in the run's; the model that
was cut and healed there is the next one's.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from shortlm.artifacts import Artifact, Benchmark, BlockScores, CutPlan, Healing, Manifest, Measurement, kept
from shortlm.artifacts.manifest import blocks_after
from shortlm.bench import bench, check_bench
from shortlm.choose import choose, refuse_infeasible
from shortlm.cut import cut, refuse_uncuttable
from shortlm.errors import ModelError, OutputError
from shortlm.evaluate import check_evaluation, evaluate
from shortlm.keys import fingerprint, key_of, measured_from, phase_keys
from shortlm.model import facts_from_config
from shortlm.outputs import write_text
from shortlm.paths import user_path
from shortlm.progress import is_main
from shortlm.recipe import ChooseSettings, ModelSettings, Recipe, Settings, load_recipe, to_yaml
from shortlm.report import model_card, write_markdown, write_page, write_results
from shortlm.score import parse, refuse_unraceable, score

Say = Callable[[str], object]
HEADER = "# Written by `shortlm run`: all settings of the run in this folder.\n"
KINDS: dict[str, type[Artifact]] = {
    "score": BlockScores, "choose": CutPlan, "cut": Manifest, "heal": Healing, "evaluate dense": Measurement,
    "evaluate cut": Measurement, "evaluate healed": Measurement, "bench": Benchmark,
}  # fmt: skip
FILES = {"score": "scores.json", "choose": "plan.json", "evaluate dense": "eval-dense.json",
         "evaluate cut": "eval-cut.json", "evaluate healed": "eval-healed.json", "bench": "bench.json"}  # fmt: skip
FOLDERS = {"cut": "manifest.json", "heal": "healing.json"}  # checkpoints, and the artifact inside


def run(recipe: Recipe, out: Path | str, force: bool = False, say: Say = lambda line: None) -> Path:
    """Do all stages that are not done yet in the folder `out`; returns the path of its report.html.

    Under torchrun the processes share scoring and healing; the first one does the rest.

    Raises OutputError if a stage's output is there but was made with other settings or inputs (`force`
    redoes it), and whatever the stages raise. `say` gets one line per stage.
    """
    out = user_path(out)
    recipe = recipe.model_copy(update={"text": recipe.text.for_model(recipe.model.model)})
    recipe.refuse_training_on_what_is_measured()
    if is_main():
        _refuse_infeasible(recipe)
    stages = _Stages(out, recipe, force, say)
    if recipe.heal or recipe.rounds > 1:
        _join(recipe)
    if is_main():
        stages.claim()
        if not (out / "model").exists():  # before hours of scoring
            refuse_uncuttable(recipe.model)
        check_evaluation([recipe.model], recipe.eval.model_copy(update={"texts": recipe.eval_texts()}))
        if recipe.heal:
            from shortlm.heal import check_healing

            check_healing(recipe.model, recipe.heal)
        if recipe.bench and recipe.bench.limits:
            check_bench([recipe.model], recipe.bench)
    _meet(recipe)
    model, first, wanted = recipe.model, None, 0
    for number in range(1, recipe.rounds + 1):
        made = _shorten(stages, recipe, number, model, wanted)
        first, model = first or made, made.model
        wanted = wanted or len(made.whole_plan.removed)
    if is_main():
        _prove(stages, recipe, first, made)
        say(f"{'report':15} {out / 'report.html'}")
    return out / "report.html"


def _refuse_infeasible(recipe: Recipe) -> None:
    """Tell what the settings and the config alone decide, before the folder is claimed and anything is read."""
    for spec in recipe.score.criteria:
        parse(spec)
    refuse_unraceable(recipe.score)
    recipe.eval_texts()
    refuse_infeasible(recipe.choose, recipe.score, facts_from_config(recipe.model), recipe.rounds)


class _Made:
    """What one round gave."""

    def __init__(self, scores: BlockScores, whole_plan: CutPlan, plan: CutPlan, manifest: Any, cut: ModelSettings):
        self.scores, self.whole_plan, self.plan, self.manifest = scores, whole_plan, plan, manifest
        self.cut = self.model = cut
        self.healing: Healing | None = None


def _shorten(stages: _Stages, recipe: Recipe, number: int, model: ModelSettings, wanted: int) -> _Made:
    """One round: score, choose this round's share of the `wanted` blocks, cut, heal. All processes call this."""
    at = "" if number == recipe.rounds else f"round-{number}/"
    scores = stages.do(f"{at}score", lambda: score(model, recipe.text, recipe.score, stages.say), shared=True)
    whole = choose(scores, recipe.choose) if not wanted else None
    wanted = wanted or len(whole.removed if whole else [])
    share = recipe.choose if recipe.rounds == 1 else _share(recipe, number, wanted)
    plan = stages.do(f"{at}choose", lambda: choose(scores, share, f"{at}scores.json"))
    folder = stages.path(f"{at}cut")
    manifest = stages.do(
        f"{at}cut", lambda: cut(model, plan, recipe.cut, folder, stages.force, stages.keys[f"{at}cut"])
    )
    _meet(recipe)
    shorter = model.model_copy(update={"model": str(folder), "revision": None})
    made = _Made(scores, whole or plan, plan, manifest, shorter)
    if recipe.heal:
        made.healing = stages.do(f"{at}heal", lambda: _healed(stages, recipe, shorter, at), shared=True)
        made.model = shorter.model_copy(update={"model": str(stages.path(f"{at}heal"))})
    return made


def _healed(stages: _Stages, recipe: Recipe, model: ModelSettings, at: str) -> Healing:
    from shortlm.heal import heal

    assert recipe.heal is not None
    return heal(model, recipe.heal, stages.path(f"{at}heal"), stages.force, stages.say, stages.keys[f"{at}cut"])


def _share(recipe: Recipe, number: int, wanted: int) -> ChooseSettings:
    """So many blocks go in this round; earlier rounds take the remainder."""
    count = wanted // recipe.rounds + (number <= wanted % recipe.rounds)
    return recipe.choose.model_copy(update={"blocks": count, "drop": None, "drop_params": None, "to_params": None})


def _prove(stages: _Stages, recipe: Recipe, first: Any, last: _Made) -> None:
    """Measure the original, the cut and the healed model, and draw the page and the card."""
    evaluation = recipe.eval.model_copy(update={"texts": recipe.eval_texts()}).for_model(recipe.model.model)
    measured = [stages.do("evaluate dense", lambda: evaluate(recipe.model, evaluation, "dense"))]
    measured.append(stages.do("evaluate cut", lambda: evaluate(last.cut, evaluation, "cut")))
    if last.healing:
        measured.append(stages.do("evaluate healed", lambda: evaluate(last.model, evaluation, "healed")))
    manifest = last.manifest if first is last else _whole_cut(first, last)
    benched = _benched(stages, recipe, last) if recipe.bench else None
    if stages.made or not (stages.out / "report.html").exists() or not (stages.out / "model" / "README.md").exists():
        _report(recipe, stages.out, first.scores, manifest, last.healing, measured, benched)


def _benched(stages: _Stages, recipe: Recipe, last: _Made) -> Benchmark | None:
    """The original beside the model that comes out (a healed model is as fast as the cut one).

    What can't be run here (too large for the memory, too short a context) is left out and said: the page is not lost.
    """
    assert recipe.bench is not None
    settings, models = recipe.bench, [recipe.model, last.model]
    roles = ["dense", "healed" if last.healing else "cut"]
    try:
        return stages.do("bench", lambda: bench(models, settings, roles))
    except ModelError as error:
        stages.say(f"{'bench':15} left out: {error}")
        return None


def _whole_cut(first: _Made, last: _Made) -> Manifest:
    """All rounds as one cut of the original; the equivalence check is that of the last one."""
    model, earlier = first.scores.model, first.manifest.steps[:-1]  # of a model that had been cut before this run
    left = blocks_after(last.manifest.steps[len(earlier) :], model.n_blocks)
    removed = [i for i in range(model.n_blocks) if i not in left]
    plan = first.whole_plan.model_copy(
        update={"removed": removed, "method": f"{first.plan.method}, in rounds", "agreement": None, "protected": [],
                "parameters_after": model.parameters - sum(model.block_parameters[i] for i in removed)}
    )  # fmt: skip
    step = last.manifest.last_cut.model_copy(update={"plan": plan, "bytes_before": first.manifest.bytes_before})
    return last.manifest.model_copy(update={"steps": [*earlier, step]})


def _report(
    recipe: Recipe, out: Path, scores: BlockScores, manifest: Manifest, healing: Healing | None,
    measured: list[Measurement], benched: Benchmark | None,
) -> None:  # fmt: skip
    """The page, report.md and the tables beside it, and the model card."""
    write_page(
        out / "report.html", title=recipe.name, scores=scores, plan=manifest.plan, manifest=manifest, healing=healing,
        measurements=measured, settings_yaml=to_yaml(recipe), benchmark=benched, force=True,
    )  # fmt: skip
    write_markdown(
        out / "report.md", title=recipe.name, plan=manifest.plan, measurements=measured, benchmark=benched, force=True
    )
    write_results(out, measured, benched, force=True)
    name = recipe.model.model
    base = None if name == "embedded" or Path(name).exists() else name
    card = model_card(
        manifest, measured, title=recipe.name, license=None, base_model=base, healing=healing, benchmark=benched
    )
    write_text(out / "model" / "README.md", card, force=True)


def _join(recipe: Recipe) -> None:
    from shortlm.heal import join_processes
    from shortlm.model import pick_device

    join_processes(pick_device(recipe.model.device))


def _meet(recipe: Recipe) -> None:
    """The first process cuts, all go on with what it has written."""
    if recipe.heal or recipe.rounds > 1:
        from shortlm.heal import wait_for_all

        wait_for_all()


class _Stages:
    """Does a stage, or keeps what is there; remembers whether anything was made."""

    def __init__(self, out: Path, recipe: Recipe, force: bool, say: Say):
        self.out, self.recipe, self.force, self.say, self.made = out, recipe, force, say, False
        self.keys = _keys(recipe)

    def claim(self) -> None:
        """Make `out` the folder of this run. Raises OutputError if that would replace something unasked."""
        settings = self.out / "recipe.yaml"
        if self.out.exists() and not self.out.is_dir():
            raise OutputError(f"{self.out}: is a file, a folder is needed; choose another --out")
        ours = settings.is_file() and settings.read_text(encoding="utf-8").startswith(HEADER)
        if self.out.is_dir() and any(self.out.iterdir()) and not ours:
            raise OutputError(f"{self.out}: the folder exists, is not empty and holds no run; choose another --out")
        stale = [name for name in self.keys if self.path(name).exists() and self._kept(name) is None]
        if stale and not self.force:
            change = _difference(load_recipe(settings), self.recipe) or "inputs changed"
            raise OutputError(
                f"{self.path(stale[0])}: was made with other settings or inputs ({change}); "
                "give --force to redo what differs, or another --out"
            )
        write_text(settings, HEADER + to_yaml(self.recipe), force=True)

    def do(self, name: str, make: Callable[[], Any], shared: bool = False) -> Any:
        """The stage's artifact: the one that is there with the same key, or a new one.

        What is not `shared` the first process does alone; the others get None.
        """
        if not (shared or is_main()):
            return None
        there = self._kept(name)
        if there is not None:
            self.say(f"{name:15} kept {self.path(name)}")
            return there
        artifact = make()
        self.made = True
        if not is_main():
            return artifact
        if name.rpartition("/")[2] not in FOLDERS:  # which hold their artifacts
            artifact.provenance.key = self.keys[name]
            artifact.save(self.path(name), self.force)
        seconds = artifact.provenance.seconds
        self.say(f"{name:15} {self.path(name)}" + (f" ({seconds:.1f} s)" if seconds else ""))
        return artifact

    def path(self, name: str) -> Path:
        """Where the stage's output is: the last checkpoint of a round is its `model`."""
        at, _, stage = name.rpartition("/")
        last = "heal" if self.recipe.heal else "cut"
        return self.out / at / ("model" if stage == last else FILES.get(stage, stage))

    def _kept(self, name: str) -> Any:
        stage = name.rpartition("/")[2]
        path = self.path(name)
        return kept(KINDS[stage], path / FOLDERS[stage] if stage in FOLDERS else path, self.keys[name])


def _keys(recipe: Recipe) -> dict[str, str]:
    """Every stage's key: the hash of its settings, its inputs and the keys of the stages before it."""
    texts = recipe.eval_texts()
    inputs = key_of(recipe.model, fingerprint(recipe.model.model))
    scored = fingerprint(recipe.text.ids or recipe.text.text)
    evaluation = recipe.eval.model_copy(update={"texts": texts})
    keys, model = {}, inputs
    for number in range(1, recipe.rounds + 1):
        at = "" if number == recipe.rounds else f"round-{number}/"
        keys[f"{at}score"] = key_of(model, recipe.text, scored, recipe.score)
        rounds = [number, recipe.rounds] if recipe.rounds > 1 else []
        keys[f"{at}choose"] = key_of(keys[f"{at}score"], recipe.choose, *rounds)
        keys[f"{at}cut"] = model = shorter = key_of(keys[f"{at}choose"], recipe.cut)
        if recipe.heal:
            keys[f"{at}heal"] = model = phase_keys(shorter, recipe.heal)[-1]
    measured = {"dense": inputs, "cut": shorter} | ({"healed": model} if recipe.heal else {})
    for name, key in measured.items():
        keys[f"evaluate {name}"] = key_of(key, evaluation, measured_from(evaluation))
    if recipe.bench:
        keys["bench"] = key_of(inputs, model, recipe.bench)
    return keys


def _difference(old: Settings, new: Settings, path: str = "") -> str | None:
    """The first setting that differs, as 'choose.drop: 25%, now 50%'."""
    for name in type(old).model_fields:
        before, after = getattr(old, name), getattr(new, name)
        if isinstance(before, Settings) and (inner := _difference(before, after, f"{path}{name}.")):
            return inner
        if not isinstance(before, Settings) and before != after:
            return f"{path}{name}: {before}, now {after}"
    return None
