"""The commands that measure and show: eval, report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from shortlm.cli.application import Force, Out, app, expanded, save
from shortlm.options import with_settings
from shortlm.recipe import EvalSettings, ModelSettings, TextSettings


@app.command("eval")
@with_settings(ModelSettings, TextSettings, EvalSettings, omit=("texts", "held_out"), sequences=64)
def evaluate(
    model_settings: Any, text_settings: Any, eval_settings: Any, out: Out = None, force: Force = False
) -> None:
    """Measure a model: perplexity with its standard error, and a sample of its text."""
    from shortlm.console import show_measurement
    from shortlm.evaluate import evaluate as do_evaluate
    from shortlm.outputs import refuse_existing

    if out:
        refuse_existing(out, force)
    measurement = do_evaluate(model_settings, eval_settings.model_copy(update={"texts": [text_settings]}))
    save(measurement, out, force)
    show_measurement(measurement)


@app.command()
def report(
    out: Annotated[Path, typer.Option("--out", "-o", callback=expanded, help="The HTML page.")],
    scores: Annotated[Path | None, typer.Option(help="A file of 'score'.")] = None,
    plan: Annotated[Path | None, typer.Option(help="A file of 'choose'.")] = None,
    manifest: Annotated[Path | None, typer.Option(help="The manifest.json of a cut checkpoint.")] = None,
    healing: Annotated[Path | None, typer.Option(help="The healing.json of a healed checkpoint.")] = None,
    evals: Annotated[
        list[Path] | None, typer.Option("--eval", help="A file of 'eval'; the first is the reference.")
    ] = None,
    title: Annotated[str, typer.Option(help="Title of the page.")] = "shortlm report",
    force: Force = False,
) -> None:
    """Draw one self-contained HTML page from the files of the other commands."""
    from shortlm.artifacts import BlockScores, CutPlan, Healing, Manifest, Measurement
    from shortlm.errors import OutputError
    from shortlm.report import write_page

    if not (scores or plan or manifest or healing or evals):
        raise OutputError("nothing to report; give --scores, --plan, --manifest, --healing or --eval")
    cut_by = Manifest.load(manifest) if manifest else None
    chosen = CutPlan.load(plan) if plan else cut_by.plan if cut_by else None
    page = write_page(
        out, title=title, scores=BlockScores.load(scores) if scores else None, plan=chosen, manifest=cut_by,
        healing=Healing.load(healing) if healing else None,
        measurements=[Measurement.load(path) for path in evals or []], settings_yaml="", force=force,
    )  # fmt: skip
    typer.echo(page)
