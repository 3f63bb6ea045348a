"""Standard output and standard error: closed, broken or full ones, and what other libraries would write there."""

from __future__ import annotations

import codecs
import io
import logging
import os
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import TextIO

from shortlm.errors import OutputError

PLAINLY = {  # … stands where a table's cell was cut off, which must not get wider
    "±": "+-", "×": "x", "·": ".", "•": "*", "…": "~", "–": "-", "—": "-", "−": "-", "→": "->", "≥": ">=", "≤": "<=",
    "\u00a0": " ", "“": '"', "”": '"', "‘": "'", "’": "'", "²": "2", "³": "3",
}  # fmt: skip


def prepare_output() -> None:
    """Make standard output and standard error take whatever commands print."""
    codecs.register_error("shortlm.plainly", _plainly)
    if sys.stdout is None:  # closed by the shell (>&-): nobody wants to see it
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  it lives as long as the process
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="shortlm.plainly")  # a terminal without ± must not cost the result


def _plainly(error: UnicodeError) -> tuple[str, int]:
    """What stands for letters that the stream can't take: ± is +-; others are written as Python does, \\xe9."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    letters = error.object[error.start : error.end]
    return "".join(PLAINLY.get(c) or c.encode("ascii", "backslashreplace").decode() for c in letters), error.end


def print_line(line: object, to: TextIO | None) -> None:
    """A line to a stream, at once. (typer's own echo would write UTF-8 where the stream is set to ASCII.)"""
    if to is not None:  # closed by the shell
        to.write(f"{line}\n")
        to.flush()


def flush_output() -> None:
    """Write what commands printed. Raises OutputError if nobody can take it."""
    try:
        sys.stdout.flush()
    except OSError as error:
        drop_output()
        raise unwritable(os.strerror(error.errno or 0).lower()) from error


def drop_output() -> None:
    """Let what is still to be written go nowhere, or it fails once more when Python ends."""
    with suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def while_printing(error: OSError) -> bool:
    """Whether it was raised by what prints for us, not by work on files."""
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    inside = trace.tb_frame.f_globals.get("__name__", "") if trace else ""
    printing = error.filename is None and (inside.partition(".")[0] in ("rich", "typer", "click") or inside == __name__)
    if printing:
        drop_output()
    return printing


def unwritable(why: str) -> OutputError:
    """That nobody reads what is printed."""
    return OutputError(f"standard output: can't be written ({why}); what --out names is whole")


def hush_libraries() -> Callable[[], None]:
    """Keep warnings and logs of libraries from standing before our one line; returns what undoes it."""
    show, level = warnings.showwarning, logging.root.manager.disable
    setattr(warnings, "showwarning", lambda *args, **kwargs: None)  # noqa: B010  of another signature
    logging.disable(logging.ERROR)

    def undo() -> None:
        warnings.showwarning = show
        logging.disable(level)

    return undo
