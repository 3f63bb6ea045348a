"""The C library's heap: gaps between long-lived pieces are kept, and grow, unless they are given back."""

from __future__ import annotations

import ctypes
import ctypes.util
import functools
import sys
from collections.abc import Callable


def give_back() -> None:
    """Hand free pages within the heap to the system (glibc's malloc_trim; nothing elsewhere).

    Takes a few milliseconds, and what is allocated next comes as fresh pages: to be called between long pieces of work.
    """
    _trim()(0)


@functools.cache
def _trim() -> Callable[[int], object]:
    libc = ctypes.util.find_library("c") if sys.platform == "linux" else None
    return getattr(ctypes.CDLL(libc), "malloc_trim", _nothing) if libc else _nothing


def _nothing(pad: int) -> None:
    """Other systems have no such call."""
