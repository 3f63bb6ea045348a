"""The same two blocks removed by shortlm and by other tools, each held to the original whose two blocks do nothing.

Other tools are named by the folder that they are installed in (pip install --target FOLDER --no-deps NAME). Without
models of your own, tiny random ones of every type are made whose config mixes kinds of blocks. Run:
python benchmarks/other_tools.py [--optipfair FOLDER] [--mergekit FOLDER] [MODEL ...]
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))
RESULTS, PAGE = HERE / "results" / "other_tools.json", HERE.parent / "docs" / "other-tools.md"
TOLERANCE, SECONDS = 1e-4, 600

OPTIPFAIR = """
import json, sys, torch, transformers, optipfair
folder, out, removed = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
config = transformers.AutoConfig.from_pretrained(folder)
model = getattr(transformers, config.architectures[0]).from_pretrained(folder)
optipfair.prune_model(model, pruning_type="DEPTH", layer_indices=removed, show_progress=False).save_pretrained(out)
"""


def by_shortlm(folder: Path, out: Path, removed: list[int], count: int) -> list[str]:
    blocks = ",".join(map(str, removed))
    return [sys.executable, "-m", "shortlm", "cut", "-m", str(folder), "--remove", blocks, "--out", str(out)]


def by_optipfair(folder: Path, out: Path, removed: list[int], count: int) -> list[str]:
    return [sys.executable, "-c", OPTIPFAIR, str(folder), str(out), json.dumps(removed)]


def by_mergekit(folder: Path, out: Path, removed: list[int], count: int) -> list[str]:
    """Its passthrough merge of the runs of blocks that stay."""
    ends = [-1, *removed, count]
    runs = [(a + 1, b) for a, b in pairwise(ends) if b > a + 1]
    slices = [{"sources": [{"model": str(folder), "layer_range": list(run)}]} for run in runs]
    recipe = out.parent / "mergekit.json"  # JSON is YAML
    recipe.write_text(json.dumps({"merge_method": "passthrough", "dtype": "float32", "slices": slices}))
    return [sys.executable, "-m", "mergekit.scripts.run_yaml", str(recipe), str(out), "--no-copy-tokenizer"]


WAYS: dict[str, Callable[[Path, Path, list[int], int], list[str]]] = {
    "shortlm": by_shortlm, "optipfair": by_optipfair, "mergekit": by_mergekit,
}  # fmt: skip


def became(folder: Path, out: Path, model: Any, removed: list[int], name: str, tool: str) -> dict[str, Any]:
    """What a tool made of a model: exact, other logits, random weights, or failed."""
    from shortlm.model import block_count

    command = WAYS[name](folder, out, removed, block_count(model.config))
    path = os.pathsep.join([*filter(None, [tool, os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"PYTHONPATH": path, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False)
    if done.returncode:
        return {"outcome": "failed", "why": (done.stderr.strip().splitlines() or ["no word"])[-1][:200]}
    try:
        return compared(model, removed, out)
    except Exception as error:  # a folder that transformers can't load, or that can't run
        return {"outcome": "can't be loaded", "why": f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"}


def compared(model: Any, removed: list[int], out: Path) -> dict[str, Any]:
    from cut_of_every_type import largest, logits, probe, returning_their_input

    from shortlm.model import find_anatomy

    ids_BT = probe(model.config)
    with returning_their_input(find_anatomy(model).blocks, removed, lambda: logits(model, ids_BT)):
        expected_BTV = logits(model, ids_BT)
    result, told = type(model).from_pretrained(out, output_loading_info=True)
    gap = largest(logits(result, ids_BT), expected_BTV)
    if missing := told["missing_keys"]:
        return {"outcome": "random weights", "why": f"{len(missing)} tensors missing", "gap": gap}
    return {"outcome": "exact" if gap <= TOLERANCE else "other logits", "why": "", "gap": gap}


def made(folder: Path) -> list[Path]:
    """Tiny models of the types whose config mixes kinds of blocks."""
    from cut_of_every_type import random_model
    from every_type import KINDS, tiny_config_of

    types = json.loads((HERE / "results" / "architectures.json").read_text())["types"]
    folders = []
    for row in types:
        if row["outcome"] != "exact" or row["composite"]:
            continue
        config = tiny_config_of(row["model_type"])
        lists = [found for name in KINDS if isinstance(found := getattr(config, name, None), list)]
        if any(len({*map(str, found)}) > 1 for found in lists):
            random_model(config).save_pretrained(folder / row["model_type"])
            folders.append(folder / row["model_type"])
    return folders


HEAD = """# Next to other tools

