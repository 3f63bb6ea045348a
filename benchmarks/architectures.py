"""Cut a tiny random model of every type of the installed transformers; write docs/architectures.md.

Raw figures go to benchmarks/results/architectures.json, which the slow tests take the supported types from. Run:
python benchmarks/architectures.py [TYPE ...]   (with types: prints these and takes them over into both files)
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import re
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))
RESULTS, PAGE = HERE / "results" / "architectures.json", HERE.parent / "docs" / "architectures.md"
SECONDS, PROCESSES, TYPES_PER_PROCESS = 180, 2, 25  # modelling code stays in memory: a process ends after some
EXACT = 1e-4

HEAD = """# Which models can be cut

Written by `python benchmarks/architectures.py`, which makes a tiny random model of every causal, image-text and
audio-text type of transformers {transformers} (the `model_type` of config.json), removes two blocks that are no
neighbours, loads the result with its own class, and compares logits with those of the original whose two blocks return
what they are given. Of {count} types **{exact} are cut exactly**, {refused} are refused, {unbuilt} could not be built.

A checkpoint of a type that stands here can still be refused for what its config says (quantised weights, blocks that
read what a removed one computed); then nothing is written and the reason is told. Of a composite model the language
model is cut; its other towers, their config and processor files stay as they are.

## Cut exactly

Every result loads with all weights found, generates, and its logits differ by at most {worst:.1g} (float32) in one go.
"With its cache" is the same token by token; where the original itself differs from itself by more than {limit:.0e}
there, its own difference stands beside. Types marked "with an image" are also compared on an image
(`tests/test_images.py`).

| type | composite | with an image | removed | largest difference | with its cache |
|---|---|---|---|---|---|
"""
REFUSED = "\n## Refused\n\n| type | why |\n|---|---|\n"
UNBUILT = """
## Not built

No tiny model could be made of these types here, so nothing is known. Where a package is missing, the language models
inside are tried under their own types.

| type | what its own code said |
|---|---|
"""


def one(model_type: str) -> dict[str, Any]:
    """What became of a type; "failed" is a fault of ours or of its code that was not told as a refusal."""
    import torch
    from cut_of_every_type import tried

    torch.set_num_threads(1)
    logging.disable(logging.CRITICAL)
    signal.signal(signal.SIGALRM, _too_slow)
    signal.alarm(SECONDS)
    try:
        with tempfile.TemporaryDirectory() as folder:
            return tried(model_type, Path(folder))
    except Exception as error:
        return {"model_type": model_type, "outcome": "failed", "why": f"{type(error).__name__}: {error}"}
    finally:
        signal.alarm(0)


def _too_slow(*_: object) -> None:
    raise TimeoutError(f"more than {SECONDS} s")


def page(rows: list[dict[str, Any]], versions: dict[str, str]) -> str:
    from test_images import BY_HAND, PROCESSORS

    kinds = {name: [r for r in rows if r["outcome"] == name] for name in ("exact", "refused", "not built")}
    exact, refused, unbuilt = kinds.values()
    head = HEAD.format(
        count=len(rows), exact=len(exact), refused=len(refused), unbuilt=len(unbuilt), limit=EXACT,
        worst=max(r["gap"] for r in exact), **versions,
    )  # fmt: skip
    images = {*PROCESSORS, *BY_HAND}
    lines = "".join(_line(row, row["model_type"] in images) for row in exact)
    why = ["".join(f"| {r['model_type']} | {_said(r['why'])} |\n" for r in some) for some in (refused, unbuilt)]
    return head + lines + REFUSED + why[0] + UNBUILT + why[1]


def _line(row: dict[str, Any], image: bool) -> str:
    cached, own = row["gap_cached"], row["own_gap_cached"]
    told = "keeps none" if cached is None else f"{cached:.1e}"
    told += f" (the original: {own:.1e})" if cached is not None and own > EXACT else ""
    removed = ", ".join(map(str, row["removed"]))
    marks = ["yes" if mark else "" for mark in (row["composite"], image)]
    return f"| {row['model_type']} | {marks[0]} | {marks[1]} | {removed} | {row['gap']:.1e} | {told} |\n"


def _said(why: str) -> str:
    """Without the temporary folder, and without the type, which stands beside."""
    why = re.sub(r"^/\S*tmp\S*: |^[\w.-]+: ", "", why)
    return re.sub(r"/\S*tmp\S*", "the checkpoint", why).replace("|", "/")


def main(types: list[str]) -> int:
    import torch
    import transformers
    from every_type import every_type

    os.environ["HF_HUB_OFFLINE"] = "1"
    with multiprocessing.get_context("spawn").Pool(PROCESSES, maxtasksperchild=TYPES_PER_PROCESS) as pool:
        rows = sorted(pool.imap_unordered(one, types or every_type()), key=lambda row: row["model_type"])
    versions = {"transformers": transformers.__version__, "torch": torch.__version__}
    if types:
        known = json.loads(RESULTS.read_text())
        assert known["versions"] == versions, "other versions: run it on every type"
        print(*map(json.dumps, rows), sep="\n")
        rows = sorted(
            [*rows, *(r for r in known["types"] if r["model_type"] not in types)], key=lambda row: row["model_type"]
        )
    wrong = [r for r in rows if r["outcome"] == "failed" or (r["outcome"] == "exact" and not sound(r))]
    print(*(f"NOT AS IT SHOULD BE: {json.dumps(row)}" for row in wrong), sep="\n")
    RESULTS.write_text(json.dumps({"versions": versions, "types": rows}, indent=1) + "\n")
    PAGE.write_text(page([r for r in rows if r not in wrong], versions))
    print(f"{len(rows) - len(wrong)} of {len(rows)} types as they should be")
    return len(wrong) > 0


def sound(row: dict[str, Any]) -> bool:
    """Exact within the tolerance; with the cache within four times what the original differs from itself by."""
    cached = row["gap_cached"] is None or row["gap_cached"] <= max(EXACT, 4 * row["own_gap_cached"])
    return row["gap"] <= EXACT and row["moved"] > 100 * EXACT and row["generates"] and cached


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
