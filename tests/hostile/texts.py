"""Texts and token ids: no text, no ids, of another kind than the name says, in one endless line."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from hostile.case import DEEP, HUGE, Case, World, written

MODEL = ["score", "-m", "{w}/llama", "-c", "bi", "--sequences", "2", "--length", "16"]
HEAL = ["heal", "{w}/llama", "-o", "out", "--method", "cpt", "--steps", "1", "--length", "16", "--batch", "1"]
LINE = json.dumps({"text": "Mira keeps a goat in the mill. " * 20})
JSONL = {
    "empty": "", "blank lines": "\n\n\n", "not JSON": "{\n", "list": "[]\n", "null": "null\n", "number": "5\n", "text": '"x"\n',
    "no field": '{"body": "x"}\n', "field null": '{"text": null}\n', "field number": '{"text": 5}\n', "field list": '{"text": ["a"]}\n',
    "field empty": '{"text": ""}\n' * 9, "deep": DEEP + "\n", "second bad": LINE + "\n{", "second null": LINE + '\n{"text": null}', "5000 digits": '{"text": ' + HUGE + "}\n",
    "NaN": '{"text": NaN}\n', "surrogate": '{"text": "\\ud800\\ud800"}\n' * 50, "zero bytes": '{"text": "\\u0000\\u0000"}\n' * 50,
    "twice": '{"text": "a", "text": "b"}\n', "long field names": json.dumps({"x" * 1000 + str(i): 1 for i in range(200)}) + "\n",
    "unclosed text": '{"text": "', "one long line": json.dumps({"text": "x" * 24_000_000}), "comma": LINE + ",\n" + LINE,
}  # fmt: skip
RAW = {
    "empty": b"", "not UTF-8": b"\xff\xfe\xfa" * 100, "UTF-16": ("Mira keeps a goat. " * 100).encode("utf-16"), "zeros": b"\0" * 100_000,
    "one character": b"x", "spaces": b" " * 100_000, "24 MB in a line": b"x" * 24_000_000, "cut in a character": "ü".encode()[:1], "random": bytes(range(256)) * 100,
    "control characters": bytes(range(32)) * 1000, "surrogates": "\ud800".encode("utf-8", "surrogatepass") * 500,
}  # fmt: skip
ROW = [5] * 17
IDS: dict[str, Any] = {
    "empty": [], "empty rows": [[], []], "ragged": [ROW, ROW[:-1]], "floats": [[0.5] * 17], "bools": [[True] * 17], "texts": [["x"] * 17], "nulls": [[None] * 17],
    "negative": [[-1] * 17], "beyond the vocabulary": [[10**6] * 17], "huge": [[10**30] * 17], "flat": ROW, "deep": [[[5] * 17]], "mapping": {"ids": [ROW]}, "number": 5,
    "one token": [[5]], "two tokens": [[5, 6]], "last negative": [ROW, [*ROW[:-1], -1]], "one too large": [ROW, [*ROW[:-1], 1024]], "long": [[5] * 10_000],
}  # fmt: skip
ID_TEXTS = {
    "not JSON": "[[",
    "NaN": "[[NaN]]",
    "infinite": "[[Infinity]]",
    "deep": DEEP,
    "5000 digits": f"[[{HUGE}]]",
    "empty": "",
    "null": "null",
}
ARRAYS: dict[str, Any] = {
    "empty": np.zeros((0, 0), np.int64), "no rows": np.zeros((0, 17), np.int64), "floats": np.zeros((2, 17)), "bools": np.ones((2, 17), bool),
    "complex": np.zeros((2, 17), complex), "texts": np.array([["x"] * 17]), "objects": np.array([[None] * 17], object), "scalar": np.array(5), "flat": np.arange(17),
    "cube": np.zeros((2, 2, 17), np.int64), "negative": -np.ones((2, 17), np.int64), "beyond": np.full((2, 17), 10**9), "unsigned": np.full((2, 17), 2**64 - 1, np.uint64),
    "dates": np.zeros((2, 17), "datetime64[s]"), "big endian": np.ones((2, 17), ">i8"), "records": np.zeros((2, 17), [("a", "i4")]), "one token": np.ones((2, 1), np.int64),
}  # fmt: skip


def _array(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def _zipped() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, a=np.ones((2, 17), np.int64))
    return buffer.getvalue()


def _bomb() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a.npy", b"\0" * 10**8)
    return buffer.getvalue()


def _claiming(shape: str) -> bytes:
    header = f"{{'descr': '<i8', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + b"\0" * 64


def _sparse(world: World, folder: Path) -> None:
    with (folder / "t.txt").open("wb") as file:
        file.truncate(2**36)


FILES = {
    "empty": b"", "pickle": pickle.dumps([ROW]), "npz": _zipped(), "zip bomb": _bomb(), "cut short": _array(np.ones((2, 17), np.int64))[:-8],
    "header only": _array(np.ones((2, 17), np.int64))[:64], "claims a terabyte": _claiming("(1000000000, 1000)"), "claims 10^30": _claiming("(10**30, 2)"),
    "negative shape": _claiming("(-1, 17)"), "shape is a text": _claiming("'x'"), "text": b"[[5, 6]]", "magic only": b"\x93NUMPY", "random": bytes(range(256)) * 10,
    "version 9": b"\x93NUMPY\x09\x00" + bytes(200), "long header": b"\x93NUMPY\x02\x00" + (2**31).to_bytes(4, "little") + b" " * 1000,
}  # fmt: skip


def cases() -> list[Case]:
    """Text and ids for scoring; text and records for training."""
    found = [Case(f"{kind} {name}", [*args, option, "{in}/t.jsonl"], written("t.jsonl", text), valid=True, long=len(text) > 10**6 or kind == "heal")
             for kind, args, option in (("score", MODEL, "--text"), ("heal", HEAL, "--data")) for name, text in JSONL.items()]  # fmt: skip
    found += [Case(f"{kind} txt {name}", [*args, option, "{in}/t.txt"], written("t.txt", raw), valid=True, long=len(raw) > 10**6 or kind == "heal")
              for kind, args, option in (("score", MODEL, "--text"), ("heal", HEAL, "--data")) for name, raw in RAW.items()]  # fmt: skip
    ids = [*MODEL, "--ids"]
    found += [
        Case(f"ids {name}", [*ids, "{in}/i.json"], written("i.json", json.dumps(v)), valid=True)
        for name, v in IDS.items()
    ]
    found += [Case(f"ids {name}", [*ids, "{in}/i.json"], written("i.json", text)) for name, text in ID_TEXTS.items()]
    found += [
        Case(f"array {name}", [*ids, "{in}/i.npy"], written("i.npy", _array(a)), valid=True)
        for name, a in ARRAYS.items()
    ]
    found += [Case(f"npy {name}", [*ids, "{in}/i.npy"], written("i.npy", raw)) for name, raw in FILES.items()]
    found += [Case("a sparse text of 64 GB", [*MODEL, "--text", "{in}/t.txt"], _sparse, valid=True, long=True)]
    found += [
        Case(f"--field {field[:9]!r}", [*MODEL, "--text", "{w}/text.jsonl", f"--field={field}"])
        for field in ("", "x", "x" * 5000, "a\0b", "\udcff")
    ]
    separators = ("", "\0", "x" * 1000, "x" * 1001)
    found += [
        Case(f"--separator {s[:9]!r} {len(s)}", [*MODEL, "--text", "{w}/text.jsonl", f"--separator={s}"], valid=True)
        for s in separators
    ]
    return found
