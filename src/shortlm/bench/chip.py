"""The name of the chip that figures are from."""

from __future__ import annotations

import torch


def device_name(device: torch.device) -> str:
    """What stands on the chip."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type != "cpu":
        return device.type
    return _cpu_name()


def _cpu_name() -> str:
    import platform
    from contextlib import suppress

    with suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as lines:
        for line in lines:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
