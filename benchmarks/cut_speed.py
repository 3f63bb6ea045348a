"""Cutting a checkpoint against `cp` of the bytes that come out: time and memory.

python benchmarks/random_checkpoint.py FOLDER            (7B shape, bf16, 13.5 GB)
python benchmarks/cut_speed.py FOLDER SCRATCH [--remove 21-28 --repeats 3]

Both read from disk (the files are dropped from the page cache before) and both end with the bytes on disk: shortlm
flushes its output before it gets its name, so `cp` is followed by `sync` of its files. `cp` alone, which returns
while part of the bytes are still in memory, is timed too. Cut and copy are interleaved. `cp` copies as many bytes of
the same files. A virtual disk may read faster what was touched a minute ago: look at the order, and repeat.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import psutil
from machine import describe, save, spread
from memory import forget


class Watch(threading.Thread):
    """Peak RSS of a process and of its children, told apart: each one's own high-water mark."""

    def __init__(self, pid: int):
        super().__init__(daemon=True)
        self.process, self.own, self.children = psutil.Process(pid), 0, 0

    def run(self) -> None:
        """Look every 5 ms until the process is gone."""
        while self.process.is_running() and self.process.status() != psutil.STATUS_ZOMBIE:
            with suppress(psutil.Error, OSError):  # children come and go
                self.own = max(self.own, _peak(self.process.pid))
                children = [_peak(child.pid) for child in self.process.children(recursive=True)]
                self.children = max([self.children, *children])
            time.sleep(0.005)


def _peak(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), 0)


def cut(source: Path, out: Path, remove: str) -> dict:
    """The command a user would type, without the equivalence check, which runs both models."""
    forget(source)
    command = [
        sys.executable,
        "-m",
        "shortlm",
        "cut",
        "-m",
        str(source),
        "--remove",
        remove,
        "--no-verify",
        "-o",
        str(out),
    ]
    started = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    watch = Watch(child.pid)
    watch.start()
    if child.wait():
        raise SystemExit("the cut failed")
    return {"seconds": time.perf_counter() - started, "own_rss": watch.own, "planning_rss": watch.children}


def about(source: Path, size: int) -> list[Path]:
    """The first shards of a checkpoint, at least `size` bytes of them."""
    shards, found = [], 0
    for path in sorted(source.glob("*.safetensors")):
        if found < size:
            shards.append(path)
            found += path.stat().st_size
    return shards


def copy(source: Path, size: int, out: Path) -> tuple[float, float]:
    """Seconds of `cp`, and of `cp` with the bytes on disk."""
    forget(source)
    out.mkdir()
    started = time.perf_counter()
    subprocess.run(["cp", "--reflink=never", *map(str, about(source, size)), str(out)], check=True)
    copied = time.perf_counter() - started
    for path in out.iterdir():
        handle = os.open(path, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)
    return copied, time.perf_counter() - started


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("scratch", type=Path)
    parser.add_argument("--remove", default="21-28")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--name", default="cut_speed-7b")
    given = parser.parse_args()
    model, copied = given.scratch / "cut", given.scratch / "copy"
    runs, copies, size = [], [], 0
    for _ in range(given.repeats):
        runs.append(cut(given.folder, model, given.remove))
        size = sum(path.stat().st_size for path in model.glob("*.safetensors"))
        shutil.rmtree(model)
        copies.append(copy(given.folder, size - 2**20, copied))  # headers differ by some bytes
        shutil.rmtree(copied)
    ratios = [run["seconds"] / flushed for run, (_, flushed) in zip(runs, copies, strict=True)]
    save(given.name, {
        "what": __doc__.splitlines()[0], "machine": describe(), "bytes": size,
        "bytes_copied_by_cp": sum(path.stat().st_size for path in about(given.folder, size - 2**20)),
        "removed": given.remove,
        "cut_seconds": spread([run["seconds"] for run in runs]),
        "cp_seconds": spread([plain for plain, _ in copies]),
        "cp_and_sync_seconds": spread([flushed for _, flushed in copies]),
        "cut / cp_and_sync": spread(ratios),
        "cut_process_peak_mib": max(run["own_rss"] for run in runs) / 2**20,
        "planning_process_peak_mib": max(run["planning_rss"] for run in runs) / 2**20,
    })  # fmt: skip


if __name__ == "__main__":
    main()
