"""The commands up to the shorter checkpoint: score, plan-memory, choose, cut."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from shortlm.cli.application import THE_MODEL, Force, Out, app, expanded, save
from shortlm.options import with_settings
from shortlm.progress import is_main
from shortlm.recipe import (
    ChooseSettings,
    CutSettings,
    ModelSettings,
    RepairSettings,
    ScoreSettings,
    SearchSettings,
    TextSettings,
    choosing_of,
)  # fmt: skip


@app.command()
@with_settings(ModelSettings, TextSettings, ScoreSettings, asks_model=THE_MODEL)
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

    if score_settings.select:
        from shortlm.choose import race_scores as do_score
    else:
        from shortlm.score import score as do_score

    if out:
        refuse_existing(out, force)
    scores = do_score(model_settings, text_settings, score_settings, lambda line: typer.echo(line, err=True))
    if not is_main():
        return
    save(scores, out, force)
    show_scores(scores)


@app.command("plan-memory")
@with_settings(ModelSettings, TextSettings, ScoreSettings, asks_model=THE_MODEL)
def plan_memory(
    model_settings: Any, text_settings: Any, score_settings: Any, out: Out = None, force: Force = False
) -> None:
    """Say what scoring would take for every criterion: memory, reading, computing, time. Needs only the config."""
    _plan_memory(model_settings, text_settings, score_settings, out, force)


def _plan_memory(model_settings: Any, text_settings: Any, score_settings: Any, out: Path | None, force: bool) -> None:
    from shortlm.console import show_work
    from shortlm.score import plan_memory

    estimate = plan_memory(model_settings, text_settings, score_settings)
    save(estimate, out, force)
    show_work(estimate)


@app.command()
@with_settings(ChooseSettings, SearchSettings, ModelSettings, TextSettings, only_given=True)
def choose(
    choose_settings: Any,
    search_settings: Any,
    model_settings: Any,
    text_settings: Any,
    scores: Annotated[
        Path | None, typer.Argument(help="The file that 'score' wrote; a method that asks the model may begin there.")
    ] = None,
    published: Annotated[str | None, typer.Option(help="Published scores instead, e.g. llama-1-7b/taylor.")] = None,
    preset: Annotated[str | None, typer.Option(help="Published settings of method, protection and text: sleb.")] = None,
    repair: Annotated[
        str | None, typer.Option(help="For auto: compare the last sets as they are after this method of 'repair'.")
    ] = None,
    out: Out = None,
    force: Force = False,
) -> None:
    """Choose what goes: from scores of your own or published ones, or by asking the model about sets of units."""
    from shortlm.artifacts import BlockScores
    from shortlm.choose import (
        asks,
        choose as do_choose,
        compares_after_repair,
        published_names,
        published_scores,
        published_source,
        search,
    )
    from shortlm.console import show_plan
    from shortlm.errors import PlanError
    from shortlm.outputs import refuse_existing

    choose_settings, search_settings, model_settings, text_settings = choosing_of(
        preset, choose=choose_settings, search=search_settings, model=model_settings, text=text_settings
    )
    asking = asks(choose_settings.method) and not published
    if not (asking or is_main()):  # reading scores is nothing to share
        return
    if out:
        refuse_existing(out, force)
    if repair and not (asking and compares_after_repair(choose_settings.method)):
        raise PlanError("--repair: is for --method auto, which compares its last sets after it; give it to 'cut' too")
    if asking:
        start = BlockScores.load(scores) if scores else None
        plan = search(
            model_settings, text_settings, choose_settings, search_settings, lambda line: typer.echo(line, err=True),
            start, out, after_repair=_after_repair(repair, model_settings, text_settings, search_settings),
        )  # fmt: skip
        if not is_main():
            return
    elif published and not scores:
        plan = do_choose(published_scores(published), choose_settings, published_source())
    elif scores and not published:
        plan = do_choose(BlockScores.load(scores), choose_settings, str(scores))
    else:
        known = ", ".join(published_names())
        raise PlanError(f"give a scores file, a --method that asks the model, or --published with one of: {known}")
    save(plan, out, force)
    show_plan(plan)


def _after_repair(method: str | None, model: Any, text: Any, search: Any) -> Any:
    from shortlm.recipe import Recipe
    from shortlm.repair import read_method
    from shortlm.run import AfterRepair

    if not method:
        return None
    read_method(method)
    repairing = RepairSettings(method=method)
    return AfterRepair(model, Recipe(text=text, search=search, repair=repairing).repair_text, repairing)


@app.command()
@with_settings(
    ModelSettings, CutSettings, TextSettings, RepairSettings, omit=("method", "sequences"), asks_model=THE_MODEL
)
def cut(
    model_settings: Any,
    cut_settings: Any,
    text_settings: Any,
    repair_settings: Any,
    out: Annotated[Path, typer.Option("--out", "-o", callback=expanded, help="The folder of the shorter checkpoint.")],
    plan: Annotated[
        Path | None, typer.Option(help="A plan of 'choose', or the manifest.json of an earlier cut.")
    ] = None,
    remove: Annotated[
        str | None, typer.Option(help="Or by hand: blocks and sublayers of blocks, as 3,21-29,12.attention.")
    ] = None,
    repair: Annotated[
        str | None, typer.Option(help="Repair it too, without training, by this method of 'repair', on --text.")
    ] = None,
    force: Force = False,
) -> None:
    """Write the checkpoint without the chosen blocks, and check that it computes what it should."""
    from shortlm.artifacts import CutPlan, load_plan
    from shortlm.console import show_manifest, show_repair
    from shortlm.cut import cut as do_cut
    from shortlm.errors import PlanError
    from shortlm.units import Unit, unit_list

    if plan and remove is None:
        the_plan: CutPlan | list[Unit] = load_plan(plan)
    elif remove is not None and not plan:
        the_plan = unit_list(remove, "--remove")
    else:
        raise PlanError("give the blocks to remove: --plan FILE or --remove 3,7")
    if not repair and (text_settings, repair_settings) != (TextSettings(), RepairSettings()):
        raise PlanError("options of the text and of its use are for --repair METHOD, which is not given")
    if not repair:
        return show_manifest(do_cut(model_settings, the_plan, cut_settings, out, force), out)
    from shortlm.run import cut_repaired

    repairing = repair_settings.model_copy(update={"method": repair})
    manifest = cut_repaired(
        model_settings, the_plan, cut_settings, text_settings, repairing, out, force,
        lambda line: typer.echo(line, err=True),
    )  # fmt: skip
    show_manifest(manifest, out)
    show_repair(manifest, out)
