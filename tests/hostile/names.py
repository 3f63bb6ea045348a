"""Names and paths: of nobody, of nothing, of devices, with bytes that no name has."""

from __future__ import annotations

import os
from pathlib import Path

from hostile.case import Case, World

MODEL = ["-m", "{w}/llama"]
QUICK = ["--sequences", "2", "--length", "16"]
INPUTS = {
    "score -m": ["score", "-c", "magnitude", "-m"],
    "score --text": ["score", *MODEL, *QUICK, "-c", "bi", "--text"],
    "score --ids": ["score", *MODEL, *QUICK, "-c", "bi", "--ids"],
    "plan-memory -m": ["plan-memory", "-c", "ppl", "-m"],
    "choose": ["choose", "--blocks", "1"],
    "choose --published": ["choose", "--blocks", "1", "--published"],
    "cut --plan": ["cut", *MODEL, "-o", "out", "--plan"],
    "cut -m": ["cut", "--remove", "1", "-o", "out", "-m"],
    "eval -m": ["eval", "--text", "{w}/text.txt", *QUICK, "-m"],
    "eval --local": ["eval", *MODEL, "--text", "none", "--tasks", "arc_easy", "--local"],
    "eval --task-path": ["eval", *MODEL, "--text", "none", "--tasks", "mine", "--task-path"],
    "bench": ["bench"],
    "compare": ["compare", "-o", "out", "--bench", "none", "--text", "{w}/text.txt"],
    "report --scores": ["report", "-o", "out", "--scores"],
    "report --eval": ["report", "-o", "out", "--eval"],
    "report --healing": ["report", "-o", "out", "--healing"],
    "run": ["run", "-m", "./nowhere", "-o", "out"],
    "run --heal": ["run", "-m", "./nowhere", "-o", "out", "--heal"],
    "run --bench": ["run", "-m", "./nowhere", "-o", "out", "--bench"],
    "heal": ["heal", "-o", "out", "--method", "cpt", "--steps", "1", "--data", "{w}/text.txt"],
    "heal --data": ["heal", "{w}/llama", "-o", "out", "--method", "cpt", "--steps", "1", "--data"],
    "heal --recipe": ["heal", "{w}/llama", "-o", "out", "--data", "{w}/text.txt", "--recipe"],
}  # fmt: skip
OUTPUTS = {
    "score -o": ["score", *MODEL, "-c", "magnitude", "-o"],
    "choose -o": ["choose", "{w}/scores.json", "--blocks", "1", "-o"],
    "cut -o": ["cut", *MODEL, "--remove", "1", "--no-verify", "-o"],
    "report -o": ["report", "--plan", "{w}/plan.json", "-o"],
}  # fmt: skip
ODD = {
    "of nobody": "~nosuchuser/x", "zero byte": "a\0b", "no UTF-8": "\udcff\udcfe", "5000 characters": "x" * 5000,
    "300 in a part": "y/" + "x" * 300, "many parts": "a/" * 2000, "newlines": "a\nb\nc", "empty": "",
}  # fmt: skip
MADE = {
    "folder": "{in}/folder", "pipe": "{in}/pipe", "dangling": "{in}/dangling", "loop": "{in}/loop",
    "empty file": "{in}/empty", "binary file": "{in}/binary", "empty .json": "{in}/empty.json",
    "below a file": "{in}/empty/x", "zeros": "/dev/zero", "standard input": "/dev/stdin", "memory": "/proc/self/mem",
}  # fmt: skip


def odd_files(world: World, folder: Path) -> None:
    """One of each."""
    (folder / "folder").mkdir()
    os.mkfifo(folder / "pipe")
    (folder / "dangling").symlink_to("nowhere")
    (folder / "loop").symlink_to("loop")
    (folder / "empty").touch()
    (folder / "empty.json").touch()
    (folder / "binary").write_bytes(bytes(range(256)) * 40)


def cases() -> list[Case]:
    """Every input by every odd name; every output by names that can't be written."""
    found = [
        Case(f"{what} {kind}", [*args, value], odd_files, long=args[0] in ("eval", "heal"), valid=value == "")
        for what, args in INPUTS.items()
        for kind, value in (ODD | MADE).items()
    ]
    outputs = ODD | {kind: MADE[kind] for kind in ("pipe", "loop", "below a file", "zeros", "empty file")}
    outputs = {
        kind: value for kind, value in outputs.items() if kind not in ("of nobody", "newlines", "many parts", "loop")
    }
    return found + [
        Case(f"{what} {kind}", [*args, value], odd_files)
        for what, args in OUTPUTS.items()
        for kind, value in outputs.items()
    ]