Written by `python benchmarks/other_tools.py`: two blocks that are no neighbours are removed by each tool from {count}
tiny random models whose config gives blocks different kinds (attention of two kinds, state-space blocks, experts). The
result is loaded by transformers {transformers} and its logits are compared with those of the original whose two blocks
return what they are given. "exact": they differ by at most 1e-4 (float32). "other logits": all weights are found and
the model computes something else. "random weights": transformers had to make up tensors that the result lacks. Where
all blocks are of one kind and the config has no list of kinds (llama), all three tools are exact.

"""


def page(rows: list[dict[str, Any]], versions: dict[str, str]) -> str:
    tools = [name for name in WAYS if name in rows[0]]
    counts = {tool: Counter(row[tool]["outcome"] for row in rows) for tool in tools}
    outcomes = sorted({outcome for count in counts.values() for outcome in count}, key=lambda o: (o != "exact", o))
    title = " | ".join(f"{tool} {versions.get(tool, '')}".strip() for tool in tools)
    lines = [f"| | {title} |", "|---|" + "---|" * len(tools)]
    lines += [f"| **{o}** | " + " | ".join(f"**{counts[tool][o]}**" for tool in tools) + " |" for o in outcomes]
    lines += [f"| {row['model']} | " + " | ".join(_cell(row[tool]) for tool in tools) + " |" for row in rows]
    return HEAD.format(count=len(rows), **versions) + "\n".join(lines) + "\n"


def _cell(found: dict[str, Any]) -> str:
    gap = f" (by {found['gap']:.2g})" if "gap" in found and found["outcome"] != "exact" else ""
    return found["outcome"] + gap


def main() -> int:
    import torch
    import transformers
    from every_type import removable

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--optipfair", help="the folder that it is installed in")
    parser.add_argument("--mergekit", help="the folder that it is installed in")
    given = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    logging.disable(logging.CRITICAL)
    tools = {"shortlm": ""} | {name: path for name in WAYS if (path := getattr(given, name, None))}
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for folder in given.models or made(Path(scratch)):
            config = transformers.AutoConfig.from_pretrained(folder)
            model = getattr(transformers, config.architectures[0]).from_pretrained(folder).eval()
            removed, row = removable(config), {"model": folder.name}
            for name, tool in tools.items():
                with tempfile.TemporaryDirectory() as out:
                    row[name] = became(folder, Path(out) / "out", model, removed, name, tool)
            print(json.dumps(row), flush=True)
            rows.append(row)
    versions = {"transformers": transformers.__version__, "torch": torch.__version__} | _installed(tools)
    if not given.models:
        RESULTS.write_text(json.dumps({"versions": versions, "models": rows}, indent=1) + "\n")
        PAGE.write_text(page(rows, versions))
    print({name: dict(Counter(row[name]["outcome"] for row in rows)) for name in tools})
    return any(row["shortlm"]["outcome"] != "exact" for row in rows)


def _installed(tools: dict[str, str]) -> dict[str, str]:
    from importlib.metadata import distributions

    found = {}
    for name, folder in tools.items():
        path = {"path": [folder]} if folder else {}
        found.update((name, d.version) for d in distributions(**path) if d.metadata["Name"].lower() == name)
    return found


if __name__ == "__main__":
    sys.exit(main())
