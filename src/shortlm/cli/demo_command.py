"""The command `demo`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from shortlm.cli.application import app
from shortlm.cli.result import say
from shortlm.completing import models as models_typed
from shortlm.options import with_settings
from shortlm.recipe import DemoSettings


@app.command(examples=["shortlm demo embedded ./shorter", "shortlm demo ./run --open"])
@with_settings(DemoSettings)
def demo(
    demo_settings: Any,
    models: Annotated[
        list[str] | None,
        typer.Argument(
            help="The dense model, then shorter ones: folders, hub ids, 'embedded', or a folder of 'run'.",
            autocompletion=models_typed,
        ),
    ] = None,
) -> None:
    """Try models side by side on a web page: one prompt, all of them write."""
    from shortlm.demo import serve
    from shortlm.errors import RecipeError

    if not models:
        raise RecipeError("which models? give folders, hub ids or 'embedded', or the folder of a run")
    serve(models, demo_settings, say)
