"""The application: errors in one line, options that several commands have, and what rank 0 does alone."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from shortlm.cli.result import AsJson, Quiet, before_all, handing_over
from shortlm.cli.streams import flush_output, hush_libraries, prepare_output, print_line, unwritable, while_printing
from shortlm.errors import ShortLMError, is_out_of_memory, shortened, shown
from shortlm.options import SHORT
from shortlm.paths import is_text, user_path
from shortlm.progress import ask_to_stop, is_main, unraisable

NEEDED = {"torch", "transformers", "accelerate", "scipy", "matplotlib"}  # of every install; imported late
UsageError: Any = typer.BadParameter.__base__  # wherever typer has its click


class OneLineErrors(TyperGroup):
    """Users' mistakes become one line and exit code 2; `--debug` shows where they were noticed."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the options before the command; the command reads its own when it is invoked."""
        prepare_output()  # which --help needs too
        try:
            odd = next((arg for arg in args if not is_text(arg) or "\0" in arg), None)
            if odd is not None:
                raise ShortLMError(f"{shown(odd)}: is not valid UTF-8 text; rename the file, or write it otherwise")
            return super().parse_args(ctx, args)
        except (ShortLMError, UsageError) as error:
            if type(error).__name__ == "NoArgsIsHelpError":
                raise
            _tell(error)
            raise typer.Exit(2) from error

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            result = super().invoke(ctx)
            flush_output()
            return result
        except SystemExit as error:  # of rich, where the reader of a pipe is gone
            _tell(unwritable("broken pipe"))
            raise typer.Exit(2) from error
        except (ShortLMError, UsageError, OSError, MemoryError, RuntimeError, ModuleNotFoundError,
                KeyboardInterrupt) as error:  # fmt: skip
            if isinstance(error, typer.Exit | typer.Abort) or ctx.params.get("debug") or _line(error) is None:
                raise
            _tell(error)
            if isinstance(error, KeyboardInterrupt):
                _leave()
            raise typer.Exit(2) from error


def _tell(error: BaseException) -> None:
    who = "shortlm" if is_main() else f"shortlm (rank {os.environ['RANK']})"
    print_line(shortened(f"{who}: {_line(error)}"), sys.stderr)


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
        said = error.strerror or str(error)
        return str(unwritable(said.lower())) if while_printing(error) else f"{error.filename or 'a file'}: {said}"
    if isinstance(error, ModuleNotFoundError):
        package = (error.name or "").partition(".")[0]
        return f"needs {package}, which is not installed: pip install {package}" if package in NEEDED else None
    if isinstance(error, UsageError):
        said = error.format_message().rstrip(".").replace("Value error, ", "")
        command = error.ctx.command_path if error.ctx else "shortlm"
        return f"{shortened(said[:1].lower() + said[1:], 600)}; see {command} --help"
    return str(error) if isinstance(error, ShortLMError) else None


class Application(typer.Typer):
    """A typer application whose commands all take --quiet and --json, and end their help with examples."""

    def command(self, name: str | None = None, *, examples: Sequence[str] = (), **options: Any) -> Any:
        """As typer's; `examples` are command lines as they are typed, `shortlm` included."""
        register = super().command(name, epilog=as_epilog(examples), **options)

        def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
            register(handing_over(command, name or getattr(command, "__name__", "")))
            return command

        return decorate


def as_epilog(examples: Sequence[str]) -> str | None:
    """Examples as they stand at the end of a --help."""
    return "\n\n".join(["[bold]Examples[/bold]", *examples]) if examples else None


HELP_NAMES = {"help_option_names": ["--help", SHORT["help"]]}
app = Application(
    cls=OneLineErrors, context_settings=HELP_NAMES, no_args_is_help=True, pretty_exceptions_enable=False,
    rich_markup_mode="rich", help="Make language models shorter: score, choose, cut, heal, measure.",
    epilog=as_epilog(
        ["shortlm run --drop 25%", "shortlm cut ./llama-7b --remove 21-29 --out shorter", "shortlm eval shorter --json"]
    ),
)  # fmt: skip


def expanded(path: Path | None) -> Path | None:
    """`--out=~/x` reaches us as it stands."""
    return user_path(path) if path else None


THE_MODEL = "A checkpoint folder, a hub id, or 'embedded' (the tiny model inside)."


def out_option(what: str) -> Any:
    """--out, and what it is of the command."""
    return typer.Option("--out", SHORT["out"], callback=expanded, help=what)


def force_option(what: str) -> Any:
    """--force, and what it does in the command."""
    return typer.Option("--force", SHORT["force"], help=what)


Out = Annotated[Path | None, out_option("Where the result goes.")]
Force = Annotated[bool, force_option("Replace an output that exists.")]


def _version_of(package: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return "is not installed"


def _version(show: bool) -> None:
    if show:
        from platform import python_version

        from shortlm import __version__

        below = ", ".join(f"{name} {_version_of(name)}" for name in ("torch", "transformers"))
        print_line(f"shortlm {__version__} (Python {python_version()}, {below})", sys.stdout)
        raise typer.Exit


# Commands whose work several processes share; the others are rank 0's alone.
SHARED = {"score", "choose", "repair", "heal", "run"}


@app.callback()
def main(
    ctx: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors.")] = False,
    version: Annotated[
        bool, typer.Option("--version", SHORT["version"], callback=_version, is_eager=True, help="Show the version.")
    ] = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Make language models shorter: score, choose, cut, heal, measure."""
    if not is_main() and ctx.invoked_subcommand not in SHARED:
        raise typer.Exit
    before_all(quiet, as_json)
    ctx.call_on_close(lambda: before_all(quiet=False, as_json=False))
    if not debug:
        ctx.call_on_close(hush_libraries())
    if sys.unraisablehook is sys.__unraisablehook__:  # not one of a debugger or a test runner
        sys.unraisablehook = unraisable
    signal.signal(signal.SIGTERM, ask_to_stop)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # as a background job of a script has it
        signal.signal(signal.SIGINT, ask_to_stop)
