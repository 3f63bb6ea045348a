"""The processes that accelerate or torchrun started, if there are any."""

from __future__ import annotations

import os
from datetime import timedelta

import torch

from shortlm.errors import HealError
from shortlm.sweep import distributed_errors

PATIENCE = timedelta(hours=12)  # the first process merges, cuts and checks while the others wait


def join_processes(device: torch.device) -> None:
    """Meet the others. Raises HealError where FSDP can't be had: on a CPU it would silently be DDP."""
    from accelerate import PartialState

    if fsdp():
        _refuse_fsdp(device)
    group = torch.distributed
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not group.is_initialized():
        backend = "gloo" if device.type == "cpu" else "cpu:gloo,cuda:nccl"  # accelerate takes nccl alone
        with distributed_errors(consequence=""):
            group.init_process_group(backend, timeout=PATIENCE)
    PartialState(cpu=device.type == "cpu")


def _refuse_fsdp(device: torch.device) -> None:
    """What would fail late, or silently do something else."""
    if device.type == "cpu":
        raise HealError("FSDP needs accelerators and the device is cpu; leave FSDP out, or choose another --device")
    wanted = {"FSDP_VERSION": "2", "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT", "FSDP_CPU_RAM_EFFICIENT_LOADING": "false"}
    for name, value in wanted.items():
        found = os.environ.get(name, value)
        if found.lower() != value.lower():
            raise HealError(f"FSDP: {name.lower()} is {found} and {value} is needed; shortlm recipes copy cluster")


def fsdp() -> bool:
    """Whether accelerate was told to shard the model."""
    return os.environ.get("ACCELERATE_USE_FSDP", "false").lower() in ("true", "1")


def deepspeed() -> bool:
    """Whether accelerate was told to use DeepSpeed."""
    return os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() in ("true", "1")


def load_whole() -> None:
    """With DeepSpeed's ZeRO-3, transformers would load models in pieces; ours are loaded whole and split later."""
    if deepspeed():
        from transformers.integrations import unset_hf_deepspeed_config

        unset_hf_deepspeed_config()


def ranks() -> tuple[int, int]:
    """This process and how many there are."""
    group = torch.distributed
    return (group.get_rank(), group.get_world_size()) if group.is_available() and group.is_initialized() else (0, 1)


def wait_for_all() -> None:
    """Until every process is here. Raises RankError if one has ended."""
    from accelerate import PartialState

    with distributed_errors(consequence=""):
        PartialState().wait_for_everyone()
