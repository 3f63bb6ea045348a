"""The commands for a finished checkpoint: quantize, export, push."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from shortlm.cli.application import THE_MODEL, Force, app, expanded
from shortlm.options import with_settings
from shortlm.recipe import GgufSettings, ModelSettings, QuantizeSettings, TextSettings

OutFolder = Annotated[Path, typer.Option("--out", "-o", callback=expanded, help="The folder of the result.")]


@app.command()
@with_settings(
    QuantizeSettings, ModelSettings, TextSettings, omit=("stream", "memory"), asks_model=THE_MODEL, sequences=128,
    length=2048,
)  # fmt: skip
def quantize(
    quantize_settings: Any, model_settings: Any, text_settings: Any, out: OutFolder, force: Force = False
) -> None:
    """Write the checkpoint with weights of 4 or 8 bits, by llm-compressor, for vLLM and transformers."""
    from shortlm.export import quantize as do_quantize
    from shortlm.outputs import refuse_existing

    refuse_existing(out, force)
    say = lambda line: typer.echo(line, err=True)  # noqa: E731
    manifest = do_quantize(model_settings, text_settings, quantize_settings, out, force, say)
    _show_quantized(manifest.steps[-1], out)


def _show_quantized(step: Any, folder: Path) -> None:
    from shortlm.console import out
    from shortlm.sizes import gib

    group = f"groups of {step.group_size}" if step.group_size else "a scale for each output"
    out.print(f"{folder}: {step.method}, {step.bits} bits, {group}; {step.layers} linear layers, by {step.tool}")
    out.print(f"weights {gib(step.bytes_before)} -> {gib(step.bytes_after)}")
    if step.loss:
        error = "" if step.loss.stderr is None else f" +- {step.loss.stderr:.4f}"
        change = step.loss.after - step.loss.before
        out.print(
            f"held-out loss, nats per token: {step.loss.before:.4f} -> {step.loss.after:.4f} ({change:+.4f}{error})"
        )


@app.command("export")
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
    from shortlm.errors import ExportError
    from shortlm.export import export_gguf, export_mergekit

    if (gguf is None) == (mergekit is None):
        raise ExportError("in which format? give --gguf FILE or --mergekit FILE")
    if mergekit:
        typer.echo(export_mergekit(model_settings, mergekit, force))
    else:
        say = lambda line: typer.echo(line, err=True)  # noqa: E731
        _show_gguf(export_gguf(model_settings, gguf_settings, gguf, force, say))


def _show_gguf(written: Any) -> None:
    from shortlm.console import out
    from shortlm.sizes import gib

    out.print(f"{written.path}: {written.outtype}, {gib(written.bytes)}")
    if found := written.agreement:
        parted = "" if found.largest_gap is None else f"; where both part, logits are {found.largest_gap:.2g} apart"
        out.print(f"{found.llama_cpp} writes {found.same} of {found.tokens} tokens as transformers does{parted}")


@app.command("push")
def push(
    folder: Annotated[Path, typer.Argument(help="The folder of a checkpoint.", callback=expanded)],
    repository: Annotated[str, typer.Argument(help="Where it goes on the hub: owner/name.")],
    public: Annotated[bool, typer.Option("--public", help="A new repository can be seen by everybody.")] = False,
    message: Annotated[str | None, typer.Option(help="Of the commit.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be uploaded.")] = False,
) -> None:
    """Upload a checkpoint with its card to a repository of the hub, private unless asked otherwise."""
    from shortlm.console import out
    from shortlm.export import push as do_push
    from shortlm.sizes import gib

    found = do_push(folder, repository, public, dry_run, message)
    for name, size in found.files.items():
        out.print(f"{gib(size):>10}  {name}")
    seen = "private" if found.private else "public"
    what = "would go to" if dry_run else "went to"
    out.print(
        f"{len(found.files)} files, {gib(found.bytes)}, {what} {found.url or found.repository} ({seen} if it is new)"
    )
