"""Blocks that stay on disk until the sweep reaches them.

The model is opened as a skeleton: norms and other small parts in memory, every block empty (on the meta
device). `DiskBlocks.visit` brings one block after the other, reading the next one in a thread while this one
computes. Of the embeddings only the rows of the tokens at hand are read, and the head comes when it is
needed. Memory: two blocks, or the head.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from shortlm.checkpoint import Checkpoint, TensorEntry
from shortlm.errors import ModelError
from shortlm.heap import give_back
from shortlm.model.anatomy import find_anatomy, of_other_towers
from shortlm.model.config import cut_config
from shortlm.model.file_names import names_in_model, prefix_of_blocks
from shortlm.model.language import auto_class
from shortlm.model.mtp import mtp_names
from shortlm.model.reading import Buffer, Tensors, dtype_of, read_rows, read_tensors


class DiskBlocks:
    """The blocks of a skeleton, filled from the checkpoint one at a time; its embeddings and head, when needed."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        config: Any,
        dtype: torch.dtype,
        device: torch.device,
        trust_remote_code: bool = False,
    ):
        self.config, self.dtype, self.device = config, dtype, device
        self.model = skeleton(config, dtype, trust_remote_code)
        self.anatomy = find_anatomy(self.model)
        self.blocks, self.path = self.anatomy.blocks, self.anatomy.blocks_path
        self.checkpoint = checkpoint
        self.prefix = prefix_of_blocks(self.model, checkpoint)
        self.inside, outside = split_by_block(checkpoint, self.prefix, len(self.blocks))
        unused = {*mtp_names(config, outside)}
        self.outside = {name: entry for name, entry in outside.items() if name not in unused}
        self._refuse_unfit(checkpoint)
        self.table: TensorEntry | None = None  # the embeddings' and the head's weight in the files,
        self.head: TensorEntry | None = None  # or None if they are in memory all the time
        self.rows: _RowLookUp | None = None
        self.bytes_read = 0
        self._copies = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._fill_outside()

    def _refuse_unfit(self, checkpoint: Checkpoint) -> None:
        """Raise ModelError for what would be found out block by block, or not at all."""
        if getattr(self.config, "quantization_config", None):
            raise ModelError(f"{checkpoint.name}: is quantised, which can't be read block by block; give --stream off")
        for i, block in enumerate(self.blocks):
            for name, wanted in block.state_dict().items() if self._plain(i) else ():
                found = self.inside[i][name].shape
                if found != tuple(wanted.shape):
                    raise ModelError(
                        f"{checkpoint.name}: '{name}' of block {i} is {list(found)} in the files and "
                        f"{list(wanted.shape)} by config.json; are these files of another model?"
                    )

    def visit(self, order: Sequence[int]) -> Iterator[int]:
        """Yield each index of `order` while that block is in memory; the next one is read meanwhile."""
        buffers = self._buffers(len(order))
        with ThreadPoolExecutor(1, thread_name_prefix="shortlm-reader") as reader:
            coming = reader.submit(self._read, order[0], buffers[0])
            for position, i in enumerate(order, start=1):
                tensors = coming.result()
                if position < len(order):  # into the memory of the block before, which is done with
                    coming = reader.submit(self._read, order[position], buffers[position % 2])
                self._hand_over(tensors)
                self.blocks[i].load_state_dict(tensors, strict=True, assign=True)
                del tensors
                try:
                    yield i
                finally:
                    _emptied(self.blocks[i])
                give_back()  # what calls of a block leave in the heap would add up, by chance more or less of it

    @contextmanager
    def head_in_memory(self) -> Generator[None, None, None]:
        """The head's weight is there inside; it is read anew each time, since two blocks take its room meanwhile."""
        weight = self.anatomy.head.weight
        if self.head is None or weight.device.type != "meta":
            yield
            return
        try:
            self.anatomy.head._parameters["weight"] = self._parameter("weight", self.head)
            yield
        finally:
            self.anatomy.head._parameters["weight"] = weight

    def _parameter(self, name: str, entry: TensorEntry) -> nn.Parameter:
        self.bytes_read += entry.nbytes
        return nn.Parameter(self._placed(name, read_tensors({name: entry})[name]), requires_grad=False)

    def _buffers(self, count: int) -> list[Buffer | None]:
        """For the block in use and for the next one; blocks that are converted come in memory of their own."""
        if not all(self._plain(i) for i in range(len(self.blocks))):
            return [None, None]
        pin = self._copies is not None
        return [Buffer(self.inside, self._wanted, pin) for _ in range(min(count, 2))]

    def _plain(self, i: int) -> bool:
        """Whether the files name block i's tensors as the module does."""
        return self.inside[i].keys() == self.blocks[i].state_dict().keys()

    def _read(self, i: int, buffer: Buffer | None) -> Tensors:
        """Block i under its own names, in the compute type, on the device. Runs in the reader's thread."""
        tensors = buffer.read(self.inside[i]) if buffer else read_tensors(self.inside[i])
        self.bytes_read += sum(entry.nbytes for entry in self.inside[i].values())
        if not self._plain(i):
            tensors = self._converted(i, tensors)
        if self._copies is None:
            return {n: self._placed(n, tensors.pop(n)) for n in list(tensors)}
        with torch.cuda.stream(self._copies):  # beside the computation, not in line with it
            placed = {n: self._placed(n, t) for n, t in tensors.items()}
        self._copies.synchronize()  # until then the page-locked source must live
        return placed

    def _hand_over(self, tensors: Tensors) -> None:
        """Tell the allocator that the computing stream uses what the copying stream made."""
        if self._copies is not None:
            for tensor in tensors.values():
                tensor.record_stream(torch.cuda.current_stream(self.device))

    def _placed(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.to(self.device, self._wanted(name, tensor.dtype), non_blocking=self._copies is not None)

    def _wanted(self, name: str, stored: torch.dtype) -> torch.dtype:
        """The compute type, but float32 for what the architecture keeps in it (as transformers does); no numbers: as
        stored.
        """
        if not stored.is_floating_point:
            return stored
        kept = set(getattr(self.model, "_keep_in_fp32_modules_strict", None) or ())
        if self.dtype == torch.float16:
            kept |= set(getattr(self.model, "_keep_in_fp32_modules", None) or ())
        return torch.float32 if any(part in kept for part in name.split(".")) else self.dtype

    def _converted(self, i: int, tensors: Tensors) -> Tensors:
        """Checkpoints whose files hold a block under other names than the module (Mixtral's single experts).

        transformers converts while it loads: so it loads a model of this one block. What stands outside is
        zeros there, of which the system gives memory only when they are touched.
        """
        named = {f"{self.prefix}0.{name}": tensor for name, tensor in tensors.items()}
        outside = {name: torch.zeros(e.shape, dtype=dtype_of(e)) for name, e in self.outside.items()}
        return find_anatomy(self._one_block(i, {**outside, **named})).blocks[0].state_dict()

    def _one_block(self, i: int, state: Tensors) -> Any:
        from shortlm.model.opening import quiet

        with quiet():
            model, info = type(self.model).from_pretrained(
                None, config=cut_config(self.config, [i]), state_dict=state, dtype=self.dtype,
                output_loading_info=True,
            )  # fmt: skip
        wrong = [*info["missing_keys"], *info["unexpected_keys"], *info["mismatched_keys"]]
        if wrong:
            raise ModelError(f"block {i}: the files don't fit config.json ({sorted(map(str, wrong))[0]})")
        return model

    def _fill_outside(self) -> None:
        """Norms and the like into memory; embeddings and head stay on disk where the files hold them as they are."""
        places = self._places()
        if places is None:
            self._fill_by_conversion()
        else:
            self._leave_on_disk(places)
            unused = of_other_towers(self.model, self.path)  # by text alone, so they stay where they are
            for name, entry in places.items():
                if entry not in (self.table, self.head) and name not in unused:
                    self._put_tied(name, self._parameter(name, entry))
        for name, buffer in self.model.named_buffers():
            _put(self.model, name, buffer.to(self.device))

    def _places(self) -> dict[str, TensorEntry] | None:
        """Parameter -> its place in the files, of all outside the blocks; None if names or shapes don't match.

        Parameters that are tied have one place; if the files hold two, transformers has to say which counts.
        """
        wanted = {n: t for n, t in self.model.state_dict(keep_vars=True).items() if not n.startswith(self.path + ".")}
        names = names_in_model(self.model, self.checkpoint)
        places = {names[file]: entry for file, entry in self.outside.items()}
        if any(name not in wanted or wanted[name].shape != entry.shape for name, entry in places.items()):
            return None
        found = [id(wanted[name]) for name in places]
        once = len(found) == len(set(found)) and set(found) == {id(tensor) for tensor in wanted.values()}
        return places if once else None

    def _leave_on_disk(self, places: dict[str, TensorEntry]) -> None:
        parameters = dict(self.model.named_parameters(remove_duplicate=False))
        by_identity = {id(parameters[name]): entry for name, entry in places.items() if name in parameters}
        embeddings, head = self.model.get_input_embeddings(), self.anatomy.head
        if isinstance(embeddings, nn.Embedding) and embeddings.max_norm is None:
            self.table = by_identity.get(id(embeddings.weight))
            embeddings.padding_idx = None  # matters for gradients only, and may be beyond the rows at hand
            self.rows = embeddings.forward = _RowLookUp(self, embeddings)
        if isinstance(head, nn.Linear):
            self.head = by_identity.get(id(head.weight))

    def _put_tied(self, name: str, parameter: nn.Parameter) -> None:
        tensors = self.model.state_dict(keep_vars=True)
        for other in [n for n, t in tensors.items() if t is tensors[name]]:
            _put(self.model, other, parameter)

    def _fill_by_conversion(self) -> None:
        """By way of a model of one block, which knows conversions and ties."""
        first = {f"{self.prefix}0.{n}": t for n, t in read_tensors(self.inside[0]).items()}
        one = self._one_block(0, {**read_tensors(self.outside), **first})
        self.bytes_read += sum(entry.nbytes for entry in (*self.outside.values(), *self.inside[0].values()))
        for name, parameter in one.named_parameters(remove_duplicate=False):
            if not name.startswith(self.path + "."):
                _put(self.model, name, nn.Parameter(parameter.to(self.device), requires_grad=False))
        self.model.tie_weights()


class _RowLookUp:
    """The embeddings' forward on the rows of the tokens at hand; rows are kept until the next pass over the blocks."""

    def __init__(self, disk: DiskBlocks, embeddings: nn.Embedding):
        self.disk, self.embeddings, self.original = disk, embeddings, embeddings.forward
        self.forget()

    def forget(self) -> None:
        """Free the rows."""
        self.known = torch.empty(0, dtype=torch.long)
        self.rows = torch.empty(0, device=self.disk.device, dtype=self.embeddings.weight.dtype)

    def __call__(self, ids: torch.Tensor) -> torch.Tensor:
        disk, embeddings = self.disk, self.embeddings
        full = embeddings._parameters["weight"]
        if disk.table is None:
            return self.original(ids)
        wanted = ids.unique().cpu()
        self._read(disk.table, wanted[~torch.isin(wanted, self.known)])
        try:
            embeddings._parameters["weight"] = nn.Parameter(self.rows, requires_grad=False)
            return self.original(torch.searchsorted(self.known.to(ids.device), ids))
        finally:
            embeddings._parameters["weight"] = full

    def _read(self, table: TensorEntry, new: torch.Tensor) -> None:
        if not len(new):
            return
        rows = self.disk._placed("weight", read_rows(table, new.tolist()))
        self.disk.bytes_read += table.nbytes // table.shape[0] * len(new)
        known, order = torch.cat([self.known, new]).sort()
        self.known = known
        self.rows = torch.cat([self.rows.view(-1, rows.shape[1]), rows])[order.to(rows.device)]


def skeleton(config: Any, dtype: torch.dtype, trust_remote_code: bool) -> Any:
    """The model with real buffers (rotary tables are in no checkpoint) and without memory for its weights."""
    from accelerate import init_empty_weights

    with init_empty_weights(include_buffers=False):
        model = auto_class(config).from_config(config, dtype=dtype, trust_remote_code=trust_remote_code)
    model.tie_weights()
    return model.requires_grad_(False).eval()


def split_by_block(
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
