"""A disk that is full, or does not take what is written, as one line.

The libraries below say it in words of their own: safetensors and torch raise no OSError.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

from shortlm.errors import OutputError, ShortLMError, reason

REFUSED = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}
WORDS = ("I/O error", "PytorchStreamWriter failed", "inline_container", "iostream error", "No space left")


@contextmanager
def writing(what: Path) -> Generator[None, None, None]:
    """Raise OutputError if the disk refuses what is written to `what`."""
    try:
        yield
    except Exception as error:
        why = next((found for each in _chain(error) if (found := _refusal(each))), None)
        if why is None:
            raise
        raise OutputError(
            f"{what}: can't be written ({why}); free some space, and the same command goes on after the last complete "
            "checkpoint"
        ) from error


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error and those behind it."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _refusal(error: BaseException) -> str | None:
    """What the disk said, if it was that."""
    if isinstance(error, OSError) and error.errno in REFUSED:
        return os.strerror(error.errno).lower()
    refused = not isinstance(error, (OSError, ShortLMError)) and any(words in str(error) for words in WORDS)
    return reason(error) if refused else None
