"""The command line: one thin command per verb. Heavy imports stay inside the commands."""

from __future__ import annotations

import io
import os
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from shortlm.errors import ShortLMError
from shortlm.options import with_settings
from shortlm.progress import is_main
from shortlm.recipe import (
    ChooseSettings,
    CutSettings,
    EvalSettings,
    ModelSettings,
    PhaseSettings,
    Recipe,
    ScoreSettings,
    TextSettings,
    load_recipe,
    validated,
)  # fmt: skip


class OneLineErrors(TyperGroup):
    """Users' mistakes become one line and exit code 2; `--debug` shows where they were noticed."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except (ShortLMError, OSError, MemoryError, RuntimeError, KeyboardInterrupt) as error:
            if ctx.params.get("debug") or not (line := _line(error)):
                raise
            who = "shortlm" if is_main() else f"shortlm (rank {os.environ['RANK']})"
            typer.echo(f"{who}: {line}", err=True)
            if isinstance(error, KeyboardInterrupt):
                _leave()
            raise typer.Exit(2) from error


def _leave() -> None:
    """Exit with code 2 at once. All is cleaned up by now, and an interrupt that came while Python ran a string (as
    dataclasses do when modules are imported) would otherwise end the process by the signal, whatever we return.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(2)


def _line(error: BaseException) -> str | None:
    """What to tell the user; None for our own faults, which keep their traceback."""
    if isinstance(error, KeyboardInterrupt):
        return "stopped; nothing half-written was left, and the same command goes on with what was finished"
    if isinstance(error, MemoryError) or "out of memory" in str(error) or "can't allocate memory" in str(error):
        what = str(error).splitlines()[0][:120]
        return f"out of memory ({what}); try a smaller --length, --batch-size, or --micro-tokens of heal"
    if isinstance(error, OSError):
        return f"{error.filename or 'input or output'}: {error.strerror or error}"
    return " ".join(str(error).split()) if isinstance(error, ShortLMError) else None


app = typer.Typer(
    cls=OneLineErrors, add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False,
    rich_markup_mode="rich", help="Make language models shorter: score, choose, cut, heal, prove.",
)  # fmt: skip


def _expanded(path: Path | None) -> Path | None:
    """`--out=~/x` reaches us as it stands."""
    return path.expanduser() if path else None


Out = Annotated[Path | None, typer.Option("--out", "-o", callback=_expanded, help="Where the result goes.")]
Force = Annotated[bool, typer.Option("--force", help="Replace an output that exists.")]


def _version(show: bool) -> None:
    if show:
        from shortlm import __version__

        typer.echo(f"shortlm {__version__}")
        raise typer.Exit


def _presets(show: bool) -> None:
    if show:
        from shortlm.recipe import healing_of, preset_names

        for name in preset_names():
            typer.echo(f"{name:24} {healing_of(name, None, {}).name}")
        raise typer.Exit


SHARED = {"score", "heal", "run"}  # commands whose work several processes share; the others are rank 0's alone


