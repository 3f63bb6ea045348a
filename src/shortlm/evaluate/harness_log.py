"""What the harness says while it works: warnings in a line each, bars on a terminal only, no questions to git.

Standard error itself is left alone, so that what CUDA, C code or a task's own code writes there is seen.
"""

from __future__ import annotations

import contextlib
import logging
import re
import sys
from collections import Counter
from collections.abc import Generator
from typing import Any

from tqdm import tqdm

from shortlm.progress import STYLE, is_quiet

SHOWN = ("lm_eval", "datasets", "transformers")
SILENT = ("huggingface_hub",)  # tells of every try without network; what comes of it is our error
NOISE = (  # said of stock tasks and of what we do on purpose
    "Custom kwargs can be passed to `--metadata`",
    "`pretrained` model kwarg is not of type `str`",
    "Passed an already-initialized model through `pretrained`",
    "is defined, but aggregation is not. using default",
    "is defined, but higher_is_better is not. using default",
    "Token indices sequence length is longer than",  # the harness cuts such texts, and says so
)
LONGEST = 400  # letters of a message


@contextlib.contextmanager
def only_what_matters() -> Generator[None, None, None]:
    """Within it, the harness and what it stands on say their warnings through us, and nothing else."""
    lines = Lines()
    with contextlib.ExitStack() as stack:
        stack.callback(lines.close)
        for name in SHOWN:
            stack.enter_context(_heard(logging.getLogger(name), logging.WARNING, lines))
        for name in SILENT:
            stack.enter_context(_heard(logging.getLogger(name), logging.CRITICAL, lines))
        stack.enter_context(_bars_like_ours())
        stack.enter_context(_no_questions_to_git())
        yield


class Lines(logging.Handler):
    """One line on standard error for each kind of message: those that differ in numbers only are counted."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said: Counter[tuple[str, str]] = Counter()

    def emit(self, record: logging.LogRecord) -> None:
        """Say it, unless it was said or is known noise."""
        message, who = " ".join(record.getMessage().split()), record.name.partition(".")[0]
        if any(noise in message for noise in NOISE):
            return
        kind = who, re.sub(r"\d+", "#", message)
        self.said[kind] += 1
        if self.said[kind] == 1:
            _say(f"shortlm: {who}: {_cut_off(message)}")

    def close(self) -> None:
        """Tell what was left out."""
        super().close()
        for (who, kind), count in self.said.items():
            if count > 1:
                _say(f"shortlm: {who}: {count - 1} more of: {_cut_off(kind, 80)}")
        self.said.clear()


def _say(line: str) -> None:
    if not is_quiet():
        tqdm.write(line, file=sys.stderr)  # which leaves bars whole


def _cut_off(text: str, most: int = LONGEST) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


@contextlib.contextmanager
def _heard(logger: logging.Logger, level: int, handler: logging.Handler) -> Generator[None, None, None]:
    """The logger speaks through `handler` alone."""
    before = logger.level, logger.handlers, logger.propagate
    logger.setLevel(level)
    logger.handlers, logger.propagate = [handler], False
    try:
        yield
    finally:
        logger.setLevel(before[0])
        logger.handlers, logger.propagate = before[1:]


@contextlib.contextmanager
def _bars_like_ours() -> Generator[None, None, None]:
    """On a terminal only, where they aren't unwanted; tqdm's own would fill files with their steps."""
    real: Any = tqdm.__init__

    def asked(self: tqdm, *args: Any, **options: Any) -> None:
        seen = not is_quiet() and sys.stderr.isatty()
        real(self, *args, **options | ({"bar_format": STYLE, "leave": False} if seen else {"disable": True}))

    with _replaced(tqdm, "__init__", asked):
        yield


@contextlib.contextmanager
def _no_questions_to_git() -> Generator[None, None, None]:
    """The harness asks git for the commit of the folder it runs in, and git complains where there is none.

    We keep a provenance of our own, so its description of the machine isn't needed either.
    """
    try:
        from lm_eval import evaluator
    except ImportError:
        yield
        return
    with (
        _replaced(evaluator, "get_git_commit_hash", lambda: None),
        _replaced(evaluator, "add_env_info", lambda results: None),
    ):
        yield


@contextlib.contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Generator[None, None, None]:
    real = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, real)
