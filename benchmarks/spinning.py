"""Training a small model beside busy processes: how long torch's threads spin while they wait (GOMP_SPINCOUNT).

python benchmarks/spinning.py [--busy 0 2] [--repeats 3]

The embedded model is trained by the command a user would type, in a process of its own, in turns with every setting:
OpenMP's own ("default", by a variable that changes nothing), what the commands set by themselves ("ours"), a passive
wait, and one thread. Learnt tokens per second of training are what healing.json says.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from machine import describe, save, spread
from memory import busy

SETTINGS = {
    "default": {"OMP_DISPLAY_ENV": "false"},  # a variable of OpenMP's is set, so nothing is changed
    "ours": {},
    "passive": {"OMP_WAIT_POLICY": "PASSIVE"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}


def tokens_per_second(settings: dict[str, str], tokens: str, folder: Path) -> float:
    """Of one training."""
    out = folder / "healed"
    clean = {n: v for n, v in os.environ.items() if not n.startswith(("OMP_", "GOMP_"))}
    options = ["--method", "cpt", "--data", "embedded", "--tokens", tokens, "--batch", "16", "--lr", "1e-3"]
    command = [sys.executable, "-m", "shortlm", "heal", "embedded", "--out", str(out), "--held-out", "0", *options]
    subprocess.run(command, env=clean | settings, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    last = json.loads((out / "healing.json").read_bytes())["phases"][-1]["log"][-1]
    for path in sorted(out.rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    out.rmdir()
    return last["targets"] / last["seconds"]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--busy", type=int, nargs="+", default=[0, 2])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--tokens", default="100k")
    given = parser.parse_args()
    samples: dict[str, dict[str, list[float]]] = {str(count): {name: [] for name in SETTINGS} for count in given.busy}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(given.repeats):
            for count in given.busy:
                with busy(count):
                    for name, settings in SETTINGS.items():
                        samples[str(count)][name].append(tokens_per_second(settings, given.tokens, Path(folder)))
    found = {count: {n: spread(values) for n, values in by_name.items()} for count, by_name in samples.items()}
    save("spinning", {"what": __doc__.splitlines()[0], "machine": describe(), "unit": "learnt tokens per second",
                      "busy processes": found})  # fmt: skip


if __name__ == "__main__":
    main()
