"""Any checkpoints side by side: each is evaluated, all are benched in turns, and one page shows what came out.

Every artifact carries the hash of its settings and inputs, so that a comparison that was stopped goes on, and that one
more model costs only itself (and the bench, which has to run all of them together).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from shortlm.artifacts import Artifact, Benchmark, Measurement, kept
from shortlm.bench import bench, check_bench
from shortlm.checkpoint import short_names
from shortlm.errors import ModelError, OutputError, RecipeError
from shortlm.evaluate import check_evaluation, evaluate
from shortlm.keys import fingerprint, key_of, measured_from
from shortlm.outputs import write_text
from shortlm.paths import user_path
from shortlm.recipe import BenchSettings, EvalSettings, ModelSettings, to_yaml
from shortlm.report import headline, write_markdown, write_page, write_results
from shortlm.report.quality import trained_notes

Say = Callable[[str], object]
HEADER = "# Written by `shortlm compare`: all settings of the comparison in this folder.\n"


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

    The first model is the reference; without `benching` (None) only quality is measured. Raises OutputError if an
    output is there that was made otherwise and `force` is off, and whatever the stages raise. A bench that can't be run
    here is left out and said.
    """
    if len(models) < 2:
        raise RecipeError("one model alone can't be compared; name two or more, the reference first")
    evaluation = evaluation.for_model(models[0].model)
    work = _Comparison(models, evaluation, benching, user_path(out), say)
    work.claim(force)
    check_evaluation(models, evaluation)  # a wrong name is told before hours of work on the others
    if benching and benching.limits:
        check_bench(models, benching)
    measured = [work.measured(number) for number in range(len(models))]
    for note in trained_notes(measured):
        say(note)
    benched = work.benched()
    say(headline(None, None, measured, benched))
    return _drawn(work.out, title, measured, benched, work.settings)


def _drawn(out: Path, title: str, measured: list[Measurement], benched: Benchmark | None, settings: str) -> Path:
    page = write_page(
        out / "report.html", title=title, scores=None, plan=None, manifest=None, measurements=measured,
        benchmark=benched, settings_yaml=settings, force=True,
    )  # fmt: skip
    write_markdown(out / "report.md", title=title, plan=None, measurements=measured, benchmark=benched, force=True)
    write_results(out, measured, benched, force=True)
    return page


class _Comparison:
    """Does what is not there yet, each with its key."""

    def __init__(
        self, models: list[ModelSettings], evaluation: EvalSettings, benching: BenchSettings | None, out: Path, say: Say
    ):
        self.models, self.evaluation, self.benching, self.out, self.say = models, evaluation, benching, out, say
        self.roles = _distinct(short_names([m.model for m in models]))
        self.settings = to_yaml(evaluation) + (to_yaml(benching) if benching else "")
        inputs, prints = measured_from(evaluation), [fingerprint(m.model) for m in models]
        self.keys = {
            f"eval-{i}.json": key_of(model, evaluation, self.roles[i], prints[i], inputs)
            for i, model in enumerate(models)
        }
        if benching:
            self.keys["bench.json"] = key_of(benching, self.roles, *models, prints)

    def claim(self, force: bool) -> None:
        """Make `out` the folder of this comparison. Raises OutputError if that would replace something unasked."""
        mark = self.out / "comparison.yaml"
        if self.out.exists() and not self.out.is_dir():
            raise OutputError(f"{self.out}: is a file, a folder is needed; choose another --out")
        ours = mark.is_file() and mark.read_text(encoding="utf-8").startswith(HEADER)
        if self.out.is_dir() and any(self.out.iterdir()) and not ours:
            raise OutputError(f"{self.out}: the folder exists and holds no comparison; choose another --out")
        stale = [name for name in self.keys if (self.out / name).exists() and self._kept(name) is None]
        if stale and not force:
            raise OutputError(
                f"{self.out / stale[0]}: was made with other settings or inputs; give --force to redo what differs, "
                "or another --out"
            )
        write_text(mark, HEADER + self.settings, force=True)

    def measured(self, number: int) -> Measurement:
        """The evaluation of one model."""
        name, model, role = f"eval-{number}.json", self.models[number], self.roles[number]
        return self._done(name, lambda: evaluate(model, self.evaluation, role, self.keys[name]))

    def benched(self) -> Benchmark | None:
        """All models in turns."""
        settings = self.benching
        if settings is None:
            return None
        try:
            key = self.keys["bench.json"]
            return self._done("bench.json", lambda: bench(self.models, settings, self.roles, key, self.say))
        except ModelError as error:
            self.say(f"bench left out: {error}")
            return None

    def _done(self, name: str, make: Callable[[], Any]) -> Any:
        there = self._kept(name)
        if there is not None:
            self.say(f"kept {self.out / name}")
            return there
        artifact = make()
        artifact.save(self.out / name, force=True)
        self.say(str(self.out / name))
        return artifact

    def _kept(self, name: str) -> Any:
        kind: type[Artifact] = Benchmark if name == "bench.json" else Measurement
        return kept(kind, self.out / name, self.keys[name])


def _distinct(roles: list[str]) -> list[str]:
    """'dense' is the reference wherever it stands, so only the first model may have that name."""
    return [role if role != "dense" or not i else "dense (2)" for i, role in enumerate(roles)]
