"""The whole path: model + text -> score -> choose -> cut -> evaluate -> report.

Every stage writes its artifact into the run folder, with the hash of its settings and inputs (`key`). A
stage whose output is there with the same key is kept, so that a run that was killed goes on where it stopped.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from shortlm.artifacts import Artifact, BlockScores, CutPlan, Manifest, Measurement
from shortlm.choose import choose
from shortlm.cut import cut
from shortlm.errors import OutputError, ShortLMError
from shortlm.evaluate import evaluate
from shortlm.outputs import write_text
from shortlm.recipe import Recipe, Settings, load_recipe, to_yaml
from shortlm.report import model_card, write_page
from shortlm.score import score

A = TypeVar("A", bound=Artifact)
Say = Callable[[str], object]


def run(recipe: Recipe, out: Path | str, force: bool = False, say: Say = lambda line: None) -> Path:
    """Do all stages that are not done yet in the folder `out`; returns the path of its report.html.

    Raises OutputError if `out` holds a run with other settings or inputs (`force` redoes what differs), and
    whatever the stages raise. `say` gets one line per stage.
    """
    out = Path(out)
    _claim(out, recipe, force)
    do = _Stages(force, say)
    model, cut_model = recipe.model, recipe.model.model_copy(update={"model": str(out / "model"), "revision": None})
    evaluation = recipe.eval.model_copy(update={"texts": recipe.eval_texts()})
    texts = [_fingerprint(text.text, text.ids) for text in (recipe.text, *evaluation.texts)]
    root = _key(model, _fingerprint(model.model), recipe.text, texts[0])

    key = _key(root, recipe.score)
    scores = do.stage(
        "score", BlockScores, out / "scores.json", key, lambda: score(model, recipe.text, recipe.score)
    )
    key = _key(key, recipe.choose)
    plan = do.stage("choose", CutPlan, out / "plan.json", key, lambda: choose(scores, recipe.choose, "scores.json"))
    key = _key(key, recipe.cut)
    manifest = do.folder("cut", Manifest, out / "model", key, lambda: cut(model, plan, recipe.cut, out / "model", force, key))
    dense_key, cut_key = _key(root, evaluation, texts), _key(key, evaluation, texts)
    dense = do.stage(
        "evaluate dense", Measurement, out / "eval-dense.json", dense_key, lambda: evaluate(model, evaluation, "dense")
    )
    shorter = do.stage(
        "evaluate cut", Measurement, out / "eval-cut.json", cut_key, lambda: evaluate(cut_model, evaluation, "cut")
    )
    return do.report(out, recipe, scores, plan, manifest, [dense, shorter])


class _Stages:
    """Runs a stage, or keeps what is there; remembers whether anything was made."""

    def __init__(self, force: bool, say: Say):
        self.force, self.say, self.made = force, say, False

    def stage(self, name: str, kind: type[A], path: Path, key: str, make: Callable[[], A]) -> A:
        """The artifact at `path`, made and saved unless it is there with the same key."""
        kept = self._kept(name, kind, path, path, key)
        if kept is not None:
            return kept
        artifact: Any = make()
        artifact.provenance.key = key
        artifact.save(path, self.force)
        return self._told(name, path, artifact)

    def folder(self, name: str, kind: type[A], path: Path, key: str, make: Callable[[], A]) -> A:
        """The same for a checkpoint folder, whose manifest holds the key."""
        kept = self._kept(name, kind, path, path / "manifest.json", key)
        return kept if kept is not None else self._told(name, path, make())

    def _kept(self, name: str, kind: type[A], path: Path, artifact_path: Path, key: str) -> A | None:
        if not path.exists():
            return None
        try:
            artifact: Any = kind.load(artifact_path)
        except ShortLMError:
            artifact = None
        if artifact is not None and artifact.provenance.key == key:
            self.say(f"{name:15} kept {path}")
            return artifact
        if not self.force:
            raise OutputError(
                f"{path}: is there but was made with other settings or inputs; give --force to redo it, or another --out"
            )
        return None

    def _told(self, name: str, path: Path, artifact: Any) -> Any:
        self.made = True
        seconds = artifact.provenance.seconds
        self.say(f"{name:15} {path}" + (f" ({seconds:.1f} s)" if seconds else ""))
        return artifact

    def report(
        self, out: Path, recipe: Recipe, scores: BlockScores, plan: CutPlan, manifest: Manifest, measured: list[Measurement]
    ) -> Path:
        """Draw the page and the model card, unless they are there and nothing was made since."""
        page, card = out / "report.html", out / "model" / "README.md"
        if self.made or not (page.exists() and card.exists()):
            write_page(
                page, title=recipe.name, scores=scores, plan=plan, manifest=manifest, measurements=measured,
                settings_yaml=to_yaml(recipe), force=True,
            )  # fmt: skip
            base = None if Path(recipe.model.model).exists() or recipe.model.model == "embedded" else recipe.model.model
            text = model_card(manifest, measured, title=recipe.name, license=None, base_model=base)
            write_text(card, text, force=True)
        self.say(f"{'report':15} {page}")
        return page


def _claim(out: Path, recipe: Recipe, force: bool) -> None:
    """Make `out` the folder of this run. Raises OutputError if it holds something else."""
    settings = out / "recipe.yaml"
    if out.exists() and not out.is_dir():
        raise OutputError(f"{out}: is a file, a folder is needed; choose another --out")
    if out.is_dir() and any(out.iterdir()) and not settings.exists() and not force:
        raise OutputError(f"{out}: the folder exists, is not empty and holds no run; choose another --out")
    if settings.exists():
        change = _difference(load_recipe(settings), recipe)
        if change and not force:
            raise OutputError(
                f"{out}: holds a run with other settings ({change}); give --force to redo what differs, or another --out"
            )
    write_text(settings, to_yaml(recipe), force=True)


def _difference(old: Settings, new: Settings, path: str = "") -> str | None:
    """The first setting that differs, as 'choose.drop: 25%, now 50%'."""
    for name in type(old).model_fields:
        before, after = getattr(old, name), getattr(new, name)
        if isinstance(before, Settings) and (inner := _difference(before, after, f"{path}{name}.")):
            return inner
        if not isinstance(before, Settings) and before != after:
            return f"{path}{name}: {before}, now {after}"
    return None


def _key(*parts: Any) -> str:
    """Hash of settings, keys and fingerprints."""
    plain = [part.model_dump(mode="json") if isinstance(part, Settings) else part for part in parts]
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:16]


def _fingerprint(name: str, ids: str | None = None) -> list[Any]:
    """Names, sizes and times of the local files behind an input; the name alone for what is on the hub."""
    path = Path(ids or name).expanduser()
    if name == "embedded" and ids is None:
        return ["embedded"]
    files = sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path] if path.is_file() else []
    return [str(path.resolve()) if files else name] + [(p.name, (s := p.stat()).st_size, s.st_mtime_ns) for p in files]


