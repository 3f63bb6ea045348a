"""The command `recipes`: what comes with the package, shown and copied."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shortlm.cli.application import Force, app, expanded

recipes = typer.Typer(context_settings={"help_option_names": ["--help", "-h"]}, rich_markup_mode="rich")
app.add_typer(recipes, name="recipes")
Name = Annotated[str, typer.Argument(help="As 'shortlm recipes' lists it.", metavar="NAME")]


@recipes.callback(invoke_without_command=True)
def listed(ctx: typer.Context) -> None:
    """List the recipes that come with shortlm: published settings, demos, contests, clusters."""
    if ctx.invoked_subcommand is None:
        from shortlm.console import show_recipes
        from shortlm.recipe import described, shipped

        show_recipes([described(name) for name in shipped()])


@recipes.command()
def show(name: Name) -> None:
    """Print a recipe (YAML), to be read or written to a file of your own."""
    from shortlm.recipe import recipe_file

    typer.echo(recipe_file(name).read_text(encoding="utf-8").rstrip())


@recipes.command()
def copy(
    name: Annotated[str, typer.Argument(help="A recipe, or a group of them as cluster.", metavar="NAME")],
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
    for place, file in files.items():
        typer.echo(write_text(folder / place, file.read_text(encoding="utf-8"), force))
