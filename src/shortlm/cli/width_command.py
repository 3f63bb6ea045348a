"""The command `prune-width`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from shortlm.cli.application import THE_MODEL, Force, app, expanded
from shortlm.options import with_settings
from shortlm.progress import is_main
from shortlm.recipe import ModelSettings, TextSettings, WidthSettings, narrowing_of


@app.command("prune-width")
@with_settings(WidthSettings, ModelSettings, TextSettings, only_given=True, asks_model=THE_MODEL)
def prune_width(
    width_settings: Any,
    model_settings: Any,
    text_settings: Any,
    preset: Annotated[
        str | None, typer.Option(help="Published settings of method, budget and text: llm-pruner, flap, wanda-sp.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", callback=expanded, help="The folder of the narrower checkpoint.")
    ] = None,
    force: Force = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it would take: memory, work, time.")] = False,
) -> None:
    """Write the checkpoint with fewer heads and channels in every block: what dropping blocks is compared with."""
    from shortlm.console import show_width, show_work
    from shortlm.errors import OutputError
    from shortlm.outputs import refuse_existing
    from shortlm.width import plan_width, prune_width as do_prune

    width, opened, text = narrowing_of(preset, width=width_settings, model=model_settings, text=text_settings)
    if dry_run:
        return show_work(plan_width(opened, text, width), "method") if is_main() else None
    if out is None:
        raise OutputError("--out: give the folder of the narrower checkpoint")
    refuse_existing(out, force)
    manifest = do_prune(opened, text, width, out, force, lambda line: typer.echo(line, err=True))
    if is_main():
        show_width(manifest, out)
