"""What every benchmark says about the machine, and the machine's own matrix-product rate."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from pathlib import Path

import torch

RESULTS = Path(__file__).parent / "results"


def describe() -> dict:
    """Processor, cores, accelerator, versions."""
    cpu = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), cpu)
    flags = torch.backends.cpu.get_cpu_capability()
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "cpu": cpu, "cores": len(os.sched_getaffinity(0)), "capability": flags, "threads": torch.get_num_threads(),
        "gpu": gpu, "torch": torch.__version__, "python": platform.python_version(),
    }  # fmt: skip


def spread(samples: list[float]) -> dict:
    """Median and quartiles, with the raw samples."""
    low, middle, high = statistics.quantiles(samples, n=4) if len(samples) > 1 else samples * 3
    return {"median": middle, "quartiles": [low, high], "samples": samples}


def gemm_rate(
    shapes: dict[tuple[int, int, int], float], dtype: torch.dtype, seconds: float = 0.5, device: str = "cpu"
) -> float:
    """FLOP/s of the machine's own x @ w.T at the model's shapes (rows, in, out) -> how often, weighted by FLOPs."""
    flops = times = 0.0
    for (rows, wide, out), often in shapes.items():
        x, w = torch.randn(rows, wide, dtype=dtype, device=device), torch.randn(out, wide, dtype=dtype, device=device)
        at_once = 1 if x.device.type == "cpu" else 50  # so that launches and waits don't count
        _products(x, w, at_once)
        count, started = 0, time.perf_counter()
        while (spent := time.perf_counter() - started) < seconds:
            _products(x, w, at_once)
            count += at_once
        flops += 2.0 * rows * wide * out * often
        times += spent / count * often
    return flops / times


def _products(x: torch.Tensor, w: torch.Tensor, count: int) -> None:
    for _ in range(count):
        torch.nn.functional.linear(x, w)
    if x.device.type != "cpu":
        torch.accelerator.synchronize()


def save(name: str, result: dict) -> None:
    """Write results/NAME.json and print it without the samples."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1, default=str))
    print(path)
