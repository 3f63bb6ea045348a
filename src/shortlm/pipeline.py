"""The whole path: model + text -> score -> choose -> cut -> evaluate -> report.

Every stage writes its artifact into the run folder, with the hash of its settings and inputs (`key`). A
stage whose output is there with the same key is kept, so that a run that was killed goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from shortlm.artifacts import Artifact, BlockScores, CutPlan, Manifest, Measurement
from shortlm.choose import choose
from shortlm.cut import cut, refuse_uncuttable
from shortlm.errors import OutputError, ShortLMError
from shortlm.evaluate import evaluate
from shortlm.keys import fingerprint, key_of
from shortlm.outputs import write_text
from shortlm.progress import is_main
from shortlm.recipe import Recipe, Settings, load_recipe, to_yaml
from shortlm.report import model_card, write_page
from shortlm.score import score

Say = Callable[[str], object]
HEADER = "# Written by `shortlm run`: all settings of the run in this folder.\n"
OUTPUTS: dict[str, tuple[str, type[Artifact]]] = {
    "score": ("scores.json", BlockScores),
    "choose": ("plan.json", CutPlan),
    "cut": ("model/manifest.json", Manifest),
    "evaluate dense": ("eval-dense.json", Measurement),
    "evaluate cut": ("eval-cut.json", Measurement),
}


def run(recipe: Recipe, out: Path | str, force: bool = False, say: Say = lambda line: None) -> Path:
    """Do all stages that are not done yet in the folder `out`; returns the path of its report.html.

    Under torchrun the processes share the scoring; the first one does the rest.

    Raises OutputError if a stage's output is there but was made with other settings or inputs (`force`
    redoes it), and whatever the stages raise. `say` gets one line per stage.
    """
    out = Path(out).expanduser()
    recipe = recipe.model_copy(update={"text": recipe.text.for_model(recipe.model.model)})
    stages = _Stages(out, _keys(recipe), force, say)
    if not is_main():
        return _share_scoring(stages, recipe)
    stages.claim(recipe)
    model = recipe.model
    shorter = model.model_copy(update={"model": str(out / "model"), "revision": None})
    evaluation = recipe.eval.model_copy(update={"texts": recipe.eval_texts()})

    if not (out / "model").exists():  # before hours of scoring
        refuse_uncuttable(model)
    scores = stages.do("score", lambda: score(model, recipe.text, recipe.score, say))
    plan = stages.do("choose", lambda: choose(scores, recipe.choose, "scores.json"))
    manifest = stages.do("cut", lambda: cut(model, plan, recipe.cut, out / "model", force, stages.keys["cut"]))
    dense = stages.do("evaluate dense", lambda: evaluate(model, evaluation, "dense"))
    measured = [dense, stages.do("evaluate cut", lambda: evaluate(shorter, evaluation, "cut"))]
    if stages.made or not (out / "report.html").exists() or not (out / "model" / "README.md").exists():
        _report(recipe, out, scores, plan, manifest, measured)
    say(f"{'report':15} {out / 'report.html'}")
    return out / "report.html"


def _share_scoring(stages: _Stages, recipe: Recipe) -> Path:
    """What the other processes of a job do: the first one writes, and does what isn't shared."""
    if not stages.has("score"):
        score(recipe.model, recipe.text, recipe.score)
    return stages.out


def _report(
    recipe: Recipe, out: Path, scores: BlockScores, plan: CutPlan, manifest: Manifest, measured: list[Measurement]
) -> None:
    write_page(
        out / "report.html", title=recipe.name, scores=scores, plan=plan, manifest=manifest, measurements=measured,
        settings_yaml=to_yaml(recipe), force=True,
    )  # fmt: skip
    name = recipe.model.model
    base = None if name == "embedded" or Path(name).exists() else name
    card = model_card(manifest, measured, title=recipe.name, license=None, base_model=base)
    write_text(out / "model" / "README.md", card, force=True)


class _Stages:
    """Does a stage, or keeps what is there; remembers whether anything was made."""

    def __init__(self, out: Path, keys: dict[str, str], force: bool, say: Say):
        self.out, self.keys, self.force, self.say, self.made = out, keys, force, say, False

    def claim(self, recipe: Recipe) -> None:
        """Make `out` the folder of this run. Raises OutputError if that would replace something unasked."""
        settings = self.out / "recipe.yaml"
        if self.out.exists() and not self.out.is_dir():
            raise OutputError(f"{self.out}: is a file, a folder is needed; choose another --out")
        ours = settings.is_file() and settings.read_text(encoding="utf-8").startswith(HEADER)
        if self.out.is_dir() and any(self.out.iterdir()) and not ours:
            raise OutputError(f"{self.out}: the folder exists, is not empty and holds no run; choose another --out")
        stale = [name for name in OUTPUTS if self._path(name).exists() and self._kept(name) is None]
        if stale and not self.force:
            change = _difference(load_recipe(settings), recipe) or "inputs changed"
            raise OutputError(
                f"{self._path(stale[0])}: was made with other settings or inputs ({change}); "
                "give --force to redo what differs, or another --out"
            )
        write_text(settings, HEADER + to_yaml(recipe), force=True)

    def has(self, name: str) -> bool:
        """Whether the stage's output is there, made with the same settings and inputs."""
        return self._kept(name) is not None

    def do(self, name: str, make: Callable[[], Any]) -> Any:
        """The stage's artifact: the one that is there with the same key, or a new one."""
        kept = self._kept(name)
        if kept is not None:
            self.say(f"{name:15} kept {self._path(name)}")
            return kept
        artifact = make()
        if name != "cut":  # which writes its manifest with the checkpoint
            artifact.provenance.key = self.keys[name]
            artifact.save(self._path(name), self.force)
        self.made = True
        seconds = artifact.provenance.seconds
        self.say(f"{name:15} {self._path(name)}" + (f" ({seconds:.1f} s)" if seconds else ""))
        return artifact

    def _path(self, name: str) -> Path:
        path = self.out / OUTPUTS[name][0]
        return path.parent if name == "cut" else path

    def _kept(self, name: str) -> Any:
        file, kind = OUTPUTS[name]
        try:
            artifact: Any = kind.load(self.out / file)
        except ShortLMError:
            return None
        return artifact if artifact.provenance.key == self.keys[name] else None


def _keys(recipe: Recipe) -> dict[str, str]:
    """Every stage's key: the hash of its settings, its inputs and the keys of the stages before it."""
    texts = recipe.eval_texts()
    inputs = key_of(recipe.model, fingerprint(recipe.model.model))
    text_files = [fingerprint(text.ids or text.text) for text in (recipe.text, *texts)]
    keys = {"score": key_of(inputs, recipe.text, text_files[0], recipe.score)}
    keys["choose"] = key_of(keys["score"], recipe.choose)
    keys["cut"] = key_of(keys["choose"], recipe.cut)
    for name, model in (("evaluate dense", inputs), ("evaluate cut", keys["cut"])):
        keys[name] = key_of(model, recipe.eval, *texts, text_files)
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
