"""The one family of errors that users meet: what is wrong, the value seen, the way out, in one line."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextlib import contextmanager
from difflib import get_close_matches
from reprlib import Repr

LONGEST = 1000  # characters of a message, whatever the values that it names


class ShortLMError(Exception):
    """A mistake the user can fix. The CLI prints it as one line and exits with code 2."""


class ModelError(ShortLMError):
    """A checkpoint that is missing, damaged, or of a kind that can't be cut soundly."""


class TextError(ShortLMError):
    """Text or token ids that can't be read, or are too short."""


class ScoreError(ShortLMError):
    """A criterion that doesn't exist, or a score that is no number."""


class PlanError(ShortLMError):
    """A choice of blocks that can't be carried out."""


class HealError(ShortLMError):
    """Training that went wrong: a loss that is no number."""


class RepairError(ShortLMError):
    """A repair that would make the model worse, or that has no solution."""


class ExportError(ShortLMError):
    """A format that can't hold a model, or a tool that failed on it."""


class OutputError(ShortLMError):
    """An output that is in the way or can't be written."""


class RankError(ShortLMError):
    """Another process of the same job that ended or can't be reached."""


class RecipeError(ShortLMError):
    """Settings that can't be read or don't fit together."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of an error about an unknown name: the nearest known one, or all of them."""
    known = sorted(known)
    near = get_close_matches(name[:100].lower(), known, n=1, cutoff=0.5)
    return f"did you mean '{near[0]}'?" if near else f"known: {', '.join(known)}"


def shown(value: object) -> str:
    """A value as it stands in a message: quoted, and shortened in the middle."""
    short = Repr()
    short.maxstring = short.maxother = short.maxlong = 80
    try:
        return short.repr(value)
    except ValueError:  # Python writes no number of more than 4,300 digits
        return "a number of thousands of digits"


def shortened(text: str, most: int = LONGEST) -> str:
    """One line of at most `most` characters; its beginning (what is wrong) and its end (the way out) stay."""
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most * 2 // 3]} ... {line[-(most // 3) :]}"


def reason(error: BaseException, lines: bool = False) -> str:
    """What another library's error says, for a message of ours: its first line (or all `lines`), shortened.

    Validators of configs begin with "... :" and say what is wrong at the end.
    """
    said = [line.strip() for line in str(error).splitlines() if line.strip()]
    first = said[-1:] if said and said[0].endswith(":") else said[:1]
    return shortened(" ".join(said if lines else first), 200).rstrip(".") or type(error).__name__


@contextmanager
def library_errors(kind: type[ShortLMError], what: str, hint: str = "") -> Generator[None, None, None]:
    """Whatever a library raises inside, as one line of ours: 'what (its reason); way out'.

    For calls whose ways to fail are countless (validators of all architectures, parsers of damaged files). Running out
    of memory stays what it is.
    """
    try:
        yield
    except ShortLMError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise kind(f"{what} ({reason(error)}){hint and '; '}{hint}") from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out: torch says so by a kind of its own on CUDA, elsewhere by text alone."""
    said = str(error)
    memory = any(words in said for words in ("out of memory", "can't allocate memory", "not enough memory"))
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or memory
