"""Any checkpoints side by side: each is evaluated, all are benched in turns, and one page shows what came out.

Every artifact carries the hash of its settings and inputs, so that a comparison that was stopped goes on, and that one
more model costs only itself (and the bench, which has to run all of them together).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from shortlm.artifacts import Artifact, Benchmark, Measurement
from shortlm.bench import bench
from shortlm.checkpoint import short_names
from shortlm.errors import OutputError, RecipeError, ShortLMError
from shortlm.evaluate import evaluate
from shortlm.keys import fingerprint, key_of
from shortlm.recipe import BenchSettings, EvalSettings, ModelSettings, to_yaml
from shortlm.report import write_markdown, write_page, write_results

A = TypeVar("A", bound=Artifact)
Say = Callable[[str], object]


def compare(
    models: list[ModelSettings],
    evaluation: EvalSettings,
    benching: BenchSettings | None,
    out: Path | str,
    title: str = "Comparison",
    force: bool = False,
    say: Say = lambda line: None,
) -> Path:
    """Measure the models and draw report.html (returned), report.md, results.json and results.csv in the folder `out`.

    The first model is the reference. Raises OutputError if an output is there that was made otherwise and `force` is
    off, and whatever the stages raise.
    """
    if len(models) < 2:
        raise RecipeError("one model alone can't be compared; name two or more, the reference first")
    out, roles = Path(out).expanduser(), short_names([m.model for m in models])
    evaluation = evaluation.for_model(models[0].model)
    _claim(out, force)
    measured = []
    for number, (model, role) in enumerate(zip(models, roles, strict=True)):
        key = key_of(model, evaluation, role, _inputs(model, evaluation))
        path = out / f"eval-{number}.json"
        done = _kept(Measurement, path, key, say)
        measured.append(done or _saved(evaluate(model, evaluation, role, key), path, say))
    benched = None
    if benching:
        key = key_of(benching, roles, *models, [fingerprint(m.model) for m in models])
        path = out / "bench.json"
        benched = _kept(Benchmark, path, key, say) or _saved(bench(models, benching, roles, key, say), path, say)
    settings = to_yaml(evaluation) + (to_yaml(benching) if benching else "")
    page = write_page(
        out / "report.html", title=title, scores=None, plan=None, manifest=None, measurements=measured,
        benchmark=benched, settings_yaml=settings, force=True,
    )  # fmt: skip
    write_markdown(out / "report.md", title=title, plan=None, measurements=measured, benchmark=benched, force=True)
    write_results(out, measured, benched, force=True)
    return page


def _claim(out: Path, force: bool) -> None:
    """`out` is new, empty, or an earlier comparison."""
    if out.exists() and not out.is_dir():
        raise OutputError(f"{out}: is a file, a folder is needed; choose another --out")
    found = {path.name for path in out.iterdir()} if out.is_dir() else set()
    ours = any(name == "bench.json" or name.startswith("eval-") for name in found)
    if found and not ours:
        raise OutputError(f"{out}: the folder exists, is not empty and holds no comparison; choose another --out")
    if found and not force and "report.html" in found:
        raise OutputError(
            f"{out}: holds a comparison; give --force to renew it (what is unchanged is kept), or another --out"
        )


def _inputs(model: ModelSettings, evaluation: EvalSettings) -> list:
    texts = [fingerprint(text.ids or text.text) for text in evaluation.with_local_texts().texts]
    files = [fingerprint(file) for file in evaluation.local_files().values()]
    return [fingerprint(model.model), texts, files]


def _kept(kind: type[A], path: Path, key: str, say: Say) -> A | None:
    try:
        found = kind.load(path)
    except ShortLMError:
        return None
    provenance = getattr(found, "provenance", None)
    if provenance is None or provenance.key != key:
        return None
    say(f"kept {path}")
    return found


def _saved(artifact: A, path: Path, say: Say) -> A:
    artifact.save(path, force=True)
    say(str(path))
    return artifact
