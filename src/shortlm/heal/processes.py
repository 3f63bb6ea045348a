"""The processes that accelerate or torchrun started, if there are any."""

from __future__ import annotations

import os

import torch

from shortlm.errors import HealError


def join_processes(device: torch.device) -> None:
    """Meet the others. Raises HealError where FSDP can't be had: on a CPU it would silently be DDP."""
    from accelerate import PartialState

    if fsdp() and device.type == "cpu":
        raise HealError("FSDP needs accelerators and the device is cpu; leave FSDP out, or choose another --device")
    PartialState(cpu=device.type == "cpu")


def fsdp() -> bool:
    """Whether accelerate was told to shard the model."""
    return os.environ.get("ACCELERATE_USE_FSDP", "false").lower() in ("true", "1")


def ranks() -> tuple[int, int]:
    """This process and how many there are."""
    group = torch.distributed
    return (group.get_rank(), group.get_world_size()) if group.is_available() and group.is_initialized() else (0, 1)


def wait_for_all() -> None:
    """Until every process is here."""
    from accelerate import PartialState

    PartialState().wait_for_everyone()
