"""Files that stages hand on: every value of a sound one replaced, and files that are none."""

from __future__ import annotations

import json

from old_manifests import CUT_TWICE

from hostile.case import DEEP, HUGE, Case, places, replaced, some, written
from hostile.world import ARTIFACTS

COMMANDS = {
    "scores": [["choose", "{in}/a.json", "--blocks", "2", "-o", "out"],
               ["choose", "{in}/a.json", "--drop-params=20%", "--method=contiguous", "--criterion=angular", "-o", "out"],
               ["report", "--scores", "{in}/a.json", "-o", "out"]],
    "plan": [["cut", "-m", "{w}/llama", "--plan", "{in}/a.json", "-o", "out"],
             ["report", "--plan", "{in}/a.json", "-o", "out"]],
    "manifest": [["cut", "-m", "{w}/llama", "--plan", "{in}/a.json", "-o", "out"],
                 ["report", "--manifest", "{in}/a.json", "-o", "out"]],
    "old manifest": [["report", "--manifest", "{in}/a.json", "-o", "out"]],
    "eval": [["report", "--eval", "{w}/eval.json", "--eval", "{in}/a.json", "-o", "out"]],
    "bench": [["report", "--bench", "{in}/a.json", "-o", "out"]],
    "healing": [["report", "--healing", "{in}/a.json", "-o", "out"]],
}  # fmt: skip
VALUES = {
    "null": "null", "list": "[]", "text": '"x"', "negative": "-5", "1e308": "1e308", "NaN": "NaN", "zero": "0",
    "5000 digits": HUGE, "1e9": "1000000000", "deep": DEEP, "lists": "[[[[1]]]]", "mapping": '{"x": 1}', "surrogate": '"\\ud800"',
    "markup": '"<script>alert(1)</script>"',
}  # fmt: skip
NONE = {
    "empty": b"", "null": b"null", "a list": b"[]", "a number": b"5", "a text": b'"x"', "binary": bytes(range(256)) * 9,
    "deep": DEEP.encode(), "NaN": b"NaN", "UTF-16": '{"kind": "x"}'.encode("utf-16"), "zeros": b"\0" * 5000,
    "50,000 keys": b'{"a": 1' + b"".join(b',"k%d":1' % i for i in range(50_000)) + b"}", "crowded": b'{"x":[' + b"[]," * 1_000_000 + b"1]}",
}  # fmt: skip


def cases() -> list[Case]:
    """Of choose and cut nearly all; of reports, which draw charts, some."""
    found = []
    for kind, commands in COMMANDS.items():
        sound = CUT_TWICE if kind == "old manifest" else json.loads(ARTIFACTS[kind]().model_dump_json())
        changed = [
            (f"{kind} {'.'.join(map(str, at))} {name}", replaced(sound, at, raw))
            for at in places(sound)
            for name, raw in VALUES.items()
        ]
        changed += [
            (f"{kind} cut short at {i}", json.dumps(sound)[:i]) for i in (1, 50, 200, len(json.dumps(sound)) - 1)
        ]
        for number, args in enumerate(commands):
            slow = args[0] == "report"
            made = [
                Case(f"{args[0]} ({number}) {name}", args, written("a.json", raw), valid=True, long=slow)
                for name, raw in changed
            ]
            found += some(made, 45 if slow else 100, f"{kind} {number}")
            found += [Case(f"{args[0]} ({number}) {kind} {name}", args, written("a.json", raw), long=len(raw) > 10**6) for name, raw in NONE.items()]  # fmt: skip
    return found
