"""What a pip user gets: run by the Python of an environment that holds the wheel alone (`make test-wheel`).

In a temporary folder it checks that all files came along, and nothing else; that commands work by a plain install, and
say in one line which extra they lack; then it runs the demo. It uses the standard library alone.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from importlib.metadata import distribution
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
SHORTLM = Path(sys.executable).with_name("shortlm")
TRAINING = ["--method", "lora", "--data", "embedded", "--steps", "1"]


def main() -> None:
    check_files()
    for needed in ("peft", "datasets", "lm_eval", "pytest"):
        assert subprocess.run([sys.executable, "-c", f"import {needed}"], capture_output=True).returncode, needed
    assert said("--version").startswith(f"shortlm {distribution('shortlm').version} (Python 3.")
    names = [path.stem for path in (CHECKOUT / "src/shortlm/recipes").rglob("*.yaml")]
    listed = said("recipes")
    assert all(name in listed for name in names), listed
    assert "Usage: shortlm run" in said("run", "demo", "--help")
    check_extras()
    said("run", "demo", "--out", "demo")
    assert "<html" in Path("demo/report.html").read_text(encoding="utf-8")
    assert said("bench", "demo/model", "--batches", "1", "--prompt-tokens", "8", "--output-tokens", "4", "--runs", "1")


def check_files() -> None:
    """All that lies in src/shortlm is installed, from the wheel, and nothing beside it."""
    installed = {Path(file) for file in distribution("shortlm").files or []}
    ours = {path.relative_to(CHECKOUT / "src") for path in (CHECKOUT / "src/shortlm").rglob("*") if path.is_file()}
    ours = {path for path in ours if "__pycache__" not in path.parts}
    assert not ours - installed, f"not in the wheel: {sorted(map(str, ours - installed))}"
    assert Path("shortlm/py.typed") in installed
    strangers = {path.parts[0] for path in installed} - {"shortlm", ".."}  # .. is of the command in bin
    assert all(name.startswith("shortlm-") and name.endswith(".dist-info") for name in strangers), strangers
    stale = {path for path in installed - ours if path.parts[0] == "shortlm" and path.suffix != ".pyc"}
    assert not stale, f"not in the checkout: {sorted(map(str, stale))}"


def check_extras() -> None:
    """Every command that needs more than a plain install names the extra in its last line."""
    said("cut", "embedded", "--remove", "4", "--out", "cut")
    Path("t.txt").write_text("A line of text.\n" * 400, encoding="utf-8")
    for extra, *command in (
        ("heal", "heal", "cut", "--out", "healed", *TRAINING),
        ("qlora", "heal", "cut", "--out", "healed", *TRAINING, "--method", "qlora"),
        ("heal", "heal", "cut", "--out", "healed", "--method", "cpt", "--data", "some/set", "--steps", "1"),
        ("eval", "eval", "cut", "--tasks", "default"),
        ("eval", "compare", "embedded", "cut", "--tasks", "default", "--out", "compared"),
        ("eval", "run", "embedded-demo", "--out", "run"),
        ("data", "score", "embedded", "--text", "some/set"),
        ("data", "eval", "cut", "--text", "some/set"),
        ("data", "choose", "--model", "embedded", "--method", "greedy", "--blocks", "2", "--text", "some/set"),
    ):
        line = said(*command, code=2).splitlines()[-1]
        assert line.startswith("shortlm: ") and f"pip install 'shortlm[{extra}]'" in line, f"{command}: {line}"


def said(*command: str, code: int = 0) -> str:
    """What `shortlm` printed; it has to end with this exit code."""
    start, env = time.perf_counter(), os.environ | {"HF_HUB_OFFLINE": "1"}
    result = subprocess.run([SHORTLM, *command], text=True, capture_output=True, env=env)
    assert result.returncode == code, f"{' '.join(command)}: {result.returncode}\n{result.stdout}{result.stderr}"
    print(f"{time.perf_counter() - start:5.1f} s  shortlm {' '.join(command)}", flush=True)
    return result.stdout + result.stderr


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as away:
        os.chdir(away)
        main()
        os.chdir(CHECKOUT)
