"""The folder beside the output where healing keeps what it needs to go on: OUT.healing.

It holds the key of settings and inputs, the log, and a folder per phase with its checkpoints and, once it is
done, its model. The output appears under its own name when all is done, and then this folder goes.
"""

from __future__ import annotations

import json
import os
import shutil
from contextlib import suppress
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from filelock import FileLock, Timeout

from shortlm.artifacts import Healing, Phase
from shortlm.errors import HealError, OutputError, ShortLMError
from shortlm.heal.checkpoints import checkpoint_folders, forget
from shortlm.heal.remains import read_left
from shortlm.heal.writing import writing
from shortlm.outputs import refuse_existing, write_text


@dataclass(frozen=True)
class State:
    """The content of `state.json`: the keys of all phases."""

    keys: list[str]


class Workspace:
    """One healing's folder; only the first process changes it."""

    def __init__(self, out: Path, keys: list[str], force: bool = False):
        self.out, self.keys, self.key, self.force = out, keys, keys[-1], force
        self.folder = out.with_name(f"{out.name}.healing")
        self._lock = FileLock(self.folder / "lock", blocking=False)

    def __enter__(self) -> Workspace:
        return self

    def __exit__(self, *problem: object) -> None:
        self._lock.release()

    @property
    def log(self) -> Path:
        """The log of all phases."""
        return self.folder / "log.jsonl"

    def phase(self, number: int) -> Path:
        """The folder of a phase, counted from 1."""
        return self.folder / f"phase-{number}"

    def finished(self) -> Healing | None:
        """What is at `out`, if the same healing has finished there."""
        try:
            healing = Healing.load(self.out / "healing.json")
        except ShortLMError:
            return None
        return healing if healing.provenance.key == self.key else None

    def claim(self) -> None:
        """Make the folder this healing's own. Raises OutputError if another's work would be lost, or is going on."""
        refuse_existing(self.out, self.force)
        state = self.folder / "state.json"
        if self.folder.exists() and not state.is_file() and any(self.folder.iterdir()):
            raise OutputError(f"{self.folder}: exists and holds no healing; move it away or choose another --out")
        self._take_lock()
        other = [
            path for path in self.folder.glob("phase-*") if path not in map(self.phase, range(1, self._same() + 1))
        ]
        if not self.force and any(_worth_keeping(folder) for folder in other):
            raise OutputError(
                f"{self.folder}: holds an unfinished healing with other settings or inputs; "
                "give these again to go on, --force to start anew, or another --out"
            )
        for folder in other:
            shutil.rmtree(folder, ignore_errors=True)
        if not self._same():
            self.log.unlink(missing_ok=True)
        with writing(state):
            write_text(state, json.dumps({"keys": self.keys}), force=True)

    def trained(self) -> set[int]:
        """The phases of this healing that are done."""
        return {number for number in range(1, self._same() + 1) if (self.phase(number) / "done.json").is_file()}

    def _same(self) -> int:
        """How many phases are the same as in the healing that the folder holds."""
        pairs = zip(self._keys_before(), self.keys, strict=False)
        return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))

    def _keys_before(self) -> list[str]:
        """Of the healing that the folder holds; phases that are the same go on, whatever follows them."""
        state = self.folder / "state.json"
        if not state.is_file():
            return []
        try:
            return read_left(state, State, "give --force to start anew, or another --out").keys
        except HealError:
            if not self.force:
                raise
            return []

    def _take_lock(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire()
        except Timeout as error:
            raise OutputError(
                f"{self.folder}: another process is healing there; wait, or choose another --out"
            ) from error

    def done(self, number: int) -> Phase | None:
        """The record of a phase that is done."""
        path = self.phase(number) / "done.json"
        return read_left(path, Phase, f"delete it to train phase {number} again") if path.is_file() else None

    def finish(self, number: int, record: Phase, keep_adapter: bool) -> None:
        """Keep the record; the checkpoints of training are not needed any more, the adapter perhaps."""
        folder = self.phase(number)
        with writing(folder):
            self._keep(folder, record, keep_adapter)
        forget(folder, set())

    def _keep(self, folder: Path, record: Phase, keep_adapter: bool) -> None:
        adapter = folder / f"checkpoint-{record.kept_step}"
        if keep_adapter and (adapter / "adapter_config.json").is_file() and not (folder / "adapter").exists():
            (folder / "adapter.partial").mkdir(exist_ok=True)
            for name in ("adapter_config.json", "adapter_model.safetensors"):
                shutil.copyfile(adapter / name, folder / "adapter.partial" / name)
            (folder / "adapter.partial").rename(folder / "adapter")
        write_text(folder / "done.json", record.model_dump_json(indent=1), force=True)

    def remove(self) -> None:
        """All is done; another healing's work that lies there stays."""
        with suppress(HealError):  # nobody knows whose it is
            if self._keys_before() in ([], self.keys):
                shutil.rmtree(self.folder, ignore_errors=True)
                if self.folder.exists():  # on Windows the lock's file, which is open
                    self._lock.release()
                    shutil.rmtree(self.folder, ignore_errors=True)


def _worth_keeping(folder: Path) -> bool:
    """Whether there is anything to go on from."""
    return bool(checkpoint_folders(folder)) or (folder / "done.json").is_file()


def link_or_copy(source: Path, target: Path) -> None:
    """The same files under another name, without copying where the system can."""
    target.mkdir(parents=True, exist_ok=True)
    for path in source.iterdir():
        try:
            os.link(path, target / path.name)
        except OSError:
            shutil.copyfile(path, target / path.name)
