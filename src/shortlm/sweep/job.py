"""A model and a text, opened for sweeps: how they go is planned, and processes share the sequences."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace

from shortlm.errors import ScoreError
from shortlm.model import ModelFiles, OpenModel, free_memory, open_files, vocabulary
from shortlm.progress import is_main
from shortlm.recipe import ModelSettings, TextSettings
from shortlm.sweep.ranks import Ranks, joined_ranks
from shortlm.sweep.schedule import Schedule, Work
from shortlm.sweep.scheduler import schedule_for
from shortlm.text import Windows, open_mixture

Say = Callable[[str], object]


@dataclass(frozen=True)
class Job:
    """What sweeps are made over; `windows` are those of all processes, None where no data is needed."""

    opened: OpenModel
    windows: Windows | None
    schedule: Schedule | None = None
    ranks: Ranks = field(default_factory=Ranks)
    kept_bytes: int = 0  # of states may be kept between sweeps: what was asked for, or what there is room for


@contextmanager
def open_job(
    model: ModelSettings,
    text: TextSettings | None,
    work: Callable[[ModelFiles, tuple[int, int]], Work],
    batch_size: int = 0,
    say: Say | None = None,
    mix: Sequence[str] = (),
) -> Generator[Job, None, None]:
    """Open the model and the text; `work(files, (sequences, tokens))` says what will be asked of the sweep. `mix` names
    more texts, with their weights.

    Under torchrun every process gets the same job, its schedule being for its share. `say` is told the schedule, if one
    had to be made (for blocks on disk, or within a memory budget). Raises ShortLMError for bad input.
    """
    files, windows = open_files(model), None
    if text is not None:
        windows = open_mixture(text.for_model(model.model), mix, files.tokenizer, vocabulary(files.config))
    with joined_ranks() as ranks:
        shape = (0, 0) if windows is None else windows.part(share_of(windows, ranks)).shape
        schedule, kept_bytes = _with_kept(files, work(files, shape), batch_size, ranks)
        if schedule and say and is_main():
            say(f"schedule: {schedule.described()}")
        yield Job(files.open(schedule is not None and schedule.streamed), windows, schedule, ranks, kept_bytes)


def share_of(windows: Windows, ranks: Ranks) -> slice:
    """The sequences of this process. Raises ScoreError if there are fewer than processes."""
    count = len(windows.ids_BT)
    if count < ranks.size:
        raise ScoreError(
            f"{count} sequences for {ranks.size} processes; each needs one: give more --sequences, or fewer processes"
        )
    return ranks.share(count)


def _with_kept(files: ModelFiles, work: Work, batch_size: int, ranks: Ranks) -> tuple[Schedule | None, int]:
    """The schedule, and how much of the states that are asked to be kept there is room for."""
    for share in (1, 2, 4, 8) if work.kept_bytes else ():
        with suppress(ScoreError):
            part = replace(work, kept_bytes=work.kept_bytes // share)
            return _agreed(files, part, batch_size, ranks), _with_room(part.kept_bytes, files)
    return _agreed(files, replace(work, kept_bytes=0), batch_size, ranks), 0


def _with_room(kept_bytes: int, files: ModelFiles) -> int:
    """At most a quarter of the free memory, where no budget was made for it."""
    return min(kept_bytes, free_memory(files.device) // 4)


def _agreed(files: ModelFiles, work: Work, batch_size: int, ranks: Ranks) -> Schedule | None:
    """The schedule; if one process has to read its blocks from disk, all do, so that they take the same rounds."""
    schedule = schedule_for(files, work, batch_size)
    streamed = schedule is not None and schedule.streamed
    if ranks.total(streamed) and not streamed:
        forced = files.settings.model_copy(update={"stream": "on"})
        schedule = schedule_for(replace(files, settings=forced), work, batch_size)
    return schedule
