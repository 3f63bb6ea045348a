"""Of the recipes that come with the package."""

from __future__ import annotations

from itertools import groupby

from rich.table import Table

from shortlm.console.printing import out, tell
from shortlm.recipe import Described


def show_recipes(recipes: list[Described]) -> None:
    """Folder by folder: name, model, method, and the command where it isn't run."""
    for folder, group in groupby(recipes, key=lambda recipe: recipe.name.rpartition("/")[0]):
        rows = list(group)
        papers = sorted({row.source for row in rows if row.source})
        out.print()
        tell(f"{folder}/  {', '.join(papers)}".rstrip() if folder else "demos")
        table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 1))
        for row in rows:
            command = "" if row.command == "run" else row.command
            table.add_row(f"  {row.name.rpartition('/')[2]}", row.model, ", ".join(filter(None, (command, row.method))))
        out.print(table)
    out.print()
    tell("shortlm run NAME, or the command that is named; FOLDER/NAME where two are alike")
