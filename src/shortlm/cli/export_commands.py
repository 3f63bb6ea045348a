"""The commands for a finished checkpoint: quantize, export, push."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from shortlm.cli.application import THE_MODEL, Force, app, expanded, out_option
from shortlm.cli.card import add_card
from shortlm.cli.result import hand_over, say
from shortlm.options import with_settings
from shortlm.recipe import GgufSettings, ModelSettings, QuantizeSettings, TextSettings


@app.command(
    examples=[
        "shortlm quantize embedded --out smaller --bits 8 --method rtn",
        "shortlm quantize ./shorter --text calibration.jsonl --out shorter-w4",
    ]
)
@with_settings(
    QuantizeSettings, ModelSettings, TextSettings, omit=("stream", "memory"), asks_model=THE_MODEL, sequences=128,
    length=2048,
)  # fmt: skip
def quantize(
    quantize_settings: Any, model_settings: Any, text_settings: Any,
    out: Annotated[Path, out_option("The folder of the quantised checkpoint.")], force: Force = False,
) -> None:  # fmt: skip
    """Write the checkpoint with weights of 4 or 8 bits, by llm-compressor, for vLLM and transformers."""
    from shortlm.console import show_quantized
    from shortlm.export import quantize as do_quantize
    from shortlm.outputs import refuse_existing

    refuse_existing(out, force)
    manifest = do_quantize(model_settings, text_settings, quantize_settings, out, force, say)
    add_card(out)
    hand_over(manifest, out, show=lambda: show_quantized(manifest, out))


@app.command(
    examples=[
        "shortlm export ./shorter --gguf shorter.gguf",
        "shortlm export ./shorter --gguf shorter-q4.gguf --type q4_k_m --llama-cpp ./llama.cpp",
        "shortlm export ./shorter --mergekit shorter.yaml",
    ]
)
@with_settings(GgufSettings, ModelSettings, omit=("stream", "memory"), asks_model=THE_MODEL)
def export(
    gguf_settings: Any,
    model_settings: Any,
    gguf: Annotated[
        Path | None, typer.Option("--gguf", callback=expanded, help="Write this GGUF file, for llama.cpp.")
    ] = None,
    mergekit: Annotated[
        Path | None,
        typer.Option("--mergekit", callback=expanded, help="Write the cut as a recipe (YAML) for mergekit."),
    ] = None,
    force: Force = False,
) -> None:
    """Write the checkpoint in another format: a GGUF file for llama.cpp, or its cut as a recipe for mergekit."""
    from shortlm.console import show_gguf
    from shortlm.errors import ExportError
    from shortlm.export import export_gguf, export_mergekit

    if (gguf is None) == (mergekit is None):
        raise ExportError("in which format? give --gguf FILE or --mergekit FILE")
    if mergekit:
        return hand_over(None, export_mergekit(model_settings, mergekit, force))
    written = export_gguf(model_settings, gguf_settings, gguf, force, say)
    hand_over(written.model_dump(), gguf, show=lambda: show_gguf(written))


@app.command(examples=["shortlm push ./shorter me/shorter --dry-run", "shortlm push ./shorter me/shorter"])
def push(
    folder: Annotated[Path, typer.Argument(help="The folder of a checkpoint.", callback=expanded)],
    repository: Annotated[str, typer.Argument(help="Where it goes on the hub: owner/name.")],
    public: Annotated[bool, typer.Option("--public", help="A new repository can be seen by everybody.")] = False,
    message: Annotated[str | None, typer.Option(help="Of the commit.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be uploaded.")] = False,
) -> None:
    """Upload a checkpoint with its card to a repository of the hub, private unless asked otherwise."""
    from shortlm.console import show_push
    from shortlm.export import push as do_push

    found = do_push(folder, repository, public, dry_run, message)
    hand_over(found.model_dump(), show=lambda: show_push(found))
