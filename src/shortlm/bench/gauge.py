"""What the GPU says of itself while it works, through NVML (nvidia-ml-py): utilisation and energy. Nothing elsewhere.

Utilisation is sampled every half second, as in Shortened LLaMA (arXiv 2402.02834); energy is the device's own counter.
"""

from __future__ import annotations

import threading
from importlib import import_module
from typing import Any

import torch

PERIOD = 0.5


class Gauge:
    """Within it, the GPU is watched. `utilisation` (0 to 1) and `joules` stay None where they can't be had."""

    def __init__(self, device: torch.device):
        self.device, self.utilisation, self.joules = device, None, None
        self.nvml, self.handle = _handle(device)

    def __enter__(self) -> Gauge:
        if self.handle is None:
            return self
        self.samples: list[float] = []
        self.start = self._energy()
        self.done = threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self.handle is None:
            return
        self.done.set()
        self.thread.join()
        end = self._energy()
        self.joules = None if self.start is None or end is None else (end - self.start) / 1000
        self.utilisation = sum(self.samples) / len(self.samples) / 100 if self.samples else None

    def _watch(self) -> None:
        while not self.done.wait(PERIOD):
            try:
                self.samples.append(float(self.nvml.nvmlDeviceGetUtilizationRates(self.handle).gpu))
            except self.nvml.NVMLError:
                return

    def _energy(self) -> float | None:
        """Millijoules since the driver was loaded; older cards have no such counter."""
        try:
            return float(self.nvml.nvmlDeviceGetTotalEnergyConsumption(self.handle))
        except self.nvml.NVMLError:
            return None


def _handle(device: torch.device) -> tuple[Any, Any]:
    """NVML and its handle of this device; it counts cards otherwise than torch does, so they are matched by UUID."""
    if device.type != "cuda":
        return None, None
    try:
        pynvml: Any = import_module("pynvml")
    except ImportError:
        return None, None
    try:
        pynvml.nvmlInit()
        uuid = str(torch.cuda.get_device_properties(device).uuid)
        return pynvml, pynvml.nvmlDeviceGetHandleByUUID(uuid if uuid.startswith("GPU-") else f"GPU-{uuid}")
    except (pynvml.NVMLError, AttributeError):
        return None, None
