"""Scoring a model larger than its memory budget: peak memory and time, against the plan and the physical limit.

python benchmarks/random_checkpoint.py FOLDER            (7B shape, bf16, 13.5 GB)
python benchmarks/memory.py FOLDER [--criteria ppl,bi,angular,magnitude taylor] [--memory 4GiB] [--busy 1]

Each case runs the command a user would type in a process of its own; its peak is what the system says (ru_maxrss).
The limit is the larger of FLOPs / the machine's own matrix-product rate at the model's shapes and bytes / the
disk's read rate, both measured in the same run; the files are dropped from the page cache before. `--busy` keeps
so many other processes computing meanwhile: the peak should not depend on them.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import torch
from machine import describe, gemm_rate, save, spread

SEQUENCES, TOKENS = 10, 128


def forget(folder: Path) -> None:
    """Drop the files from the page cache."""
    os.sync()
    for path in folder.glob("*.safetensors"):
        handle = os.open(path, os.O_RDONLY)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)


def read_rate(folder: Path, limit: int = 4 * 2**30) -> float:
    """Bytes per second of plain reads from the disk."""
    forget(folder)
    buffer, done, started = bytearray(2**24), 0, time.perf_counter()
    for path in sorted(folder.glob("*.safetensors"), key=lambda p: -p.stat().st_size):
        with path.open("rb", buffering=0) as file:
            while done < limit and (count := file.readinto(buffer)):
                done += count
    return done / (time.perf_counter() - started)


def model_gemm_rate(folder: Path, dtype: torch.dtype, sequences: int) -> float:
    """FLOP/s of the model's own matrix products, weighted by their FLOPs."""
    config = json.loads((folder / "config.json").read_bytes())
    hidden, ffn, rows = config["hidden_size"], config["intermediate_size"], sequences * TOKENS
    shapes = {(rows, hidden, hidden): 4, (rows, hidden, ffn): 2, (rows, ffn, hidden): 1}
    return gemm_rate(shapes, dtype, 3.0)


def measured(command: list[str]) -> tuple[float, int]:
    """Seconds and peak bytes of a process."""
    started = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)}: exit status {status}")
    return time.perf_counter() - started, usage.ru_maxrss * 1024


@contextmanager
def busy(count: int) -> Generator[None, None, None]:
    """So many processes that multiply matrices, each on one thread, until the end."""
    code = "import torch; torch.set_num_threads(1); x = torch.randn(512, 512)\nwhile True: x @ x"
    others = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(count)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def case(folder: Path, criteria: str, stream: str, budget: str | None, scratch: Path) -> dict:
    """One command, planned and run."""
    rng = random.Random(0)
    vocabulary = json.loads((folder / "config.json").read_bytes())["vocab_size"]
    ids = scratch / "ids.json"
    ids.write_text(json.dumps([[rng.randrange(vocabulary) for _ in range(TOKENS)] for _ in range(SEQUENCES)]))
    shortlm = [sys.executable, "-m", "shortlm"]
    common = ["-m", str(folder), "--criteria", criteria, "--stream", stream, *(["--memory", budget] if budget else [])]
    plan_file, out = scratch / "plan.json", scratch / "scores.json"
    shape = ["--sequences", str(SEQUENCES), "--length", str(TOKENS), "--bos", "none"]
    subprocess.run([*shortlm, "plan-memory", *common, *shape, "--out", str(plan_file), "--force"], check=True)
    plan = json.loads(plan_file.read_bytes())
    row = plan["rows"][-1]
    dtype = getattr(torch, plan["provenance"]["dtype"])
    disk, rates = read_rate(folder), [model_gemm_rate(folder, dtype, row["batch_size"])]
    forget(folder)
    seconds, peak = measured([*shortlm, "score", *common, "--ids", str(ids), "--out", str(out), "--force"])
    rates.append(model_gemm_rate(folder, dtype, row["batch_size"]))
    rate = sum(rates) / 2
    limit = max(row["flops"] / rate, row["bytes_read"] / disk)
    scores = json.loads(out.read_bytes())
    return {
        "criteria": criteria, "stream": stream, "budget": budget,
        "peak_gib": peak / 2**30, "planned_peak_gib": row["peak_bytes"] / 2**30,
        "peak / planned": peak / row["peak_bytes"], "seconds": seconds, "planned_seconds": row["seconds"],
        "seconds / planned": seconds / row["seconds"], "limit_seconds": limit, "seconds / limit": seconds / limit,
        "gemm_flop_per_s": spread(rates), "disk_bytes_per_s": disk, "flops": row["flops"],
        "bytes_read": row["bytes_read"], "block_forwards": scores["block_forwards"],
        "planned_block_forwards": row["block_forwards"], "scoring_seconds": scores["provenance"]["seconds"],
    }  # fmt: skip


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--criteria", nargs="+", default=["ppl,bi,angular,magnitude", "taylor"])
    parser.add_argument("--memory")
    parser.add_argument("--stream", default="on")
    parser.add_argument("--name", default="memory-7b")
    parser.add_argument("--busy", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, busy(given.busy):
        cases = [case(given.folder, criteria, given.stream, given.memory, Path(scratch)) for criteria in given.criteria]
    config = json.loads((given.folder / "config.json").read_bytes())
    shape = {k: config[k] for k in ("num_hidden_layers", "hidden_size", "intermediate_size", "vocab_size")}
    save(given.name, {"what": __doc__.splitlines()[0], "machine": describe(), "model": shape,
                      "sequences": SEQUENCES, "tokens": TOKENS, "busy": given.busy, "cases": cases})  # fmt: skip


if __name__ == "__main__":
    main()
