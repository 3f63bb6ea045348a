"""A checkpoint on disk: where it is, and which tensor lies at which bytes of which file.

Reads safetensors headers only (8 bytes of length, then JSON); weights are read by whoever needs them.
Everything is checked here, before any work starts: shards that are missing, cut short or damaged, and
an index that points outside the folder.
"""

from __future__ import annotations

import json
import re
import shutil
import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from shortlm.embedded import model_path
from shortlm.errors import ModelError
from shortlm.paths import user_path

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
BITS = {"BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8}
BITS |= {"I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32}
BITS |= {"I64": 64, "U64": 64, "F64": 64, "C64": 64, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6}
MAX_HEADER = 100 * 1024 * 1024  # the format's own limit
CARRIED = ["*.safetensors", "*.json", "*.txt", "*.model", "*.jinja", "*.py", "*.tiktoken", "LICENSE*", "NOTICE*"]
WEIGHTS = re.compile(r".*\.(safetensors|bin|pt|pth|h5|msgpack|ot|onnx|gguf)(\.index\.json)?$")
NOT_CARRIED = {"SHA256SUMS", "config.json", "manifest.json", "README.md", "training.json"}
NOT_CARRIED |= {"log.jsonl", "loss.svg"}  # healing.json is the history of the weights


@dataclass(frozen=True)
class TensorEntry:
    """One tensor: `nbytes` bytes from `begin` (absolute) in `file`."""

    name: str
    file: Path
    dtype: str
    shape: tuple[int, ...]
    begin: int
    nbytes: int


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
    return _fetched(name, revision, weights)


def _fetched(name: str, revision: str | None, weights: bool) -> tuple[Path, str | None]:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    patterns = CARRIED if weights else [p for p in CARRIED if "safetensors" not in p]
    try:
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=patterns))
    except (OSError, ValueError, HfHubHTTPError) as error:
        reason = str(error).strip().split("\n")[0].rstrip(".")
        raise ModelError(
            f"{name}: is no folder here and can't be fetched from the hub ({reason}); "
            "check the name and the network, or give the folder of a downloaded copy"
        ) from error
    return folder, folder.name


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
    raise ModelError(f"{folder}: has no weights ({SINGLE} or {INDEX}); download the checkpoint again")


def _indexed(folder: Path) -> dict[str, TensorEntry]:
    path = folder / INDEX
    try:
        weight_map: dict[str, str] = json.loads(path.read_bytes())["weight_map"]
        shards = sorted({PurePosixPath(name).as_posix() for name in weight_map.values()})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{path}: is not a valid index; download the checkpoint again") from error
    for shard in shards:
        _refuse_outside(path, shard)
    entries = {name: entry for shard in shards for name, entry in read_header(folder / shard).items()}
    for name, shard in weight_map.items():
        if name not in entries:
            raise ModelError(f"{folder / shard}: lacks tensor '{name}' that {INDEX} names; download the shard again")
    return {name: entries[name] for name in weight_map}


def _refuse_outside(index: Path, shard: str) -> None:
    parts = PurePosixPath(shard).parts + PureWindowsPath(shard).parts
    if ".." in parts or PurePosixPath(shard).is_absolute() or PureWindowsPath(shard).drive:
        raise ModelError(f"{index}: names the shard '{shard}', which is outside the folder; this index is not trusted")


def read_header(path: Path) -> dict[str, TensorEntry]:
    """The tensors of one safetensors file. Raises ModelError if it is missing, cut short or damaged."""
    if not path.is_file():
        raise ModelError(f"{path}: shard is missing; download it again")
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else size
        if length > min(size - 8, MAX_HEADER):
            raise ModelError(f"{path}: shard is cut short or damaged (no whole header in {size} bytes)")
        header = _parsed(path, file.read(length))
    entries = {name: _entry(path, name, facts, 8 + length) for name, facts in header.items()}
    end = max((e.begin + e.nbytes for e in entries.values()), default=8 + length)
    if end != size:
        what = "cut short" if end > size else "damaged"
        raise ModelError(f"{path}: shard is {what} ({size} bytes, its header tells of {end}); download it again")
    return entries


def _parsed(path: Path, raw: bytes) -> dict[str, Any]:
    try:
        header = json.loads(raw)
        header.pop("__metadata__", None)
        return header
    except (ValueError, AttributeError) as error:
        raise ModelError(f"{path}: shard is damaged (its header is not JSON); download it again") from error


def _entry(path: Path, name: str, facts: dict[str, Any], base: int) -> TensorEntry:
    try:
        dtype, shape, (begin, end) = facts["dtype"], tuple(facts["shape"]), facts["data_offsets"]
        expected = (BITS[dtype] * prod(shape) + 7) // 8
        wrong = end - begin != expected or begin < 0
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{path}: shard is damaged (entry '{name}' of its header); download it again") from error
    if wrong:
        raise ModelError(f"{path}: shard is damaged ('{name}': {end - begin} bytes for {dtype} {list(shape)})")
    return TensorEntry(name, path, dtype, shape, base + begin, end - begin)


def block_prefix(checkpoint: Checkpoint, blocks_path: str, n_blocks: int) -> str:
    """How block names begin in the files: the module path, with or without the base model's name before it.

    Raises ModelError if the files don't hold all blocks.
    """
    parts = blocks_path.split(".")
    candidates = [".".join(parts[i:]) + "." for i in range(len(parts))]
    for prefix in candidates:
        found = {m[1] for name in checkpoint.tensors if (m := re.match(re.escape(prefix) + r"(\d+)\.", name))}
        if found >= {str(i) for i in range(n_blocks)}:
            return prefix
    raise ModelError(
        f"{checkpoint.name}: the weight files don't hold blocks 0..{n_blocks - 1} under '{candidates[0]}'; "
        "are these files of another model than config.json tells?"
    )


def carry_files(source: Path, folder: Path) -> None:
    """Copy what is neither weights nor rewritten: tokenizer, generation config, licence, remote code."""
    for path in sorted(source.iterdir()):
        hidden_or_weights = path.name.startswith(".") or WEIGHTS.match(path.name)
        if path.is_file() and path.name not in NOT_CARRIED and not hidden_or_weights and _inside(path, source):
            shutil.copyfile(path, folder / path.name)  # without its mode: sources may be read-only


def _inside(path: Path, source: Path) -> bool:
    """Whether a link stays in the checkpoint (or in the hub cache's own store of files beside it)."""
    homes = (source.resolve(), source.resolve().parent.parent / "blobs")
    return any(path.resolve().is_relative_to(home) for home in homes)
