"""Safetensors files and their index: headers that lie, shards elsewhere, tensors of another model."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hostile.case import DEEP, HUGE, Case, World
from hostile.checkpoints import COMMANDS, changed

INDEX = "model.safetensors.index.json"
Change = Callable[[dict[str, Any]], Any]


def _first(header: dict[str, Any]) -> dict[str, Any]:
    return header[next(name for name in header if name != "__metadata__" and len(header[name]["shape"]) == 2)]


def _with(**more: Any) -> Change:
    return lambda header: _first(header).update(more)


def _renamed(header: dict[str, Any]) -> dict[str, Any]:
    return {name.replace(".1.", ".0.") if name.startswith("model") else name: e for name, e in header.items()}


def _swapped(header: dict[str, Any]) -> None:
    _first(header)["shape"].reverse()


HEADERS: dict[str, Change] = {
    "a list": lambda h: [h], "null": lambda h: "null", "empty": lambda h: "{}", "deep": lambda h: DEEP, "not JSON": lambda h: "{",
    "metadata list": lambda h: h.update(__metadata__=[1]), "metadata number": lambda h: h.update(__metadata__={"format": 5}),
    "metadata deep": lambda h: h.update(__metadata__={"format": [[]]}), "dtype 5": _with(dtype=5), "dtype null": _with(dtype=None),
    "dtype unknown": _with(dtype="F31"), "dtype list": _with(dtype=["F32"]), "dtype wider": _with(dtype="F64"), "offsets float": _with(data_offsets=[0.0, 4.0]),
    "offsets negative": _with(data_offsets=[-4, 0]), "offsets beyond": _with(data_offsets=[0, 10**12]), "offsets huge": _with(data_offsets=[0, 10**100]),
    "offsets short": _with(data_offsets=[0]), "offsets text": _with(data_offsets="ab"), "offsets null": _with(data_offsets=None),
    "shape text": _with(shape="ab"), "shape null": _with(shape=None), "shape float": _with(shape=[2.5]), "shape negative": _with(shape=[-1, -1]),
    "shape zero": _with(shape=[0, 10**18]), "shape long": _with(shape=[1] * 100_000), "shape huge": _with(shape=[10**100]), "shape true": _with(shape=[True]),
    "shape empty": _with(shape=[]), "more keys": _with(more=1), "an entry is null": lambda h: h.update({next(iter(h)): None}), "transposed": _swapped,
    "names of other blocks": _renamed, "an extra empty tensor": lambda h: h.update(extra={"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}),
    "long name": lambda h: h.update({"x" * 10**6: {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}}), "5000 digits": lambda h: '{"x": ' + HUGE + "}",
    "twice": lambda h: json.dumps(h)[:-1] + "," + json.dumps(h)[1:], "scalar": lambda h: '"x"', "emoji": lambda h: {"\U0001f600": h},
}  # fmt: skip


def _header(change: Change, length: int | None = None) -> Callable[[World, Path], object]:
    def make(world: World, folder: Path) -> None:
        shard = sorted(Path(shutil.copytree(world["llama"], folder / "model")).glob("model-*.safetensors"))[1]
        raw = shard.read_bytes()
        size = struct.unpack("<Q", raw[:8])[0]
        header = json.loads(raw[8 : 8 + size])
        new = change(header)
        text = (new if isinstance(new, str) else json.dumps(header if new is None else new)).encode()
        shard.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + raw[8 + size :])

    return make


def _bytes(change: Callable[[bytes], bytes]) -> Callable[[World, Path], object]:
    def make(world: World, folder: Path) -> None:
        shard = sorted(Path(shutil.copytree(world["llama"], folder / "model")).glob("model-*.safetensors"))[1]
        shard.write_bytes(change(shard.read_bytes()))

    return make


def _index(change: Callable[[dict[str, str]], Any]) -> Callable[[World, Path], object]:
    def make(world: World, folder: Path) -> None:
        copy = Path(shutil.copytree(world["llama"], folder / "model"))
        content = json.loads((copy / INDEX).read_bytes())
        new = change(content["weight_map"])
        (copy / INDEX).write_text(json.dumps(content if new is None else content | {"weight_map": new}))

    return make


def _all(shard: Any) -> Callable[[dict[str, str]], Any]:
    return lambda weight_map: dict.fromkeys(weight_map, shard)


SHARDS = {
    "empty": lambda raw: b"", "four bytes": lambda raw: raw[:4], "header only": lambda raw: raw[:500], "one byte short": lambda raw: raw[:-1],
    "one byte more": lambda raw: raw + b"\0", "length beyond": lambda raw: struct.pack("<Q", 2**63) + raw[8:], "length 0": lambda raw: b"\0" * 8 + raw[8:],
    "pickle": lambda raw: b"\x80\x02}q\x00." + raw, "zeros": lambda raw: b"\0" * len(raw), "NaN weights": lambda raw: raw[:-400] + b"\xff" * 400,
}  # fmt: skip
INDEXES: dict[str, Callable[[dict[str, str]], Any]] = {
    "list": lambda m: [], "null": lambda m: "", "numbers": _all(5), "lists": _all([]), "empty": _all(""), "dot": _all("."), "outside": _all("../x.safetensors"),
    "absolute": _all("/etc/passwd"), "windows": _all("C:\\x"), "long": _all("x" * 5000), "zero byte": _all("a\0b"), "surrogate": _all("\ud800"),
    "no file": _all("nowhere.safetensors"), "config": _all("config.json"), "one more": lambda m: m.update(extra=next(iter(m.values()))),
    "one less": lambda m: m.pop(next(iter(m))) and None, "swapped": lambda m: dict(zip(m, reversed(m.values()), strict=True)), "nothing": lambda m: {},
}  # fmt: skip


def cases() -> list[Case]:
    """Each by a command that loads, one that streams and one that copies."""
    made = [(f"header {name}", _header(change)) for name, change in HEADERS.items()]
    made += [("header of 78 MB", _header(lambda h: json.dumps(h) + " " * 78_000_000))]
    made += [("header of 20 MB of lists", _header(lambda h: '{"x": [' + "[]," * 6_000_000 + "1]}"))]
    made += [(f"shard {name}", _bytes(change)) for name, change in SHARDS.items()]
    made += [(f"index {name}", _index(change)) for name, change in INDEXES.items()]
    files = {
        "empty": b"",
        "null": b"null",
        "list": b"[]",
        "deep": DEEP.encode(),
        "no JSON": b"{",
        "binary": bytes(range(256)),
        "half": None,
    }
    made += [(f"index file {name}", changed(INDEX, raw)) for name, raw in files.items()]
    return [
        Case(f"{args[0]} ({i}) {name}", args, make, valid=True, long="MB" in name)
        for name, make in made
        for i, args in enumerate(COMMANDS[1:], 1)
    ]
