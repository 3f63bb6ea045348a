"""Repairing a 7B shape from disk: peak memory and time, against the plan and what its products take.

python benchmarks/random_checkpoint.py DENSE            (7B shape, bf16, 13.5 GB)
python benchmarks/repair_memory.py DENSE SCRATCH [--remove 24-29] [--sequences 64] [--length 512] [--device cuda]

The cut model (11 GB) and the repaired one (11 GB) are written to SCRATCH. The repair runs in a process of its own; its
peak is what the system says (ru_maxrss), on an accelerator what torch says of its memory. Its products are those of
blocks in bf16 and those of least squares in
float64; what they take is their FLOPs over the machine's own rates at these shapes, measured before and after. Random
models on random tokens have nothing to win, so `always` writes the result whatever the loss says.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

import torch
from machine import describe, gemm_rate, save, spread
from memory import measured

from shortlm.recipe import ModelSettings, RepairSettings, TextSettings
from shortlm.repair import plan_repair, sources_of
from shortlm.repair.planning import solvings

VALIDATION = 8
CODE = """
from shortlm.recipe import ModelSettings, RepairSettings, TextSettings
from shortlm.repair import repair
import pathlib, sys, torch
cut, dense, ids, out, calibration, validation, device, memory = sys.argv[1:]
models = [ModelSettings(model=m, stream="on", memory=memory, device=device) for m in (cut, dense)]
settings = RepairSettings(calibration=int(calibration), validation=int(validation))
repair(*models, TextSettings(ids=ids), settings, out, force=True, always=True)
if device != "cpu":
    pathlib.Path(out + ".peak").write_text(str(torch.cuda.max_memory_allocated()))
"""


def ids_file(path: Path, vocabulary: int, sequences: int, length: int) -> Path:
    """Random tokens."""
    rng = random.Random(0)
    path.write_text(json.dumps([[rng.randrange(vocabulary) for _ in range(length)] for _ in range(sequences)]))
    return path


def rates(config: dict, tokens: int, device: str) -> tuple[float, float]:
    """FLOP/s of the blocks' products in bf16, and of Z'Z in float64."""
    hidden, ffn = config["hidden_size"], config["intermediate_size"]
    shapes = {(tokens, hidden, hidden): 4, (tokens, hidden, ffn): 2, (tokens, ffn, hidden): 1}
    return gemm_rate(shapes, torch.bfloat16, 3.0, device), gemm_rate(
        {(ffn, tokens, ffn): 1}, torch.float64, 3.0, device
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dense", type=Path)
    parser.add_argument("scratch", type=Path)
    parser.add_argument("--remove", default="24-29")
    parser.add_argument("--sequences", type=int, default=64)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--memory", default="6GiB", help="The budget; a CUDA build of torch takes 0.5 GiB by itself.")
    parser.add_argument("--name", default="repair_memory-7b")
    given = parser.parse_args()
    given.scratch.mkdir(parents=True, exist_ok=True)
    cut, out = given.scratch / "cut", given.scratch / "repaired"
    if not cut.exists():
        command = [sys.executable, "-m", "shortlm", "cut", "-m", str(given.dense), "--remove", given.remove]
        subprocess.run([*command, "--no-verify", "-o", str(cut)], check=True)
    config = json.loads((given.dense / "config.json").read_bytes())
    ids = ids_file(given.scratch / "ids.json", config["vocab_size"], given.sequences + VALIDATION, given.length)
    settings = RepairSettings(calibration=given.sequences, validation=VALIDATION)
    models = [ModelSettings(model=str(path), stream="on", device=given.device) for path in (cut, given.dense)]
    sources = sources_of(*models, TextSettings(ids=str(ids)), settings)
    plan, weights = plan_repair(sources).rows[0], solvings(sources)
    wide = sum(one.flops(given.sequences * given.length, len(settings.ridges)) for one in weights)
    before = rates(config, given.length, given.device)
    command = [sys.executable, "-c", CODE, str(cut), str(given.dense), str(ids), str(out), str(given.sequences)]
    seconds, peak = measured([*command, str(VALIDATION), given.device, given.memory])
    after = rates(config, given.length, given.device)
    both = [spread([b, a]) for b, a in zip(before, after, strict=True)]
    products = (plan.flops - wide) / both[0]["median"] + wide / both[1]["median"]
    if given.device != "cpu":
        peak = int(out.with_name(out.name + ".peak").read_text())
    step = json.loads((out / "manifest.json").read_bytes())["steps"][-1]
    shutil.rmtree(out)
    save(given.name, {
        "machine": describe(), "removed": given.remove, "sequences": given.sequences, "length": given.length,
        "peak_gib": peak / 2**30, "planned_peak_gib": plan.peak_bytes / 2**30, "parts": plan.parts,
        "seconds": seconds, "planned_seconds": plan.seconds, "products_seconds": products,
        "seconds / products": seconds / products, "flops_bf16": plan.flops - wide, "flops_float64": wide,
        "bf16_flop_per_s": both[0], "float64_flop_per_s": both[1],
        "weights": [(fold["block"], fold["part"], fold["tokens"], fold["unknowns"], fold["ridge"],
                     fold["error_before"], fold["error_after"]) for fold in step["folds"]],
    })  # fmt: skip


if __name__ == "__main__":
    main()
