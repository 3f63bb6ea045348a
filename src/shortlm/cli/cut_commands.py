"""The commands up to the shorter checkpoint: score, plan-memory, choose, cut."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from shortlm.cli.application import THE_MODEL, Force, Out, app, out_option
from shortlm.cli.card import add_card
from shortlm.cli.preset_options import preset_of
from shortlm.cli.result import hand_over, save_and_show, say
from shortlm.completing import models
from shortlm.options import the_model, with_settings
from shortlm.paths import user_path
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


@app.command(
    examples=[
        "shortlm score embedded",
        "shortlm score ./llama-7b --text t.jsonl --criteria ppl,taylor,bi:shortgpt --out scores.json",
        "shortlm score ./llama-7b --criteria ppl --units attention,ffn --dry-run",
    ]
)
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
    scores = do_score(model_settings, text_settings, score_settings, say)
    if is_main():
        save_and_show(scores, out, force, show_scores)


@app.command(
    "plan-memory",
    examples=["shortlm plan-memory ./llama-7b --sequences 64 --length 512", "shortlm plan-memory ./llama-7b --json"],
)
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
    save_and_show(estimate, out, force, show_work)


@app.command(
    examples=[
        "shortlm choose scores.json --criterion taylor --drop 25% --out plan.json",
        "shortlm choose ./llama-7b --text t.jsonl --method greedy --blocks 8 --out plan.json",
        "shortlm choose --published llama-1-7b/taylor --blocks 6",
    ]
)
@with_settings(ChooseSettings, SearchSettings, ModelSettings, TextSettings, only_given=True, model=None)
def choose(
    choose_settings: Any,
    search_settings: Any,
    model_settings: Any,
    text_settings: Any,
    what: Annotated[
        str | None,
        typer.Argument(
            metavar="SCORES|MODEL",
            help="The file that 'score' wrote (.json), where methods that ask the model may begin; or that model.",
            autocompletion=models,
        ),
    ] = None,
    published: Annotated[str | None, typer.Option(help="Published scores instead, e.g. llama-1-7b/taylor.")] = None,
    preset: Annotated[
        str | None, preset_of("choose", "Published settings of method, protection and text: sleb.")
    ] = None,
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

    given = model_settings.get("model")
    choose_settings, search_settings, model_settings, text_settings = choosing_of(
        preset, choose=choose_settings, search=search_settings, model=model_settings, text=text_settings
    )
    asking = asks(choose_settings.method) and not published
    scores = user_path(what) if what and (not asking or _is_file(what)) else None
    if not (asking or is_main()):  # reading scores is nothing to share
        return
    if out:
        refuse_existing(out, force)
    if repair and not (asking and compares_after_repair(choose_settings.method)):
        raise PlanError("--repair: is for --method auto, which compares its last sets after it; give it to 'cut' too")
    if asking:
        named = the_model(None if scores else what, given)
        model_settings = model_settings.model_copy(update={"model": named})
        start = BlockScores.load(scores) if scores else None
        plan = search(
            model_settings, text_settings, choose_settings, search_settings, say, start, out,
            after_repair=_after_repair(repair, model_settings, text_settings, search_settings),
        )  # fmt: skip
    elif published and not scores:
        plan = do_choose(published_scores(published), choose_settings, published_source())
    elif scores and not published:
        plan = do_choose(BlockScores.load(scores), choose_settings, str(scores))
    else:
        known = ", ".join(published_names())
        raise PlanError(f"give a scores file, a --method that asks the model, or --published with one of: {known}")
    if is_main():
        save_and_show(plan, out, force, show_plan)


def _is_file(what: str) -> bool:
    """Whether scores are meant, not a model."""
    return what.endswith(".json") or user_path(what).is_file()


def _after_repair(method: str | None, model: Any, text: Any, search: Any) -> Any:
    from shortlm.recipe import Recipe
    from shortlm.repair import read_method
    from shortlm.run import AfterRepair

    if not method:
        return None
    read_method(method)
    repairing = RepairSettings(method=method)
    return AfterRepair(model, Recipe(text=text, search=search, repair=repairing).repair_text, repairing)


@app.command(
    examples=[
        "shortlm cut ./llama-7b --plan plan.json --out shorter",
        "shortlm cut embedded --remove 4,6.attention --out shorter",
        "shortlm cut ./llama-7b --remove 21-29 --repair auto --text t.jsonl --out shorter",
    ]
)
@with_settings(
    ModelSettings, CutSettings, TextSettings, RepairSettings, omit=("method", "sequences"), asks_model=THE_MODEL
)
def cut(
    model_settings: Any,
    cut_settings: Any,
    text_settings: Any,
    repair_settings: Any,
    out: Annotated[Path, out_option("The folder of the shorter checkpoint.")],
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
        manifest = do_cut(model_settings, the_plan, cut_settings, out, force)
        add_card(out)
        return hand_over(manifest, out, show=lambda: show_manifest(manifest, out))
    from shortlm.run import cut_repaired

    repairing = repair_settings.model_copy(update={"method": repair})
    repaired = cut_repaired(model_settings, the_plan, cut_settings, text_settings, repairing, out, force, say)
    add_card(out)

    def show() -> None:
        show_manifest(repaired, out)
        show_repair(repaired, out)

    hand_over(repaired, out, show=show)
