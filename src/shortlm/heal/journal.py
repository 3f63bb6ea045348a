"""What happened, step by step: `log.jsonl`, the clock of training, and a line of progress.

Only the first process writes. After a stop, entries behind the checkpoint that training goes on from are dropped.
"""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

from shortlm.artifacts import LogEntry, Validation
from shortlm.documents import parse_json, read_bytes
from shortlm.errors import HealError, shown
from shortlm.heal.remains import damaged
from shortlm.heal.writing import writing
from shortlm.outputs import write_text
from shortlm.progress import is_main, track

LONGEST_LOG = 2**33  # bytes


class Journal:
    """The entries of one phase, in the file that all phases share."""

    def __init__(self, path: Path, phase: int, steps: int):
        self.path, self.phase, self.steps = path, phase, steps
        self.log: list[LogEntry] = []
        self.validations: list[Validation] = []
        self.clock = Clock()
        self.bar: Any = None
        self._lines: list[str] = []
        self._stale = False  # whether the file holds what counts no more

    def resume_from(self, step: int, seconds: float) -> None:
        """Read what was written up to `step`; the rest counts no more, and goes when more is known."""
        self.clock = Clock(seconds)
        self._lines, self._stale = [], True
        lines = read_bytes(self.path, HealError, LONGEST_LOG).split(b"\n") if self.path.exists() else []
        for number, line in enumerate(lines[:-1], start=1):  # behind the last \n: what a killed process began to write
            phase, entry = self._parsed(line, number)
            if (phase, entry.step) < (self.phase, step + 1):
                self._lines.append(line.decode())
                if phase == self.phase:
                    self._keep(entry)

    def _parsed(self, line: bytes, number: int) -> tuple[int, LogEntry | Validation]:
        """The phase and the entry of a line. Raises HealError naming it."""
        try:
            values = parse_json(line, str(self.path), HealError)
            phase = values.pop("phase")
            kind = Validation if "nats_per_token" in values else LogEntry
            if type(phase) is int and phase > 0:
                return phase, kind.model_validate(values, strict=True)
            raise ValueError(f"phase {shown(phase)}")
        except (HealError, ValueError, KeyError, TypeError, AttributeError) as error:
            hint = "delete this line to go on without it"
            raise damaged(self.path, f"line {number} is no entry of the log", hint) from error

    def settle(self) -> None:
        """Drop from the file what `resume_from` has dropped, if that is still there."""
        stale, self._stale = self._stale, False
        if stale and is_main():
            with writing(self.path):
                write_text(self.path, "".join(line + "\n" for line in self._lines), force=True)

    def _keep(self, entry: LogEntry | Validation) -> None:
        if isinstance(entry, Validation):
            self.validations.append(entry)
        else:
            self.log.append(entry)

    def add(self, entry: LogEntry | Validation) -> None:
        """One more line."""
        self.settle()
        self._keep(entry)
        if is_main():
            with writing(self.path), self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"phase": self.phase} | entry.model_dump()) + "\n")

    def best(self, steps: set[int]) -> int | None:
        """Of these steps the one with the lowest loss on the first validation set."""
        found = [v for v in self.validations if v.step in steps and v.nats_per_token]
        return min(found, key=lambda v: next(iter(v.nats_per_token.values()))).step if found else None

    def begin(self, step: int) -> None:
        """Open the bar and start the clock."""
        self.bar = track(None, f"phase {self.phase}", self.steps)
        self.bar.begin_at(step)
        self.clock.start()

    def show(self, step: int, tokens: int) -> None:
        """Move the bar: tokens per second, loss, learning rate."""
        if self.bar is not None:
            seconds = self.clock.seconds()
            shown = {"tokens/s": f"{tokens / seconds:,.0f}" if seconds else "-"}
            if self.log:
                shown |= {"loss": f"{self.log[-1].loss:.4f}", "lr": f"{self.log[-1].rate:.2e}"}
            if self.validations:
                first = next(iter(self.validations[-1].nats_per_token.values()), math.nan)
                shown |= {"val": f"{first:.4f}"}
            self.bar.set_postfix(shown, refresh=False)
            self.bar.move_to(step)

    def end(self) -> None:
        """Close the bar."""
        self.clock.stop()
        if self.bar is not None:
            self.bar.close()


class Clock:
    """Seconds spent training; it stands still while something else is done."""

    def __init__(self, seconds: float = 0.0):
        self._before, self._since = seconds, 0.0

    def start(self) -> None:
        """Run."""
        self._since = time.perf_counter()

    def stop(self) -> None:
        """Stand still."""
        self._before, self._since = self.seconds(), 0.0

    def seconds(self) -> float:
        """Spent so far."""
        return self._before + (time.perf_counter() - self._since if self._since else 0.0)
