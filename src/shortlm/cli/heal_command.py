"""The command `heal`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from shortlm.cli.application import Force, app, expanded, out_option
from shortlm.cli.card import add_card
from shortlm.cli.preset_options import preset_of, presets_of
from shortlm.cli.result import hand_over, save_and_show, say
from shortlm.options import with_settings
from shortlm.progress import is_main
from shortlm.recipe import ModelSettings, PhaseSettings, validated


@app.command(
    examples=[
        "shortlm heal shorter --method lora --data alpaca.json --epochs 2 --out healed",
        "shortlm heal shorter --method cpt --data text.jsonl --tokens 100M --out healed",
        "shortlm heal shorter --preset shortened-llm-cpt-lora --out healed --dry-run",
    ]
)
@with_settings(
    ModelSettings, PhaseSettings, only_given=True, omit=("stream", "memory", "dtype", "data", "validate_on"),
    asks_model="The shortened checkpoint: a folder, a hub id, or 'embedded'.",
)  # fmt: skip
def heal(
    model_settings: Any,
    phase_settings: Any,
    out: Annotated[Path, out_option("The folder of the healed checkpoint.")],
    preset: Annotated[str | None, preset_of("heal")] = None,
    presets: Annotated[bool, presets_of("heal")] = False,
    recipe: Annotated[
        Path | None, typer.Option(help="A YAML file of phases; options are laid over every phase.")
    ] = None,
    data: Annotated[
        list[str] | None, typer.Option(help="Training data, again for each source: FILE or FILE:weight=2,kind=text.")
    ] = None,
    eval_text: Annotated[
        list[str] | None, typer.Option(help="A further text whose perplexity is watched; again for each.")
    ] = None,
    keep_adapter: Annotated[bool, typer.Option("--keep-adapter", help="Also keep the adapters.")] = False,
    report_to: Annotated[str | None, typer.Option(help="tensorboard, wandb, trackio.")] = None,
    log_every: Annotated[int | None, typer.Option(help="Steps between lines of log.jsonl.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what it would take: tokens, steps, memory, time.")
    ] = False,
    processes: Annotated[int, typer.Option(min=1, max=10**6, help="With --dry-run: for so many processes.")] = 1,
    tflops: Annotated[
        float | None,
        typer.Option(help="With --dry-run: TFLOP/s that each device reaches, instead of measuring."),
    ] = None,
    sharded: Annotated[bool, typer.Option("--sharded", help="With --dry-run: FSDP instead of DDP.")] = False,
    estimate: Annotated[
        Path | None,
        typer.Option("--estimate", "--plan", callback=expanded, help="With --dry-run: also write it as JSON."),
    ] = None,
    force: Force = False,
) -> None:
    """Train a shortened model so that it gets its quality back. Goes on where it was stopped."""
    from shortlm.console import show_heal_estimate, show_healing
    from shortlm.heal import Cluster, estimate_healing, heal as do_heal
    from shortlm.recipe import healing_of

    given = phase_settings | {"data": data or None, "validate_on": eval_text and [{"text": t} for t in eval_text]}
    given |= {"keep_adapter": keep_adapter or None, "report_to": report_to, "log_every": log_every}
    settings = healing_of(preset, recipe, {name: value for name, value in given.items() if value is not None})
    opened = validated(ModelSettings, model_settings)
    if dry_run:
        if is_main():
            found = estimate_healing(opened, settings, Cluster(processes, tflops, sharded))
            save_and_show(found, estimate, force, show_heal_estimate)
        return
    healing = do_heal(opened, settings, out, force, say)
    if is_main():
        add_card(out)
        hand_over(healing, out, show=lambda: show_healing(healing, out))
