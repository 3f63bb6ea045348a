"""--preset and --presets, of the commands that have published settings."""

from __future__ import annotations

import sys
from typing import Any

import typer

from shortlm.cli.streams import print_line
from shortlm.completing import presets
from shortlm.recipe.presets import Stage, preset_names, preset_path


def preset_of(stage: Stage, what: str = "Published settings; --presets names them.") -> Any:
    """The name of a preset of a stage."""
    return typer.Option("--preset", help=what, autocompletion=presets(stage))


def presets_of(stage: Stage) -> Any:
    """A flag that shows what there is, a line each."""

    def show(asked: bool) -> None:
        if asked:
            from shortlm.recipe import read_yaml

            names = preset_names(stage)
            width = max(map(len, names))
            for name in names:
                told = read_yaml(preset_path(stage, name))
                print_line(f"{name:{width}}  {told.get('name') or told.get('source') or ''}", sys.stdout)
            raise typer.Exit

    return typer.Option("--presets", callback=show, is_eager=True, help="Show the presets.")
