"""Pruning widths of a 7B shape from disk: peak memory and time, against the plan.

python benchmarks/random_checkpoint.py DENSE [--blocks 4]          (7B shape, bf16)
python benchmarks/width_memory.py DENSE SCRATCH [--methods flap wanda-sp llm-pruner]

Each method has its published windows (FLAP 1024 x 128, Wanda-sp 128 x 128, LLM-Pruner 10 x 64), random tokens here, and
the command that a user would type in a process of its own; its peak is what the system says (ru_maxrss). FLAP and
Wanda-sp hold one block and the states of all windows, so that their peak doesn't depend on the number of blocks.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path

from machine import describe, save
from memory import measured
from repair_memory import ids_file

from shortlm.recipe import ModelSettings, TextSettings, WidthSettings
from shortlm.width import plan_width

WINDOWS = {"flap": (1024, 128), "wanda-sp": (128, 128), "llm-pruner": (10, 64)}


def case(dense: Path, scratch: Path, method: str) -> dict:
    """One method, planned and run."""
    sequences, tokens = WINDOWS[method]
    config = json.loads((dense / "config.json").read_bytes())
    ids = ids_file(scratch / "ids.json", config["vocab_size"], sequences, tokens)
    model = ModelSettings(model=str(dense), stream="on")
    settings = WidthSettings(method=method, shape="free", drop_params="20%")
    text = TextSettings(sequences=sequences, length=tokens, bos="none")
    plan = plan_width(model, text, settings).rows[0]
    out = scratch / "out"
    command = [sys.executable, "-m", "shortlm", "prune-width", str(dense), "--method", method, "--shape", "free"]
    command += ["--drop-params", "20%", "--ids", str(ids), "--sequences", "0", "--stream", "on"]
    seconds, peak = measured([*command, "--no-verify", "--force", "--out", str(out)])
    step = json.loads((out / "manifest.json").read_bytes())["steps"][-1]
    shutil.rmtree(out)
    return {
        "method": method, "sequences": sequences, "tokens": tokens, "peak_gib": peak / 2**30,
        "planned_peak_gib": plan.peak_bytes / 2**30, "parts": plan.parts, "seconds": seconds,
        "planned_seconds": plan.seconds, "parameters": [step["found"]["parameters"], step["parameters_after"]],
    }  # fmt: skip


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dense", type=Path)
    parser.add_argument("scratch", type=Path)
    parser.add_argument("--methods", nargs="+", default=list(WINDOWS))
    parser.add_argument("--name", default="width_memory")
    given = parser.parse_args()
    given.scratch.mkdir(parents=True, exist_ok=True)
    config = json.loads((given.dense / "config.json").read_bytes())
    save(given.name, {
        "machine": describe(), "blocks": config["num_hidden_layers"], "hidden": config["hidden_size"],
        "cases": [case(given.dense, given.scratch, method) for method in given.methods],
    })  # fmt: skip


if __name__ == "__main__":
    main()
