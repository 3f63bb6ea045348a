"""The command `prune-width`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from shortlm.cli.application import THE_MODEL, Force, app, out_option
from shortlm.cli.card import add_card
from shortlm.cli.preset_options import preset_of
from shortlm.cli.result import hand_over, hand_over_work, say
from shortlm.options import with_settings
from shortlm.progress import is_main
from shortlm.recipe import ModelSettings, TextSettings, WidthSettings, narrowing_of


@app.command(
    "prune-width",
    examples=[
        "shortlm prune-width embedded --method flap --drop-params 20% --out narrower",
        "shortlm prune-width ./llama-7b --preset llm-pruner --out narrower --dry-run",
    ],
)
@with_settings(WidthSettings, ModelSettings, TextSettings, only_given=True, asks_model=THE_MODEL)
def prune_width(
    width_settings: Any,
    model_settings: Any,
    text_settings: Any,
    preset: Annotated[
        str | None, preset_of("width", "Published settings of method, budget and text: llm-pruner, flap, wanda-sp.")
    ] = None,
    out: Annotated[Path | None, out_option("The folder of the narrower checkpoint.")] = None,
    force: Force = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it would take: memory, work, time.")] = False,
) -> None:
    """Write the checkpoint with fewer heads and channels in every block: what dropping blocks is compared with."""
    from shortlm.console import show_width
    from shortlm.errors import OutputError
    from shortlm.outputs import refuse_existing
    from shortlm.width import plan_width, prune_width as do_prune

    width, opened, text = narrowing_of(preset, width=width_settings, model=model_settings, text=text_settings)
    if dry_run:
        return hand_over_work(plan_width(opened, text, width)) if is_main() else None
    if out is None:
        raise OutputError("--out: give the folder of the narrower checkpoint")
    refuse_existing(out, force)
    manifest = do_prune(opened, text, width, out, force, say)
    if is_main():
        add_card(out)
        hand_over(manifest, out, show=lambda: show_width(manifest, out))
