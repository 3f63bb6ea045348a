"""LoRA adapters by PEFT: where they go, and the model that holds them."""

from __future__ import annotations

import re
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from shortlm.checkpoint import read_header
from shortlm.errors import ModelError, RecipeError, did_you_mean
from shortlm.model import find_anatomy, is_composite
from shortlm.recipe import PhaseSettings

ADAPTER = "adapter_model.safetensors"


def adapted(model: Any, settings: PhaseSettings) -> Any:
    """The model with LoRA adapters on the matrices that `targets` name."""
    need("peft", settings.method)
    from peft import LoraConfig, get_peft_model
    from transformers.pytorch_utils import Conv1D

    wanted = target_modules(model, settings.targets)
    transposed = any(isinstance(m, Conv1D) and n.endswith(tuple(wanted)) for n, m in model.named_modules())
    config = LoraConfig(
        r=settings.rank, lora_alpha=settings.alpha, lora_dropout=settings.dropout,
        target_modules=_in_blocks(model, wanted) if is_composite(model.config) else wanted,
        fan_in_fan_out=transposed, task_type="CAUSAL_LM",
    )  # fmt: skip
    torch.manual_seed(settings.seed)  # of the adapters' random halves
    with older_names():
        return get_peft_model(model, config)


def target_modules(model: Any, targets: str) -> list[str]:
    """Names of the matrices, as they end: all of the blocks, of one sublayer, or those that were named."""
    anatomy = find_anatomy(model)
    names = {name for block in anatomy.blocks for name, module in block.named_modules() if _is_matrix(module)}
    if targets in ("attention", "ffn"):
        children = {child for part in getattr(anatomy, targets) for child in part}
        names = {name for name in names if name.split(".")[0] in children}
    elif targets != "blocks":
        ends = {name.rpartition(".")[2] for name in names}
        wanted = [part.strip() for part in targets.split(",")]
        unknown = [part for part in wanted if part not in ends]
        if unknown:
            raise RecipeError(f"--targets {targets}: no matrix '{unknown[0]}'; {did_you_mean(unknown[0], ends)}")
        names = {name for name in names if name.rpartition(".")[2] in wanted}
    if not names:
        raise ModelError(f"{type(model).__name__}: has no plain matrices ({targets}) for adapters; use --method cpt")
    return sorted(names)


def _in_blocks(model: Any, names: list[str]) -> str:
    """As a pattern that only the blocks of the language model fit: towers have matrices of the same names."""
    path = re.escape(find_anatomy(model).blocks_path)
    return rf"{path}\.\d+\.({'|'.join(map(re.escape, names))})"


def refuse_rank(model: Any, settings: PhaseSettings) -> None:
    """Raise RecipeError for a rank beyond the sides of all matrices that get adapters."""
    ends = tuple(target_modules(model, settings.targets))
    matrices = [m for block in find_anatomy(model).blocks for n, m in block.named_modules() if n.endswith(ends)]
    largest = max(max(m.weight.shape) for m in matrices if _is_matrix(m))
    if settings.rank > largest:
        raise RecipeError(f"--rank {settings.rank}: the largest side of a matrix is {largest}; give so much at most")


def _is_matrix(module: Any) -> bool:
    """A linear layer (also quantised), or GPT-2's transposed one."""
    from transformers.pytorch_utils import Conv1D

    return isinstance(module, (torch.nn.Linear, Conv1D))


def with_adapter(model: Any, folder: Path) -> Any:
    """The model with the adapter that was saved in `folder`."""
    need("peft", "an adapter")
    from peft import PeftModel

    with older_names():
        adapted = PeftModel.from_pretrained(model, str(folder)).eval()
    refuse_other_adapter(adapted, folder)
    return adapted


def refuse_other_adapter(model: Any, folder: Path) -> None:
    """Raise ModelError if the file does not hold just the tensors of the model's adapter: PEFT passes over them."""
    from peft import get_peft_model_state_dict

    own = {name: tuple(tensor.shape) for name, tensor in get_peft_model_state_dict(model).items()}
    found = {name: entry.shape for name, entry in read_header(folder / ADAPTER).items()}
    wrong = sorted(name for name in own.keys() | found.keys() if own.get(name) != found.get(name))
    if wrong:
        raise ModelError(f"{ADAPTER}: its tensors are not the adapter's (first: {wrong[0]})")


@contextmanager
def older_names() -> Generator[None, None, None]:
    """PEFT asks transformers by names that it warns of."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        yield


def need(package: str, what: str) -> None:
    """Raise ModelError with the command to install it, if an optional package is not there."""
    if find_spec(package) is None:
        extra = "qlora" if what == "qlora" else "heal"
        raise ModelError(f"{what} needs {package}: pip install 'shortlm[{extra}]'")
