"""Any checkpoints side by side: each is evaluated, all are benched in turns, and one page shows what came out.

A comparison that was stopped goes on, and one more model costs only itself (and the bench, which has to run all of
them together).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from shortlm.artifacts import Benchmark, Measurement
from shortlm.bench import bench, check_bench
from shortlm.checkpoint import locate, short_names
from shortlm.errors import RecipeError
from shortlm.evaluate import check_evaluation, evaluate
from shortlm.keys import key_of, measured_from, model_key
from shortlm.paths import user_path
from shortlm.progress import is_main
from shortlm.recipe import BenchSettings, EvalSettings, ModelSettings, to_yaml
from shortlm.report import Evidence, History, headline
from shortlm.report.quality import trained_notes
from shortlm.run.changes import why_other
from shortlm.run.drawing import draw
from shortlm.run.folder import Mark, Output, RunFolder, Say

HEADER = "# Written by `shortlm compare`: all settings of the comparison in this folder.\n"
MARK = Mark("comparison.yaml", HEADER, "comparison")


def compare(
    models: list[ModelSettings],
    evaluation: EvalSettings,
    benching: BenchSettings | None,
    out: Path | str,
    title: str = "Comparison",
    force: bool = False,
    say: Say = lambda line: None,
    names: Sequence[str] = (),
) -> Path:
    """Measure the models and draw report.html (returned), report.md, results.json and results.csv in the folder `out`.

    The first model is the reference; `names` are what all are called, if not after their folders. Without `benching`
    (None) only quality is measured. Raises OutputError if an output is there that can't be read or was made otherwise
    and `force` is off, and whatever the stages raise. A bench that can't be run here is left out and said. Under
    torchrun the first process does it all.
    """
    out = user_path(out)
    # 1. The folder; a wrong name is told before hours of work on the others
    if len(models) < 2:
        raise RecipeError("one model alone can't be compared; name two or more, the reference first")
    if not is_main():
        return out / "report.html"
    evaluation, roles = (
        evaluation.for_model(models[0].model),
        _distinct(list(names) or short_names([m.model for m in models])),
    )
    settings = to_yaml(evaluation) + (to_yaml(benching) if benching else "")
    folder = _folder(models, roles, evaluation, benching, settings, out, force, say)
    folder.claim()
    histories = _histories(models, roles)
    check_evaluation(models, evaluation)
    if benching and benching.limits:
        check_bench(models, benching)
    # 2. Quality, one model after the other
    measured = [_measured(folder, i, model, evaluation, roles[i]) for i, model in enumerate(models)]
    for note in trained_notes(measured):
        say(note)
    # 3. Speed, all in turns
    benched: Benchmark | None = None
    if benching:
        benched = folder.do_if_possible("bench", lambda: bench(models, benching, roles, say=say))
    # 4. The page
    evidence = Evidence(title, measurements=measured, benchmark=benched, settings=settings, histories=histories)
    say(headline(evidence))
    return draw(out, evidence)


def _folder(
    models: list[ModelSettings], roles: list[str], evaluation: EvalSettings, benching: BenchSettings | None,
    settings: str, out: Path, force: bool, say: Say,
) -> RunFolder:  # fmt: skip
    """With a file and a key for every model, and one for all that are benched together."""
    commits = [locate(model.model, model.revision, weights=False)[1] for model in models]
    keys, inputs = [model_key(*pair) for pair in zip(models, commits, strict=True)], measured_from(evaluation)
    outputs = {
        f"eval-{i}": Output(out / f"eval-{i}.json", Measurement, key_of(key, evaluation, roles[i], inputs))
        for i, key in enumerate(keys)
    }
    if benching:
        outputs["bench"] = Output(out / "bench.json", Benchmark, key_of(benching, roles, keys))
    by_name = {model.model: commit for model, commit in zip(models, commits, strict=True)}
    return RunFolder(out, MARK, settings, outputs, lambda artifact: why_other(artifact, by_name, None), force, say)


def _measured(folder: RunFolder, number: int, model: ModelSettings, evaluation: EvalSettings, role: str) -> Measurement:
    return folder.do(f"eval-{number}", lambda: evaluate(model, evaluation, role))


def _distinct(roles: list[str]) -> list[str]:
    """'dense' is the reference wherever it stands, so only the first model may have that name."""
    return [role if role != "dense" or not i else "dense (2)" for i, role in enumerate(roles)]


def _histories(models: list[ModelSettings], roles: Sequence[str]) -> dict[str, History]:
    """What was done to those that shortlm wrote."""
    folders = [locate(model.model, model.revision, weights=False)[0] for model in models]
    return {role: found for role, folder in zip(roles, folders, strict=True) if (found := History.of(folder))}
