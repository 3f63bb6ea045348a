"""Recipes: no YAML, too much YAML, and every setting of another type. The model is nowhere, so that none succeeds."""

from __future__ import annotations

import json
from typing import Any

from hostile.case import HUGE, Case, written
from shortlm.recipe import (
    BenchSettings,
    HealSettings,
    PhaseSettings,
    Recipe,
    Settings,
    SourceSettings,
    WorkloadSettings,
)

BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{b}: &{b} [{','.join(['*' + a] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)
TEXTS = {
    "a date": "name: 2024-13-45", "a real date": "name: 2024-11-05", "5000 digits": f"rounds: {HUGE}",
    "deep list": "name: " + "[" * 3000, "deep mapping": "name: " + "{a: " * 3000, "deep block": "".join("-" * 1 + " " for _ in range(3000)),
    "bomb": BOMB, "bomb in name": BOMB + "name: *i", "holds itself": "name: &a [*a]", "python object": "name: !!python/object:os.system x",
    "python name": "name: !!python/name:os.system", "unknown tag": "name: !x y", "binary": "name: !!binary x", "twice": "name: a\nname: b",
    "tab": "name:\tx\n\t- y", "two documents": "name: a\n---\nname: b", "only a comment": "# nothing\nmodel: {model: ./nowhere}", "null": "null", "number": "5",
    "text": "just text", "list": "- a\n- b", "unclosed": "name: [", "no anchor": "name: *x", "key is a list": "? [a]\n: b",
    "key is a number": "5: b", "key is null": "~: b", "merge": "<<: 5", "merge bomb": BOMB + "<<: *a", "rounds": "rounds: 1000000000",
    "octal": "rounds: 0o777777777777777777777777", "hex": "rounds: 0x" + "f" * 4000, "sexagesimal": "rounds: 1:2:3:4", "infinite": "rounds: .inf",
    "not a number": "rounds: .nan", "yes": "rounds: yes", "long line": "name: " + "x" * 900_000 + "\nrounds: x", "control": "name: \x01",
    "surrogate": 'name: "\\ud800"\nmodel: {model: ./nowhere}', "emoji key": "\U0001f600: 1", "bom": "\ufeffname: [",
}  # fmt: skip
BYTES = {
    "not UTF-8": b"name: \xff\xfe", "UTF-16": "name: x\nrounds: x".encode("utf-16"), "zeros": b"\0" * 1000, "5 MB": b"name: x\n" * 700_000,
    "random": bytes(range(256)) * 10,
}  # fmt: skip
VALUES = ["null", "[]", "{}", '"x"', "-1", "1e308", ".nan", HUGE, "[[[[1]]]]", "true", "1000000000000", '""']
STAGES: dict[str, Any] = {name: type(value) for name, value in Recipe() if isinstance(value, Settings)}


def cases() -> list[Case]:
    """Odd files, and every field of every stage."""
    run = ["run", "{in}/r.yaml", "-m", "./nowhere", "-o", "out"]
    found = [Case(name, run, written("r.yaml", text), long=len(text) > 10**5) for name, text in (TEXTS | BYTES).items()]
    fields = [(f"{stage}.{name}", "{%s: {%s: %%s}}" % (stage, name)) for stage, kind in STAGES.items() for name in kind.model_fields]  # fmt: skip
    fields += [(f"bench.{name}", "{bench: {%s: %%s}}" % name) for name in BenchSettings.model_fields]
    fields += [
        (f"workloads.{name}", "{bench: {workloads: [{%s: %%s}]}}" % name) for name in WorkloadSettings.model_fields
    ]
    fields += [(f"heal.{name}", "{heal: {%s: %%s}}" % name) for name in HealSettings.model_fields]
    fields += [(f"phases.{name}", "{heal: {phases: [{%s: %%s}]}}" % name) for name in PhaseSettings.model_fields]
    fields += [
        (f"data.{name}", "{heal: {phases: [{data: [{%s: %%s}]}]}}" % name) for name in SourceSettings.model_fields
    ]
    fields += [(name, "{%s: %%s}" % name) for name in Recipe.model_fields]
    some = [(place, text, value) for i, (place, text) in enumerate(fields) for value in _turn(i)]
    return found + [
        Case(f"{place} {json.dumps(value)[:20]}", run, written("r.yaml", text % value)) for place, text, value in some
    ]


def _turn(i: int) -> list[str]:
    """Six of the values, others for every field."""
    return [VALUES[(i + 2 * k) % len(VALUES)] for k in range(6)]
