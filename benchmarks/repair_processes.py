"""Two processes repair a cut of 7B width: their weights against those of one process.

python benchmarks/random_checkpoint.py DENSE --blocks 4            (7B width, bf16, 2 GB)
python benchmarks/repair_processes.py DENSE SCRATCH [--remove 1] [--sequences 16] [--length 256]

Written are bf16 weights, so that a difference is none or a step of bf16; told is the largest one of the solutions
before they are rounded, which the manifest's errors show, and of the written weights.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

from machine import describe, save
from repair_memory import ids_file
from safetensors import safe_open

VALIDATION = 2
CODE = """
from shortlm.recipe import ModelSettings, RepairSettings, TextSettings
from shortlm.repair import repair
import sys
cut, dense, ids, out, calibration, validation = sys.argv[1:]
models = [ModelSettings(model=m, stream="on", device="cpu") for m in (cut, dense)]
settings = RepairSettings(calibration=int(calibration), validation=int(validation))
repair(*models, TextSettings(ids=ids), settings, out, force=True, always=True)
"""


def tensors(folder: Path) -> dict:
    """All tensors of a checkpoint."""
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            found |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    return found


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dense", type=Path)
    parser.add_argument("scratch", type=Path)
    parser.add_argument("--remove", default="1")
    parser.add_argument("--sequences", type=int, default=16)
    parser.add_argument("--length", type=int, default=256)
    given = parser.parse_args()
    given.scratch.mkdir(parents=True, exist_ok=True)
    vocabulary = json.loads((given.dense / "config.json").read_bytes())["vocab_size"]
    ids = ids_file(given.scratch / "ids.json", vocabulary, given.sequences + VALIDATION, given.length)
    cut = given.scratch / "cut"
    command = ["cut", "-m", str(given.dense), "--remove", given.remove, "--no-verify", "-o", str(cut), "--force"]
    subprocess.run([sys.executable, "-m", "shortlm", *command], check=True)
    program = given.scratch / "repair.py"
    program.write_text(CODE)
    steps, weights, seconds = [], [], []
    for processes in (1, 2):
        out = given.scratch / f"repaired-{processes}"
        started = time.perf_counter()
        subprocess.run([
            sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes),
            str(program), str(cut), str(given.dense), str(ids), str(out), str(given.sequences), str(VALIDATION),
        ], check=True)  # fmt: skip
        seconds.append(time.perf_counter() - started)
        steps.append(json.loads((out / "manifest.json").read_bytes())["steps"][-1])
        weights.append(tensors(out))
    one, two = weights
    changed = [name for name, tensor in one.items() if not tensor.equal(tensors(cut)[name])]
    save("repair_processes", {
        "machine": describe(), "removed": given.remove, "sequences": given.sequences, "length": given.length,
        "seconds": seconds, "solved": len(changed),
        "largest_difference_of_weights": {n: float((one[n].float() - two[n].float()).norm() / one[n].float().norm())
                                          for n in changed},
        "errors": [[(f["block"], f["part"], f["error_after"]) for f in step["folds"]] for step in steps],
    })  # fmt: skip


if __name__ == "__main__":
    main()
