"""Benchmark questions in the form their authors published, as records of the form that the harness's tasks read.

`records(task, file)` reads .jsonl, .json or .tsv. A form that is not known here is taken as it is: a file with the hub
data set's own fields needs no translation.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from shortlm.documents import RECORDS, is_json_list, parse_json, read_json_list
from shortlm.errors import TextError
from shortlm.recipe import piqa_labels

Record = dict[str, Any]


def records(task: str, file: Path) -> list[Record]:
    """The questions of a local file, for `task`. Raises TextError if it can't be read."""
    if not file.is_file():
        raise TextError(f"--local {task}={file}: no such file; a .jsonl, .json or .tsv file of questions is needed")
    found = _read(file)
    if not found:
        raise TextError(f"--local {task}={file}: holds no questions")
    translate = next((form for fields, form in FORMS if fields <= found[0].keys()), None)
    if translate is None:
        return found
    try:
        return translate(found, file)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise TextError(f"--local {task}={file}: a question lacks a part ({error})") from error


def _read(file: Path) -> list[Record]:
    if file.suffix == ".tsv":
        return list(csv.DictReader(_lines(file), delimiter="\t", quoting=csv.QUOTE_NONE))
    if is_json_list(file):
        found = read_json_list(file, TextError)
    else:
        numbered = ((f"{file}: line {number}", line) for number, line in enumerate(_lines(file), start=1))
        found = [parse_json(line, where, TextError, f"; {RECORDS}") for where, line in numbered if line.strip()]
    if not all(isinstance(record, dict) for record in found):
        raise TextError(f"{file}: a list of objects is needed, one for each question")
    return found


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise TextError(f"{file}: is not UTF-8 text (byte {error.start}); convert it first") from error


def _arc(found: list[Record], file: Path) -> list[Record]:
    """AI2's ARC: the choices are objects of text and label."""
    rows = []
    for r in found:
        listed = r["question"]["choices"]
        choices = {"text": [c["text"] for c in listed], "label": [c["label"] for c in listed]}
        rows.append({"question": r["question"]["stem"], "choices": choices, "answerKey": r["answerKey"]})
    return rows


def _openbookqa(found: list[Record], file: Path) -> list[Record]:
    """AI2's table: all choices in one cell, as (A) ... (B) ..."""
    rows = []
    for r in found:
        parts = re.split(r"\s*\(([A-D])\)\s*", r["Choices"])[1:]
        choices = {"text": [text.strip() for text in parts[1::2]], "label": parts[::2]}
        rows.append({"question_stem": r["Question Stem"], "choices": choices, "answerKey": r["Answer Key"].strip()})
    return rows


def _piqa(found: list[Record], file: Path) -> list[Record]:
    """PIQA: the answers are in a file beside it."""
    beside = piqa_labels(file)
    if not beside.is_file():
        raise TextError(f"{file}: its answers are missing; put {beside.name} beside it")
    labels = beside.read_text(encoding="utf-8").split()
    if len(labels) != len(found):
        raise TextError(f"{beside}: has {len(labels)} answers for {len(found)} questions")
    fields = ("goal", "sol1", "sol2")
    return [{f: r[f] for f in fields} | {"label": int(label)} for r, label in zip(found, labels, strict=True)]


def _boolq(found: list[Record], file: Path) -> list[Record]:
    """SuperGLUE's file says true and false, the original `answer`."""
    return [
        {"question": r["question"], "passage": r["passage"], "idx": i, "label": _truth(r.get("label", r.get("answer")))}
        for i, r in enumerate(found)
    ]  # fmt: skip


def _truth(value: object) -> int:
    """Some copies have the words as text."""
    text = str(value).lower()
    if text not in ("true", "1", "false", "0"):
        raise ValueError(f"an answer is {value!r}, true or false is needed")
    return int(text in ("true", "1"))


def _winogrande(found: list[Record], file: Path) -> list[Record]:
    """The form of partial evaluation: two beginnings that differ in a name, and how both go on."""
    rows = []
    for r in found:
        first, second = r["context_options"]
        same = next(i for i in range(len(first) + 1) if i == len(first) or first[i] != second[i : i + 1])
        start = first[: first.rfind(" ", 0, same) + 1]
        options = {"option1": first[len(start) :], "option2": second[len(start) :], "answer": str(int(r["gold"]) + 1)}
        rows.append({"sentence": f"{start}_ {r['continuation']}"} | options)
    return rows


FORMS: list[tuple[set[str], Callable[[list[Record], Path], list[Record]]]] = [
    ({"Question Stem", "Choices", "Answer Key"}, _openbookqa),
    ({"context_options", "continuation", "gold"}, _winogrande),
    ({"passage", "question", "label"}, _boolq),
    ({"passage", "question", "answer"}, _boolq),
    ({"goal", "sol1", "sol2"}, lambda found, file: found if "label" in found[0] else _piqa(found, file)),
    ({"question", "answerKey"}, lambda found, file: _arc(found, file) if "choices" not in found[0] else found),
]
