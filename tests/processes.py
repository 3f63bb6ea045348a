"""Several processes of one job, with the environment that torchrun gives them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path


def started(code: str, size: int = 2) -> list[subprocess.Popen]:
    """Processes with the environment that torchrun gives them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    common = {"WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    common["PYTHONPATH"] = str(Path(__file__).parents[1] / "src")
    return [
        subprocess.Popen(
            [sys.executable, "-c", code], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=os.environ | common | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(size)
    ]  # fmt: skip


def ended(processes: list[subprocess.Popen]) -> list[tuple[int, str, str]]:
    return [(p.returncode, *output) for p, output in [(p, p.communicate(timeout=120)) for p in processes]]


def run(*args: object) -> str:
    return f"from shortlm.cli import app; app({[str(a) for a in args]!r})"
