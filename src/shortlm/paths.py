"""Paths as users write them."""

from __future__ import annotations

import os
from pathlib import Path

from shortlm.errors import ShortLMError, shown


def user_path(name: str | Path) -> Path:
    """`name` with ~ replaced by the home folder; that of an unknown user stays as it is, and is then not found.

    Raises ShortLMError for what can be no path: a zero byte, or text that is not valid UTF-8.
    """
    text = str(name)
    if "\0" in text or not is_text(text):
        raise ShortLMError(f"{shown(text)}: can't be a path (it is not valid UTF-8 text); rename it")
    return Path(os.path.expanduser(text))


def is_text(text: str) -> bool:
    """Whether `text` can be written as UTF-8; arguments that are not valid UTF-8 reach Python as lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
