"""The command `run`: a recipe, and what the command line lays over it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from shortlm.cli.application import app, force_option, out_option
from shortlm.cli.measure_commands import Local, Prompts, hand_over_page
from shortlm.cli.result import say_stage
from shortlm.completing import recipes
from shortlm.options import with_settings
from shortlm.progress import is_main
from shortlm.recipe import (
    BenchSettings,
    ChooseSettings,
    CutSettings,
    EvalSettings,
    ModelSettings,
    Recipe,
    ScoreSettings,
    SearchSettings,
    TextSettings,
    bench_of,
    load_recipe,
    validated,
)  # fmt: skip


@app.command(
    examples=[
        "shortlm run --drop 25%",
        "shortlm run ./llama-7b-recipe.yaml --out llama-run",
        "shortlm run --model ./llama-7b --text t.jsonl --drop 25% --heal shortened-llm-lora --heal-data alpaca.json",
    ]
)
@with_settings(
    ModelSettings,
    TextSettings,
    ScoreSettings,
    ChooseSettings,
    SearchSettings,
    CutSettings,
    EvalSettings,
    omit=("texts", "prompts", "local", "source", "name"),
    only_given=True,
)
def run(
    model_settings: Any,
    text_settings: Any,
    score_settings: Any,
    choose_settings: Any,
    search_settings: Any,
    cut_settings: Any,
    eval_settings: Any,
    recipe: Annotated[
        Path | None,
        typer.Argument(
            metavar="RECIPE",
            help="A YAML recipe, or one of 'shortlm recipes'; options lie over it.",
            autocompletion=recipes,
        ),
    ] = None,
    out: Annotated[Path, out_option("The run's folder.")] = Path("shortlm-run"),
    eval_text: Annotated[
        list[str] | None, typer.Option(help="Text for perplexity, instead of held-out --text.")
    ] = None,
    prompt: Prompts = None,
    local: Local = None,
    bench: Annotated[
        str | None, typer.Option(help="Preset or YAML file of 'bench'; 'default' (also without a recipe), or 'none'.")
    ] = None,
    repair: Annotated[
        str | None, typer.Option(help="Repair after the cut, without training, by this method of 'repair', or 'none'.")
    ] = None,
    heal: Annotated[str | None, typer.Option(help="Heal after the cut: a preset of 'heal' or a YAML recipe.")] = None,
    heal_data: Annotated[list[str] | None, typer.Option(help="Training data for it; again for each source.")] = None,
    rounds: Annotated[int | None, typer.Option(help="Prune and heal in so many rounds.")] = None,
    force: Annotated[bool, force_option("Redo the stages whose settings differ.")] = False,
) -> None:
    """The whole path: score, choose, cut, repair, heal, eval, bench, report. Goes on where it was stopped."""
    from shortlm.console import show_certainty
    from shortlm.run import run as do_run

    base = load_recipe(recipe) if recipe else Recipe(bench=BenchSettings())
    eval_settings |= {name: v for name, v in (("prompts", prompt), ("local", local)) if v}
    given = {"model": model_settings, "text": text_settings, "score": score_settings, "choose": choose_settings,
             "search": search_settings, "cut": cut_settings, "eval": eval_settings}  # fmt: skip
    base = base.model_copy(update={"bench": bench_of(bench)}) if bench else base
    base = _with_repair(base, repair)
    merged = _with_healing(_laid_over(base, given, eval_text, rounds), heal, heal_data)
    page = do_run(merged, out, force, say_stage)
    if is_main():
        hand_over_page(page, lambda: show_certainty(page.parent))


def _laid_over(
    recipe: Recipe, given: dict[str, dict[str, Any]], eval_text: list[str] | None, rounds: int | None
) -> Recipe:
    values = recipe.model_dump()
    values["rounds"] = rounds if rounds is not None else recipe.rounds
    budgets = {"blocks", "drop", "drop_params", "to_params", "drop_kv", "speed_up"}
    if budgets & given["choose"].keys():  # a budget given here replaces the recipe's
        values["choose"] |= dict.fromkeys(budgets)
    if ("criterion" in given["choose"] or "select" in given["score"]) and "method" not in given["choose"]:
        values["choose"]["method"] = "one-shot"  # which alone reads that
    for stage, options in given.items():
        values[stage] |= options
    if eval_text:
        base = values["text"] | {"skip": 0, "sequences": values["eval"]["held_out"], "ids": None}
        values["eval"]["texts"] = [base | {"text": text} for text in eval_text]
    return validated(Recipe, values)


def _with_repair(recipe: Recipe, method: str | None) -> Recipe:
    from shortlm.recipe import RepairSettings

    if method is None:
        return recipe
    settings = (recipe.repair or RepairSettings()).model_copy(update={"method": method})
    return recipe.model_copy(update={"repair": None if method == "none" else settings})


def _with_healing(recipe: Recipe, heal: str | None, data: list[str] | None) -> Recipe:
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
    return recipe.model_copy(update={"heal": settings})
