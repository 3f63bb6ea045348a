"""Paths as users write them."""

from __future__ import annotations

import os
from pathlib import Path

from shortlm.errors import ShortLMError, shown

LONGEST, LONGEST_PART = 4096, 255  # bytes that systems take


def user_path(name: str | Path) -> Path:
    """`name` with ~ replaced by the home folder; that of an unknown user stays as it is, and is then not found.

    Raises ShortLMError for what can be no path: a zero byte, text that is not valid UTF-8, or too many characters.
    """
    text = str(name)
    if "\0" in text or not is_text(text):
        raise ShortLMError(f"{shown(text)}: can't be a path (it is not valid UTF-8 text); rename it")
    if len(text.encode()) >= LONGEST or max(len(part.encode()) for part in text.split(os.sep)) > LONGEST_PART:
        raise ShortLMError(f"{shown(text)}: can't be a path ({len(text):,} characters); give a shorter one")
    return Path(os.path.expanduser(text))


def is_text(text: str) -> bool:
    """Whether `text` can be written as UTF-8; arguments that are not valid UTF-8 reach Python as lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def beginning(path: Path, most: int = 200) -> bytes:
    """The first bytes of a file, to tell by them what it is; none if it can't be read."""
    try:
        with path.open("rb") as file:
            return file.read(most)
    except OSError:
        return b""
