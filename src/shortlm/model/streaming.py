"""Blocks that stay on disk until the sweep reaches them.

The model is opened as a skeleton: embeddings, norm and head in memory, every block empty (on the meta
device). `DiskBlocks.visit` brings one block after the other, reading the next one in a thread while this one
computes. Memory: what stands outside the blocks, and two blocks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import nn

from shortlm.errors import ModelError
from shortlm.model.anatomy import find_anatomy
from shortlm.model.checkpoint import Checkpoint, TensorEntry, block_prefix
from shortlm.model.config import cut_config

DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
    "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
Tensors = dict[str, torch.Tensor]


def read_tensors(entries: dict[str, TensorEntry], pin: bool = False) -> Tensors:
    """Read tensors from their shards into memory of their own (a memory map's pages would count as resident).

    Raises ModelError if a shard has disappeared or is cut short meanwhile.
    """
    tensors = {}
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].file, item[1].begin)):
        if entry.dtype not in DTYPES:
            raise ModelError(f"{entry.file}: '{entry.name}' is of type {entry.dtype}, which can't be streamed")
        raw = torch.empty(entry.nbytes, dtype=torch.uint8, pin_memory=pin)
        try:
            with entry.file.open("rb", buffering=0) as file:
                file.seek(entry.begin)
                _fill(memoryview(raw.numpy()), file, entry)
        except FileNotFoundError as error:
            raise ModelError(
                f"{entry.file}: shard has disappeared while it was needed; put it back and try again"
            ) from error
        tensors[name] = raw.view(DTYPES[entry.dtype]).view(entry.shape)
    return tensors


def _fill(target: memoryview, file: Any, entry: TensorEntry) -> None:
    done = 0
    while done < len(target):
        count = file.readinto(target[done:])
        if not count:
            raise ModelError(f"{entry.file}: shard ended while '{entry.name}' was read; was it changed meanwhile?")
        done += count


class DiskBlocks:
    """The blocks of a skeleton, filled from the checkpoint one at a time."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        config: Any,
        dtype: torch.dtype,
        device: torch.device,
        trust_remote_code: bool = False,
    ):
        self.config, self.dtype, self.device = config, dtype, device
        self.model = _skeleton(config, dtype, trust_remote_code)
        self.anatomy = find_anatomy(self.model)
        self.blocks, self.path = self.anatomy.blocks, self.anatomy.blocks_path
        self.prefix = block_prefix(checkpoint, self.path, len(self.blocks))
        self.inside, self.outside = _parted(checkpoint, self.prefix, len(self.blocks))
        self._fill_outside()

    def visit(self, order: Sequence[int]) -> Iterator[int]:
        """Yield each index of `order` while that block is in memory; the next one is read meanwhile."""
        with ThreadPoolExecutor(1, thread_name_prefix="shortlm-reader") as reader:
            coming = reader.submit(self._read, order[0])
            for position, i in enumerate(order):
                tensors = coming.result()
                if position + 1 < len(order):
                    coming = reader.submit(self._read, order[position + 1])
                self.blocks[i].load_state_dict(tensors, strict=True, assign=True)
                del tensors
                try:
                    yield i
                finally:
                    _emptied(self.blocks[i])

    def _read(self, i: int) -> Tensors:
        """Block i under its own names, in the compute type, on the device."""
        tensors = read_tensors(self.inside[i], pin=self.device.type == "cuda")
        if tensors.keys() != self.blocks[i].state_dict().keys():
            tensors = self._converted(i, tensors)
        return {n: t.to(self.device, self._type(n) if t.is_floating_point() else None) for n, t in tensors.items()}

    def _type(self, name: str) -> torch.dtype:
        """The compute type, but float32 for what the architecture keeps in it (as transformers does while loading)."""
        kept = set(getattr(self.model, "_keep_in_fp32_modules_strict", None) or ())
        if self.dtype == torch.float16:
            kept |= set(getattr(self.model, "_keep_in_fp32_modules", None) or ())
        return torch.float32 if any(part in kept for part in name.split(".")) else self.dtype

    def _converted(self, i: int, tensors: Tensors) -> Tensors:
        """Checkpoints whose files hold a block under other names than the module (Mixtral's single experts).

        transformers converts while it loads: so it loads a model of this one block.
        """
        named = {f"{self.prefix}0.{name}": tensor for name, tensor in tensors.items()}
        return find_anatomy(self._one_block(i, named)).blocks[0].state_dict()

    def _one_block(self, i: int, named: Tensors) -> Any:
        from shortlm.model.opening import quiet

        with quiet():
            model, info = type(self.model).from_pretrained(
                None, config=cut_config(self.config, [i]), state_dict={**read_tensors(self.outside), **named},
                dtype=self.dtype, output_loading_info=True,
            )  # fmt: skip
        wrong = [*info["missing_keys"], *info["unexpected_keys"], *info["mismatched_keys"]]
        if wrong:
            raise ModelError(f"block {i}: the files don't fit config.json ({sorted(map(str, wrong))[0]})")
        return model

    def _fill_outside(self) -> None:
        """Embeddings, norm and head, by way of a model of one block, which knows conversions and ties."""
        first = {f"{self.prefix}0.{n}": t for n, t in read_tensors(self.inside[0]).items()}
        one = self._one_block(0, first)
        for name, parameter in one.named_parameters(remove_duplicate=False):
            if not name.startswith(self.path + "."):
                _put(self.model, name, nn.Parameter(parameter.to(self.device), requires_grad=False))
        self.model.tie_weights()
        for name, buffer in self.model.named_buffers():
            _put(self.model, name, buffer.to(self.device))


def _skeleton(config: Any, dtype: torch.dtype, trust_remote_code: bool) -> Any:
    """The model with real buffers (rotary tables are in no checkpoint) and without memory for its weights."""
    from accelerate import init_empty_weights
    from transformers import AutoModelForCausalLM

    with init_empty_weights(include_buffers=False):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=trust_remote_code)
    return model.requires_grad_(False).eval()


def _parted(
    checkpoint: Checkpoint, prefix: str, count: int
) -> tuple[list[dict[str, TensorEntry]], dict[str, TensorEntry]]:
    """The tensors of each block under their names within the block, and all others."""
    inside: list[dict[str, TensorEntry]] = [{} for _ in range(count)]
    outside = {}
    for name, entry in checkpoint.tensors.items():
        match = re.fullmatch(re.escape(prefix) + r"(\d+)\.(.*)", name)
        if match is None:
            outside[name] = entry
        elif int(match[1]) < count:
            inside[int(match[1])][match[2]] = entry
    return inside, outside


def _put(model: nn.Module, name: str, tensor: torch.Tensor) -> None:
    path, _, leaf = name.rpartition(".")
    module: Any = model.get_submodule(path)
    (module._parameters if leaf in module._parameters else module._buffers)[leaf] = tensor


def _emptied(block: nn.Module) -> None:
    for module in block.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                module._parameters[name] = nn.Parameter(parameter.detach().to("meta"), requires_grad=False)
