"""What is trained, by method: adapters on the blocks, all parameters, or the head and the last blocks.

Weights that are trained are float32, frozen ones stay in the type of their files; `precision` is that of the matrix
products.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from shortlm.errors import ModelError, RecipeError
from shortlm.heal.adapters import adapted, need, refuse_rank
from shortlm.heal.processes import deepspeed, fsdp
from shortlm.model import (
    ModelFiles,
    auto_class,
    block_count,
    context_of,
    find_anatomy,
    load_strictly,
    meta_model,
    of_other_towers,
)
from shortlm.recipe import PhaseSettings

ADAPTED = ("lora", "qlora")


def open_trained(files: ModelFiles, settings: PhaseSettings) -> Any:
    """The model with what the method trains made trainable. Raises ModelError where the method can't be had."""
    if settings.method == "qlora":
        return adapted(_quantised(files, precision(settings, files.device)), settings)
    own = settings.method == "lora" and precision(settings, files.device) != "float32"
    update = {"dtype": "auto" if own else "float32"}
    if fsdp() or deepspeed():  # which bring each part to its device
        update["device"] = "cpu"
    model = load_strictly(files.checkpoint.folder, files.config, files.settings.model_copy(update=update))
    return make_trainable(model, settings)


def check_method(files: ModelFiles, settings: PhaseSettings) -> None:
    """Raise ModelError or RecipeError for what the method needs and the model or this place does not have."""
    if getattr(files.config, "quantization_config", None):
        raise ModelError(f"{files.settings.model}: is quantised; heal the unquantised model, then quantise the result")
    if settings.method in ADAPTED:
        need("peft", settings.method)
        refuse_rank(meta_model(files.config, files.settings.trust_remote_code), settings)
    if settings.method == "qlora":
        need("bitsandbytes", "qlora")
    blocks, context = block_count(files.config), context_of(files.config)
    if settings.method == "last-layers" and settings.last > blocks:
        raise RecipeError(f"--last {settings.last}: the model has {blocks} blocks")
    if context is not None and settings.length > context:
        raise RecipeError(f"--length {settings.length}: the model has {context} positions; give so many at most")


def make_trainable(model: Any, settings: PhaseSettings) -> Any:
    """Mark what the method trains; with adapters, the model that holds them."""
    if settings.method == "lora":
        return adapted(model, settings)
    if settings.method == "last-layers":
        anatomy = find_anatomy(model)
        for module in (anatomy.head, *anatomy.blocks[-settings.last :]):
            module.requires_grad_(True)
        return model
    model.requires_grad_(True)
    for name in of_other_towers(model, find_anatomy(model).blocks_path):
        model.get_parameter(name).requires_grad_(False)
    return model


def _quantised(files: ModelFiles, kind: str) -> Any:
    """The base in 4-bit NF4 with double quantisation (QLoRA, 2305.14314)."""
    from transformers import BitsAndBytesConfig

    from shortlm.model import quiet

    if files.device.type == "mps":
        raise ModelError("qlora: bitsandbytes has no 4-bit training on mps; use --method lora, or --device cpu")
    config = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=getattr(torch, kind),
    )  # fmt: skip
    try:
        with quiet():
            model: Any = auto_class(files.config).from_pretrained(
                files.checkpoint.folder, config=files.config, quantization_config=config,
                device_map={"": str(files.device)}, trust_remote_code=files.settings.trust_remote_code,
            )  # fmt: skip
    except (RuntimeError, ValueError, ImportError, OSError) as error:
        reason = str(error).strip().splitlines()[0][:200]
        raise ModelError(f"qlora: the 4-bit base can't be had here ({reason}); use --method lora") from error
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            # A validation would turn the weights into a layout for inference, through which no gradient goes back.
            module.support_avx512bf16_for_cpu = False
    return model.requires_grad_(False)


def precision(settings: PhaseSettings, device: torch.device) -> str:
    """The type of matrix products; bfloat16 is taken where the device has instructions for it."""
    if settings.precision != "auto":
        return settings.precision
    if device.type == "cpu":  # bfloat16 without such instructions is slower than float32
        fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    else:
        fast = device.type == "cuda" and torch.cuda.get_device_capability(device)[0] >= 8
    return "bfloat16" if fast else "float32"


def precision_words(model: Any, kind: str, optimizer: str) -> str:
    """In which types a phase keeps its weights, computes, and remembers: what memory and rounding depend on.

    Optimizers keep their state in the type of the weights but for those whose name says its bits.
    """
    trained = _types(p for p in model.parameters() if p.requires_grad)
    frozen = _types(p for p in model.parameters() if not p.requires_grad)
    products = f"matrix products in {kind}" + " by autocast" * (kind != "float32")
    bits = next((bits for bits in ("8", "4") if f"{bits}bit" in optimizer), "")
    state = f"{optimizer} keeps its state in {f'{bits} bits' if bits else trained}"
    return f"trained weights in {trained}, {f'frozen ones in {frozen}, ' if frozen else ''}{products}, {state}"


def _types(parameters: Iterable[torch.Tensor]) -> str:
    names = {"uint8": "4-bit NF4"}  # which bitsandbytes packs into bytes
    found = sorted({str(p.dtype).removeprefix("torch.") for p in parameters})
    return " and ".join(names.get(name, name) for name in found)
