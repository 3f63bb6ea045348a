"""Devices that are not there, or that can't compute."""

from __future__ import annotations

from hostile.case import Case
from hostile.numbers import MODEL

NAMES = ["privateuseone", "privateuseone:0", "meta", "cuda", "cuda:99", "cuda:-1", "cuda:x", "mps", "xla", "hip", "cpu:1",
         "cpu:99999999999", "nonsense", "", "CPU ", "auto:1", "x" * 5000, "vulkan", "fpga", "mtia", "xpu"]  # fmt: skip
COMMANDS = [
    ["score", *MODEL, "-c", "magnitude"],
    ["eval", *MODEL, "--sequences", "2", "--new-tokens", "0"],
    ["cut", "-m", "{w}/llama", "--remove", "2", "-o", "out"],
]


def cases() -> list[Case]:
    """Every command that takes a device, with each."""
    return [
        Case(f"{args[0]} --device {name[:20]}", [*args, f"--device={name}"], valid=True)
        for args in COMMANDS
        for name in NAMES
    ]
