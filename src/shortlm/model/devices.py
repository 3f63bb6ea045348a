"""Devices: which one is meant, what is free on it, how many tokens to compute at a time."""

from __future__ import annotations

import os

import psutil
import torch

from shortlm.errors import ModelError, shown

# Of one call, measured: a CPU is fastest while activations stay in its caches, others want to be filled.
CPU_TOKENS, CPU_TRAINING_TOKENS, OTHER_TOKENS = 672, 2048, 16384


def tokens_per_call(device: torch.device, training: bool = False) -> int:
    """Tokens that are computed together where nothing else is asked: in a block of the sweep, or in a micro-batch."""
    if device.type != "cpu":
        return OTHER_TOKENS
    return CPU_TRAINING_TOKENS if training else CPU_TOKENS


def pick_device(name: str) -> torch.device:
    """The device called `name`; 'auto' takes the first accelerator there is. Raises ModelError if it isn't there."""
    if name == "auto":
        accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        return _of_this_rank(accelerator or torch.device("cpu"))
    try:
        device = torch.device(name)
        torch.empty(1, device=device).cpu()  # the meta device can't
    except Exception as error:  # backends that are registered and not built in have their own
        raise ModelError(f"device {shown(name)} is not there; known here: {', '.join(_devices())}") from error
    if device.type == "cpu":  # torch takes a number here, which means nothing and equals no other device
        return torch.device("cpu")
    return _of_this_rank(device)


def planned_device(name: str) -> tuple[torch.device, bool]:
    """The device, and whether it is here; an accelerator that isn't can still be planned for."""
    try:
        return pick_device(name), True
    except ModelError:
        if name.partition(":")[0] not in ("cuda", "mps", "xpu"):
            raise
        return torch.device(name), False


def _of_this_rank(device: torch.device) -> torch.device:
    """Processes that torchrun starts on one machine take one accelerator each."""
    rank = os.environ.get("LOCAL_RANK")
    if rank is None or device.type == "cpu" or device.index is not None:
        return device
    return torch.device(device.type, int(rank))


def _devices() -> list[str]:
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return ["cpu", *([accelerator.type] if accelerator else [])]


def fits(weights: int, free: int) -> bool:
    """Whether weights are loaded whole by default: at most two thirds of the free bytes; the rest is for states."""
    return weights <= 2 / 3 * free


def free_memory(device: torch.device) -> int:
    """Bytes that can still be had on the device; processes of one job on this machine share its memory."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
