"""The command `repair`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from shortlm.cli.application import Force, app, out_option
from shortlm.cli.card import add_card
from shortlm.cli.result import hand_over, hand_over_work, say
from shortlm.completing import models
from shortlm.options import with_settings
from shortlm.progress import is_main
from shortlm.recipe import ModelSettings, RepairSettings, TextSettings


@app.command(
    examples=[
        "shortlm repair shorter --against ./llama-7b --text t.jsonl --out repaired",
        "shortlm repair shorter --against ./llama-7b --method linear --out repaired --dry-run",
    ]
)
@with_settings(
    ModelSettings,
    TextSettings,
    RepairSettings,
    omit=("revision", "sequences"),
    asks_model="The cut checkpoint: a folder.",
)
def repair(
    model_settings: Any,
    text_settings: Any,
    repair_settings: Any,
    against: Annotated[
        str, typer.Option(help="The dense model: a folder, a hub id, or 'embedded'.", autocompletion=models)
    ],
    out: Annotated[Path | None, out_option("The folder of the repaired checkpoint.")] = None,
    blocks: Annotated[
        str | None,
        typer.Option(
            help="The dense model's indices of the blocks that are left, as 0-3,8-15; where no manifest tells."
        ),
    ] = None,
    force: Force = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it would take: memory, work, time.")] = False,
) -> None:
    """Fold what missing blocks did into weights that stay: closed form, no training, a little text."""
    from shortlm.console import show_repair
    from shortlm.errors import OutputError, PlanError
    from shortlm.outputs import refuse_existing
    from shortlm.repair import plan_repair, repair as do_repair, sources_of
    from shortlm.units import BLOCK, unit_list

    units = unit_list(blocks, "--blocks") if blocks else []
    if any(unit.part != BLOCK for unit in units):
        raise PlanError("--blocks: whole blocks are meant, as 0-3,8-15")
    given = [unit.block for unit in units] or None
    dense = model_settings.model_copy(update={"model": against})
    if dry_run:
        sources = sources_of(model_settings, dense, text_settings, repair_settings, given)
        return hand_over_work(plan_repair(sources)) if is_main() else None
    if out is None:
        raise OutputError("--out: give the folder of the repaired checkpoint")
    refuse_existing(out, force)
    manifest = do_repair(model_settings, dense, text_settings, repair_settings, out, given, force, say)
    if is_main():
        add_card(out)
        hand_over(manifest, out, show=lambda: show_repair(manifest, out))
