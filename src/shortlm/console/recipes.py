"""Of the recipes that come with the package."""

from __future__ import annotations

from shortlm.console.printing import Grid


def show_recipes(rows: list[tuple[str, str, str, str]]) -> None:
    """What comes with the package: a name, the command that reads it, the model, the source."""
    table = Grid("recipe", "command", "model", "source", left=("command", "model", "source"))
    for row in rows:
        table.add(*row)
    table.show()
