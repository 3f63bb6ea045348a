"""How commands hand over what they made: tables for people, one JSON object (--json), or the paths alone (--quiet).

The object has three keys, whatever the command: `command`, its name; `written`, the paths of what it wrote, the main
one first; `result`, the artifact as its file holds it, a summary where the command makes none, or null. With --json
nothing else reaches standard output: what anything prints meanwhile goes to standard error.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import json
import sys
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from shortlm.cli.streams import print_line
from shortlm.options import SHORT
from shortlm.progress import be_quiet, is_quiet

if TYPE_CHECKING:
    from shortlm.artifacts import Artifact

Quiet = Annotated[
    bool, typer.Option("--quiet", SHORT["quiet"], help="Print only the paths of what is written, or else the result.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]


@dataclass
class Manner:
    """In which way the command that runs hands over."""

    command: str = ""
    quiet: bool = False
    json_to: TextIO | None = None


MANNER = Manner()


def before_all(quiet: bool, as_json: bool) -> None:
    """What was asked before the command's name."""
    MANNER.quiet, MANNER.json_to, MANNER.command = quiet, sys.stdout if as_json else None, ""
    be_quiet(quiet)


def hand_over(
    result: Artifact | dict[str, Any] | list[Any] | None, *written: Path | str | None,
    show: Callable[[], object] | None = None,
) -> None:  # fmt: skip
    """The one place where a command's result leaves it.

    `written` are the paths of what was written (None: not asked for), `show` prints the result for people; without it
    that is the paths.
    """
    paths = [str(path) for path in written if path is not None]
    if MANNER.json_to is not None:
        plain = result if isinstance(result, dict | list | None) else json.loads(result.model_dump_json())
        told = {"command": MANNER.command, "written": paths, "result": plain}
        print_line(json.dumps(told), MANNER.json_to)
    elif show is None or (MANNER.quiet and paths):
        for path in paths:
            print_line(path, sys.stdout)
    else:
        show()


def save_and_show(artifact: Any, out: Path | None, force: bool, show: Callable[[Any], object]) -> None:
    """Hand over an artifact that is written where `out` says, if it does."""
    path = artifact.save(out, force) if out else None

    def shown() -> None:
        if path:
            print_line(path, sys.stdout)
        show(artifact)

    hand_over(artifact, path, show=shown)


def hand_over_work(estimate: Any) -> None:
    """What a --dry-run says of one method."""
    from shortlm.console import show_work

    hand_over(estimate, show=lambda: show_work(estimate, "method"))


def say(line: str) -> None:
    """A line about the work, on standard error, from the first process."""
    if not is_quiet():
        print_line(line, sys.stderr)


def say_stage(line: str) -> None:
    """A line about a finished stage, which is part of what `run` shows."""
    if not is_quiet():
        print_line(line, sys.stdout)


def handing_over(command: Callable[..., Any], name: str) -> Callable[..., Any]:
    """The command with --quiet and --json."""

    @functools.wraps(command)
    def called(*args: Any, quiet: bool, as_json: bool, **values: Any) -> Any:
        with in_manner(name, quiet, as_json):
            return command(*args, **values)

    own = inspect.signature(command, eval_str=True)
    keyword = inspect.Parameter.KEYWORD_ONLY
    ours = [
        inspect.Parameter("quiet", keyword, annotation=Quiet, default=False),
        inspect.Parameter("as_json", keyword, annotation=AsJson, default=False),
    ]
    vars(called)["__signature__"] = own.replace(parameters=[*own.parameters.values(), *ours])
    return called


@contextlib.contextmanager
def in_manner(name: str, quiet: bool, as_json: bool) -> Generator[None, None, None]:
    """Run a command, or the group of it, as was asked before its name or behind it."""
    MANNER.command = f"{MANNER.command} {name}".strip()  # 'recipes show'
    MANNER.quiet |= quiet
    if as_json and MANNER.json_to is None:
        MANNER.json_to = sys.stdout
    be_quiet(MANNER.quiet)
    with contextlib.redirect_stdout(sys.stderr) if MANNER.json_to else contextlib.nullcontext():
        yield
