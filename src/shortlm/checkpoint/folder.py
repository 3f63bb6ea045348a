"""A checkpoint on disk: where it is, and which tensor lies at which bytes of which file.

Reads safetensors headers only (8 bytes of length, then JSON); weights are read by whoever needs them.
Everything is checked here, before any work starts: shards that are missing, cut short or damaged, and
an index that points outside the folder.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import prod
from pathlib import Path, PurePosixPath, PureWindowsPath

from shortlm.checkpoint.headers import TensorEntry, read_header
from shortlm.checkpoint.hub import fetched
from shortlm.documents import read_json
from shortlm.embedded import model_path
from shortlm.errors import ModelError, shown
from shortlm.paths import is_text, user_path

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
MOST_INDEX = 64 * 2**20


@dataclass(frozen=True)
class Checkpoint:
    """A folder with config.json and safetensors weights."""

    folder: Path
    name: str
    revision: str | None
    tensors: dict[str, TensorEntry]

    @property
    def nbytes(self) -> int:
        """Size of all tensors in bytes."""
        return sum(entry.nbytes for entry in self.tensors.values())

    def nbytes_as(self, width: int | None) -> int:
        """The same in a type of `width` bytes per element; None leaves each tensor's own."""
        return sum(prod(e.shape) * width if width else e.nbytes for e in self.tensors.values())


def open_checkpoint(name: str, revision: str | None = None) -> Checkpoint:
    """Find the checkpoint and check its files. Raises ModelError with what is wrong and the way out."""
    folder, revision = locate(name, revision)
    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder}: has no config.json; a Hugging Face checkpoint folder is needed")
    tensors = _tensors(folder)
    return Checkpoint(folder, name, revision, tensors)


def short_names(names: list[str]) -> list[str]:
    """The last part of each name or path; where two are the same, with the part before it, or else numbered."""
    short = [_last(name, 1) for name in names]
    short = [_last(name, 2) if short.count(s) > 1 else s for name, s in zip(names, short, strict=True)]
    return [f"{s} ({short[: i + 1].count(s)})" if short.count(s) > 1 else s for i, s in enumerate(short)]


def _last(name: str, parts: int) -> str:
    return "/".join(user_path(name).parts[-parts:]).lstrip("/") or name


def locate(name: str, revision: str | None = None, weights: bool = True) -> tuple[Path, str | None]:
    """The local folder of a checkpoint (fetched if it is a hub id) and its commit."""
    if name == "embedded":
        return model_path(), None
    folder = user_path(name)
    if folder.is_dir():
        return folder, None
    if folder.exists():
        raise ModelError(f"{name}: is a file; a checkpoint folder or a hub id is needed")
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise ModelError(f"{name}: no such folder (and no hub id: those look like owner/name); check the path")
    return fetched(name, revision, _shards if weights else None)


def _tensors(folder: Path) -> dict[str, TensorEntry]:
    if (folder / INDEX).is_file():
        return _indexed(folder)
    if (folder / SINGLE).is_file():
        return read_header(folder / SINGLE)
    if list(folder.glob("*.bin")):
        raise ModelError(
            f"{folder}: holds pickled .bin weights only; save it as safetensors first "
            "(AutoModelForCausalLM.from_pretrained(...).save_pretrained(...))"
        )
    raise ModelError(
        f"{folder}: has no weights ({SINGLE} or {INDEX}); download the checkpoint again, "
        "or convert it first if its repository holds pickled .bin weights only"
    )


def _indexed(folder: Path) -> dict[str, TensorEntry]:
    weight_map = _weight_map(folder / INDEX)
    entries: dict[str, TensorEntry] = {}
    for shard in sorted(set(weight_map.values())):
        for name, entry in read_header(folder / shard).items():
            if weight_map.get(name) == shard:  # else a tensor of this name in another shard is the one that is meant
                entries[name] = entry
    for name, shard in weight_map.items():
        if name not in entries:
            raise ModelError(
                f"{folder / shard}: lacks tensor {shown(name)} that {INDEX} names; download the shard again"
            )
    return {name: entries[name] for name in weight_map}


def _weight_map(path: Path) -> dict[str, str]:
    """Which shard holds each tensor, by the index; the shards are inside the folder."""
    index = read_json(path, ModelError, MOST_INDEX)
    weight_map = index.get("weight_map") if isinstance(index, dict) else None
    if not (isinstance(weight_map, dict) and weight_map and all(_is_name(v) for v in weight_map.values())):
        raise ModelError(f"{path}: is not a valid index; download the checkpoint again")
    for shard in sorted(set(weight_map.values())):
        _refuse_outside(path, shard)
    return {name: PurePosixPath(shard).as_posix() for name, shard in weight_map.items()}


def _is_name(shard: object) -> bool:
    return isinstance(shard, str) and 0 < len(shard) <= 255 and "\0" not in shard and is_text(shard)


def _shards(folder: Path) -> list[str]:
    """The weight files of a checkpoint of which the small files are here."""
    index = folder / INDEX
    return sorted(set(_weight_map(index).values())) if index.is_file() else [SINGLE]


def _refuse_outside(index: Path, shard: str) -> None:
    parts = PurePosixPath(shard).parts + PureWindowsPath(shard).parts
    if ".." in parts or PurePosixPath(shard).is_absolute() or PureWindowsPath(shard).drive:
        raise ModelError(
            f"{index}: names the shard {shown(shard)}, which is outside the folder; this index is not trusted"
        )


def block_prefix(checkpoint: Checkpoint, blocks_path: str, n_blocks: int) -> str:
    """How block names begin in the files: the module path, with or without the base model's name before it.

    Raises ModelError if the files don't hold all blocks.
    """
    parts = blocks_path.split(".")
    candidates = [".".join(parts[i:]) + "." for i in range(len(parts))]
    for prefix in candidates:
        found = {m[1] for name in checkpoint.tensors if (m := re.match(re.escape(prefix) + r"(\d+)\.", name))}
        if len(found) >= n_blocks and found >= {str(i) for i in range(n_blocks)}:
            return prefix
    raise ModelError(
        f"{checkpoint.name}: the weight files don't hold blocks 0..{n_blocks - 1} under '{candidates[0]}'; "
        "are these files of another model than config.json tells?"
    )
