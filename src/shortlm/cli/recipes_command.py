"""The command `recipes`: what comes with the package, shown and copied."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from shortlm.cli.application import HELP_NAMES, Application, Force, app, as_epilog, expanded
from shortlm.cli.result import AsJson, Quiet, hand_over, in_manner
from shortlm.cli.streams import print_line
from shortlm.completing import recipes as recipes_typed

recipes = Application(context_settings=HELP_NAMES, rich_markup_mode="rich")
app.add_typer(recipes, name="recipes", epilog=as_epilog(["shortlm recipes", "shortlm recipes --json"]))
Name = Annotated[
    str, typer.Argument(help="As 'shortlm recipes' lists it.", metavar="NAME", autocompletion=recipes_typed)
]


@recipes.callback(invoke_without_command=True)
def listed(ctx: typer.Context, quiet: Quiet = False, as_json: AsJson = False) -> None:
    """List the recipes that come with shortlm: published settings, demos, contests, clusters."""
    with in_manner("recipes", quiet, as_json):
        if ctx.invoked_subcommand is None:
            _list()


def _list() -> None:
    from shortlm.console import show_recipes
    from shortlm.recipe import described, shipped

    rows = [described(name) for name in shipped()]
    hand_over([row._asdict() for row in rows], show=lambda: show_recipes(rows))


@recipes.command(examples=["shortlm recipes show embedded-heal > mine.yaml"])
def show(name: Name) -> None:
    """Print a recipe (YAML), to be read or written to a file of your own."""
    from shortlm.recipe import read_yaml, recipe_file

    text = recipe_file(name).read_text(encoding="utf-8").rstrip()
    hand_over(read_yaml(name), show=lambda: print_line(text, sys.stdout))


@recipes.command(examples=["shortlm recipes copy cluster", "shortlm recipes copy embedded-heal recipes"])
def copy(
    name: Annotated[
        str,
        typer.Argument(help="A recipe, or a group of them as cluster.", metavar="NAME", autocompletion=recipes_typed),
    ],
    folder: Annotated[Path, typer.Argument(callback=expanded, help="Where it goes.")] = Path(),
    force: Force = False,
) -> None:
    """Copy a recipe, or a whole group with what belongs to it, into a folder: for settings and clusters of your own."""
    from shortlm.outputs import write_text
    from shortlm.recipe import recipe_file
    from shortlm.recipe.shipped import FOLDER

    group = FOLDER / name.strip("/")
    if group.parent == FOLDER and group.is_dir():
        files = {Path(name.strip("/")) / file.name: file for file in sorted(group.iterdir())}
    else:
        file = recipe_file(name)
        files = {Path(file.name): file}
    hand_over(None, *(write_text(folder / to, file.read_text(encoding="utf-8"), force) for to, file in files.items()))
