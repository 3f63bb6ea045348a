"""What a stopped healing has left is read with suspicion: a damaged file is an error of one line, with the way out."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from shortlm.documents import read_bytes
from shortlm.errors import HealError, is_out_of_memory, reason, shortened


def read_left(path: Path, kind: Any, hint: str) -> Any:
    """A JSON file of the form `kind`. Raises HealError naming the file."""
    raw = read_bytes(path, HealError)
    try:
        return TypeAdapter(kind).validate_json(raw, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = shortened(".".join(map(str, first["loc"])), 100)
        raise damaged(path, f"{where}: {first['msg']}" if where else first["msg"], hint) from error


def damaged(path: Path, why: str, hint: str) -> HealError:
    """The error about a file that was left."""
    return HealError(f"{path}: is damaged ({shortened(why, 200)}); {hint}")


@contextmanager
def readable(path: Path, hint: str) -> Generator[None, None, None]:
    """Whatever fails inside is an error about `path`, unless memory runs out."""
    try:
        yield
    except HealError:
        raise
    except Exception as error:  # parsers of pickles, tensors and JSON, with all their ways to fail
        if is_out_of_memory(error):
            raise
        raise damaged(path, reason(error), hint) from error
