"""The command `demo`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from shortlm.cli.application import app
from shortlm.options import with_settings
from shortlm.recipe import DemoSettings


@app.command()
@with_settings(DemoSettings)
def demo(
    demo_settings: Any,
    models: Annotated[
        list[str] | None,
        typer.Argument(help="The dense model, then shorter ones: folders, hub ids, 'embedded', or a folder of 'run'."),
    ] = None,
) -> None:
    """Try models side by side on a web page: one prompt, all of them write."""
    from shortlm.demo import serve
    from shortlm.errors import RecipeError

    if not models:
        raise RecipeError("which models? give folders, hub ids or 'embedded', or the folder of a run")
    serve(models, demo_settings, lambda line: typer.echo(line, err=True))