@app.callback()
def main(
    ctx: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Make language models shorter: score, choose, cut, heal, prove."""
    if not is_main() and ctx.invoked_subcommand not in SHARED:
        raise typer.Exit
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal without ± must not cost the result
    signal.signal(signal.SIGTERM, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))


@app.command()
@with_settings(ModelSettings, TextSettings, ScoreSettings)
def score(
    model_settings: Any,
    text_settings: Any,
    score_settings: Any,
    out: Out = None,
    force: Force = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it would take, as plan-memory does.")] = False,
) -> None:
    """Score the blocks of a model by one or several criteria, in one pass over the text."""
    if dry_run:
        return _plan_memory(model_settings, text_settings, score_settings, out, force) if is_main() else None
    from shortlm.console import show_scores
    from shortlm.outputs import refuse_existing
    from shortlm.score import score as do_score

    if out:
        refuse_existing(out, force)
    scores = do_score(model_settings, text_settings, score_settings, lambda line: typer.echo(line, err=True))
    if not is_main():
        return
    _save(scores, out, force)
    show_scores(scores)


@app.command("plan-memory")
@with_settings(ModelSettings, TextSettings, ScoreSettings)
def plan_memory(
    model_settings: Any, text_settings: Any, score_settings: Any, out: Out = None, force: Force = False
) -> None:
    """Say what scoring would take for every criterion: memory, reading, computing, time. Needs only the config."""
    _plan_memory(model_settings, text_settings, score_settings, out, force)


def _plan_memory(model_settings: Any, text_settings: Any, score_settings: Any, out: Path | None, force: bool) -> None:
    from shortlm.console import show_work
    from shortlm.score import plan_memory

    plan = plan_memory(model_settings, text_settings, score_settings)
    _save(plan, out, force)
    show_work(plan)


@app.command()
@with_settings(ChooseSettings)
def choose(
    choose_settings: Any,
    scores: Annotated[Path | None, typer.Argument(help="The file that 'score' wrote.")] = None,
    published: Annotated[str | None, typer.Option(help="Published scores instead, e.g. llama-1-7b/taylor.")] = None,
    out: Out = None,
    force: Force = False,
) -> None:
    """Choose which blocks go, from scores of your own or from published ones."""
    from shortlm.artifacts import BlockScores
    from shortlm.choose import choose as do_choose
    from shortlm.choose import published_names, published_scores, published_source
    from shortlm.console import show_plan
    from shortlm.errors import PlanError

    if published and not scores:
        plan = do_choose(published_scores(published), choose_settings, published_source())
    elif scores and not published:
        plan = do_choose(BlockScores.load(scores), choose_settings, str(scores))
    else:
        raise PlanError(f"give a scores file, or --published with one of: {', '.join(published_names())}")
    _save(plan, out, force)
    show_plan(plan)


@app.command()
@with_settings(ModelSettings, CutSettings)
def cut(
    model_settings: Any,
    cut_settings: Any,
    out: Annotated[Path, typer.Option("--out", "-o", callback=_expanded, help="The folder of the shorter checkpoint.")],
    plan: Annotated[
        Path | None, typer.Option(help="A plan of 'choose', or the manifest.json of an earlier cut.")
    ] = None,
    remove: Annotated[str | None, typer.Option(help="Or the blocks by hand, as 3,7 or 21-29.")] = None,
    force: Force = False,
) -> None:
    """Write the checkpoint without the chosen blocks, and prove that it computes what it should."""
    from shortlm.artifacts import CutPlan, load_plan
    from shortlm.blocks import block_list
    from shortlm.console import show_manifest
    from shortlm.cut import cut as do_cut
    from shortlm.errors import PlanError

    if plan and remove is None:
        the_plan: CutPlan | list[int] = load_plan(plan)
    elif remove is not None and not plan:
        the_plan = block_list(remove, "--remove")
    else:
        raise PlanError("give the blocks to remove: --plan FILE or --remove 3,7")
    show_manifest(do_cut(model_settings, the_plan, cut_settings, out, force), out)


@app.command()
@with_settings(
    ModelSettings, PhaseSettings, only_given=True, omit=("model", "stream", "memory", "dtype", "data", "validate_on")
)
def heal(
    model_settings: Any,
    phase_settings: Any,
    model: Annotated[str, typer.Argument(help="The shortened checkpoint: a folder, a hub id, or 'embedded'.")],
    out: Annotated[Path, typer.Option("--out", "-o", callback=_expanded, help="The folder of the healed checkpoint.")],
    preset: Annotated[str | None, typer.Option(help="Published settings; --presets names them.")] = None,
    presets: Annotated[
        bool, typer.Option("--presets", callback=_presets, is_eager=True, help="Show the presets.")
    ] = False,
    recipe: Annotated[
        Path | None, typer.Option(help="A YAML file of phases; options are laid over every phase.")
    ] = None,
    data: Annotated[
        list[str] | None, typer.Option(help="Training data, again for each source: FILE or FILE:weight=2,kind=text.")
    ] = None,
    eval_text: Annotated[
        list[str] | None, typer.Option(help="A further text whose perplexity is watched; again for each.")
    ] = None,
    keep_adapter: Annotated[bool, typer.Option("--keep-adapter", help="Also keep the adapters.")] = False,
    report_to: Annotated[str | None, typer.Option(help="tensorboard, wandb, trackio.")] = None,
    log_every: Annotated[int | None, typer.Option(help="Steps between lines of log.jsonl.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what it would take: tokens, steps, memory, time.")
    ] = False,
    processes: Annotated[int, typer.Option(min=1, help="With --dry-run: for so many processes.")] = 1,
    tflops: Annotated[
        float | None,
        typer.Option(min=0, help="With --dry-run: TFLOP/s that each device reaches, instead of measuring."),
    ] = None,
    sharded: Annotated[bool, typer.Option("--sharded", help="With --dry-run: FSDP instead of DDP.")] = False,
    plan: Annotated[
        Path | None, typer.Option(callback=_expanded, help="With --dry-run: also write it as JSON.")
    ] = None,
    force: Force = False,
) -> None:
    """Train a shortened model so that it gets its quality back. Goes on where it was stopped."""
    from shortlm.console import show_heal_plan, show_healing
    from shortlm.heal import Cluster, plan_healing
    from shortlm.heal import heal as do_heal
    from shortlm.recipe import healing_of

    given = phase_settings | {"data": data or None, "validate_on": eval_text and [{"text": t} for t in eval_text]}
    given |= {"keep_adapter": keep_adapter or None, "report_to": report_to, "log_every": log_every}
    settings = healing_of(preset, recipe, {name: value for name, value in given.items() if value is not None})
    opened = validated(ModelSettings, model_settings | {"model": model})
    if dry_run:
        if is_main():
            planned = plan_healing(opened, settings, Cluster(processes, tflops, sharded))
            _save(planned, plan, force)
            show_heal_plan(planned)
        return
    healing = do_heal(opened, settings, out, force, lambda line: typer.echo(line, err=True) if is_main() else None)
    if is_main():
        show_healing(healing, out)


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
    _save(measurement, out, force)
    show_measurement(measurement)


@app.command()
def report(
    out: Annotated[Path, typer.Option("--out", "-o", callback=_expanded, help="The HTML page.")],
    scores: Annotated[Path | None, typer.Option(help="A file of 'score'.")] = None,
    plan: Annotated[Path | None, typer.Option(help="A file of 'choose'.")] = None,
    manifest: Annotated[Path | None, typer.Option(help="The manifest.json of a cut checkpoint.")] = None,
    evals: Annotated[
        list[Path] | None, typer.Option("--eval", help="A file of 'eval'; the first is the reference.")
    ] = None,
    title: Annotated[str, typer.Option(help="Title of the page.")] = "shortlm report",
    force: Force = False,
) -> None:
    """Draw one self-contained HTML page from the files of the other commands."""
    from shortlm.artifacts import BlockScores, CutPlan, Manifest, Measurement
    from shortlm.errors import OutputError
    from shortlm.report import write_page

    if not (scores or plan or manifest or evals):
        raise OutputError("nothing to report; give --scores, --plan, --manifest or --eval")
    cut_by = Manifest.load(manifest) if manifest else None
    chosen = CutPlan.load(plan) if plan else cut_by.plan if cut_by else None
    page = write_page(
        out, title=title, scores=BlockScores.load(scores) if scores else None, plan=chosen, manifest=cut_by,
        measurements=[Measurement.load(path) for path in evals or []], settings_yaml="", force=force,
    )  # fmt: skip
    typer.echo(page)


@app.command()
@with_settings(
    ModelSettings,
    TextSettings,
    ScoreSettings,
    ChooseSettings,
    CutSettings,
    EvalSettings,
    omit=("texts",),
    only_given=True,
)
def run(
    model_settings: Any,
    text_settings: Any,
    score_settings: Any,
    choose_settings: Any,
    cut_settings: Any,
    eval_settings: Any,
    recipe: Annotated[Path | None, typer.Argument(help="A YAML recipe; options given here are laid over it.")] = None,
    out: Annotated[Path, typer.Option("--out", "-o", callback=_expanded, help="The run's folder.")] = Path(
        "shortlm-run"
    ),
    eval_text: Annotated[
        list[str] | None, typer.Option(help="Text for perplexity, instead of held-out --text.")
    ] = None,
    heal: Annotated[str | None, typer.Option(help="Heal after the cut: a preset of 'heal' or a YAML recipe.")] = None,
    heal_data: Annotated[list[str] | None, typer.Option(help="Training data for it; again for each source.")] = None,
    rounds: Annotated[int | None, typer.Option(min=1, help="Prune and heal in so many rounds.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Redo the stages whose settings differ.")] = False,
) -> None:
    """The whole path in one command: score, choose, cut, heal, evaluate, report. Goes on where it was stopped."""
    from shortlm.pipeline import run as do_run

    base = load_recipe(recipe) if recipe else Recipe()
    given = {"model": model_settings, "text": text_settings, "score": score_settings, "choose": choose_settings,
             "cut": cut_settings, "eval": eval_settings}  # fmt: skip
    merged = _with_healing(_laid_over(base, given, eval_text), heal, heal_data, rounds)
    page = do_run(merged, out, force, typer.echo if is_main() else lambda line: None)
    if not is_main():
        return
    typer.echo(f"\nopen {page}")


def _laid_over(recipe: Recipe, given: dict[str, dict[str, Any]], eval_text: list[str] | None) -> Recipe:
    values = recipe.model_dump()
    budgets = {"blocks", "drop", "drop_params", "to_params"}
    if budgets & given["choose"].keys():  # a budget given here replaces the recipe's
        values["choose"] |= dict.fromkeys(budgets)
    for stage, options in given.items():
        values[stage] |= options
    if eval_text:
        base = values["text"] | {"skip": 0, "sequences": values["eval"]["held_out"], "ids": None}
        values["eval"]["texts"] = [base | {"text": text} for text in eval_text]
    return validated(Recipe, values)


def _with_healing(recipe: Recipe, heal: str | None, data: list[str] | None, rounds: int | None) -> Recipe:
    from shortlm.errors import RecipeError
    from shortlm.recipe import HealSettings, healing_of, laid_over

    given = {"data": data} if data else {}
    if heal:
        is_file = heal.endswith((".yaml", ".yml"))
        settings: HealSettings | None = healing_of(None if is_file else heal, Path(heal) if is_file else None, given)
    elif given and recipe.heal is None:
        raise RecipeError("--heal-data: nothing is healed; give --heal with a preset or a recipe")
    else:
        settings = recipe.heal and validated(HealSettings, laid_over(recipe.heal.model_dump(), given))
    return recipe.model_copy(update={"heal": settings, "rounds": rounds or recipe.rounds})


def _save(artifact: Any, out: Path | None, force: bool) -> None:
    if out:
        typer.echo(artifact.save(out, force))


if __name__ == "__main__":
    sys.exit(app())
