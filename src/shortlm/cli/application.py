"""The application: errors in one line, options that several commands have, and what rank 0 does alone."""

from __future__ import annotations

import io
import os
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from shortlm.errors import ShortLMError, is_out_of_memory
from shortlm.progress import ask_to_stop, is_main


class OneLineErrors(TyperGroup):
    """Users' mistakes become one line and exit code 2; `--debug` shows where they were noticed."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except (ShortLMError, OSError, MemoryError, RuntimeError, KeyboardInterrupt) as error:
            if ctx.params.get("debug") or not (line := _line(error)):
                raise
            who = "shortlm" if is_main() else f"shortlm (rank {os.environ['RANK']})"
            typer.echo(f"{who}: {line}", err=True)
            if isinstance(error, KeyboardInterrupt):
                _leave()
            raise typer.Exit(2) from error


def _leave() -> None:
    """Exit with code 2 at once. All is cleaned up by now, and an interrupt that came while Python ran a string (as
    dataclasses do when modules are imported) would otherwise end the process by the signal, whatever we return.
    """
    for stream in filter(None, (sys.stdout, sys.stderr)):  # None where they were closed
        stream.flush()
    os._exit(2)


def _line(error: BaseException) -> str | None:
    """What to tell the user; None for our own faults, which keep their traceback."""
    if isinstance(error, KeyboardInterrupt):
        return "stopped; nothing half-written was left, and the same command goes on with what was finished"
    if is_out_of_memory(error):
        what = (str(error).splitlines() or ["MemoryError"])[0][:120]
        return f"out of memory ({what}); try a smaller --length, --batch-size, --task-batch, or --micro-tokens of heal"
    if isinstance(error, OSError):
        return f"{error.filename or 'input or output'}: {error.strerror or error}"
    return " ".join(str(error).split()) if isinstance(error, ShortLMError) else None


app = typer.Typer(
    cls=OneLineErrors, add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False,
    rich_markup_mode="rich", help="Make language models shorter: score, choose, cut, heal, prove.",
)  # fmt: skip


def expanded(path: Path | None) -> Path | None:
    """`--out=~/x` reaches us as it stands."""
    return path.expanduser() if path else None


Out = Annotated[Path | None, typer.Option("--out", "-o", callback=expanded, help="Where the result goes.")]
Force = Annotated[bool, typer.Option("--force", help="Replace an output that exists.")]


def _version(show: bool) -> None:
    if show:
        from shortlm import __version__

        typer.echo(f"shortlm {__version__}")
        raise typer.Exit


SHARED = {"score", "heal", "run"}  # commands whose work several processes share; the others are rank 0's alone


@app.callback()
def main(
    ctx: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Make language models shorter: score, choose, cut, heal, prove."""
    if not is_main() and ctx.invoked_subcommand not in SHARED:
        raise typer.Exit
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal without ± must not cost the result
    signal.signal(signal.SIGTERM, ask_to_stop)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # as a background job of a script has it
        signal.signal(signal.SIGINT, ask_to_stop)


def save(artifact: Any, out: Path | None, force: bool) -> None:
    if out:
        typer.echo(artifact.save(out, force))
