"""Peak memory of healing against what `--dry-run` announces, for LoRA and CPT.

python benchmarks/heal_memory.py --records alpaca.json

Every case is the command a user would type, in a process of its own; its peak is what the system says (ru_maxrss).
The models have random weights (see heal_speed.py).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from heal_speed import made_up_model
from machine import describe, save

SHAPES = [(512, 8), (768, 12), (1280, 8)]


def measured(command: list[str]) -> int:
    """Peak bytes of a process."""
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)}: exit status {status}")
    return usage.ru_maxrss * 1024


def planned(command: list[str]) -> int:
    """Peak bytes that the dry run announces."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "plan.json"
        subprocess.run([*command, "--dry-run", "--plan", str(file)], check=True, stdout=subprocess.DEVNULL)
        return json.loads(file.read_bytes())["phases"][0]["peak_bytes"]


def case(model: Path, records: Path, method: str, micro: int, scratch: Path) -> dict:
    """One method with micro-batches of so many tokens."""
    out = scratch / f"{model.name}-{method}-{micro}"
    command = [
        sys.executable, "-m", "shortlm", "heal", str(model), "--out", str(out), "--method", method,
        "--data", str(records), "--steps", "3", "--batch", "16", "--held-out", "8", "--micro-tokens", str(micro),
    ]  # fmt: skip
    announced, peak = planned(command), measured(command)
    row = {"model": model.name, "method": method, "micro_tokens": micro, "announced_gib": announced / 2**30,
           "peak_gib": peak / 2**30, "announced / peak": announced / peak}  # fmt: skip
    print(row, flush=True)
    return row


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=Path, required=True)
    given = parser.parse_args()
    records, rows = json.loads(given.records.read_bytes()), []
    with tempfile.TemporaryDirectory() as folder:
        for width, blocks in SHAPES:
            model = made_up_model(records, Path(folder) / f"{blocks}x{width}", width, blocks, "bfloat16")
            for method in ("lora", "cpt"):
                for micro in (1024, 2048):
                    rows.append(case(model, given.records, method, micro, Path(folder)))
    ratios = [row["announced / peak"] for row in rows]
    save("heal_memory", {"what": __doc__.splitlines()[0], "machine": describe(), "lowest": min(ratios),
                         "highest": max(ratios), "cases": rows})  # fmt: skip


if __name__ == "__main__":
    main()
