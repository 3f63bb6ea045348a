"""Every way of choosing on real models: loss on the text of the search, on held-out text, block forwards spent.

Writes docs/choosing.md and results/choosing.json. The shared models and texts are used where they are there.

    python benchmarks/choosing.py
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from shortlm.artifacts import CutPlan, Found
from shortlm.choose import search
from shortlm.errors import PlanError
from shortlm.recipe import ChooseSettings, ModelSettings, ScoreSettings, SearchSettings, TextSettings
from shortlm.score import score

HERE = Path(__file__).parent
SHARED = HERE.parents[1] / "shared" / "data"
CRITERIA = ["ppl", "taylor", "bi", "angular", "magnitude", "first_order", "random", "depth"]
METHODS = [
    "runs",
    "greedy:sleb",
    "greedy",
    "greedy:race=true",
    "beam:width=4",
    "evolutionary",
    "local-search",
    "exhaustive",
]
MODELS = {
    "embedded": ("embedded", "embedded"),
    "babyllama-105": (str(SHARED / "models" / "babyllama-105"), str(SHARED / "text" / "tinystories.jsonl")),
    "stories260K-planted": (str(SHARED / "models" / "stories260K-planted"), str(SHARED / "text" / "tinystories.jsonl")),
}
HOW = SearchSettings(held_out=64, confirm=32)
INTRO = """# Ways of choosing, compared

Made by `python benchmarks/choosing.py` (figures: [choosing.json](../benchmarks/results/choosing.json)). Cross-entropy,
nats per token, on the text of the search ({sequences} windows of {length} tokens) and on {held_out} windows that no
search saw, with the standard error of the difference to the whole model. Forwards are block forwards over the text of
the search; scoring by perplexity takes L (L + 1) / 2 of them. Both ends are protected. `greedy:sleb` computes every
candidate, `greedy` is lazy. Rows of attention and FFN keep no more parameters than the block rows.

## Which one should I take?

- **In doubt, `--method auto`**, which `run` takes: of whole blocks it is the best of every table below, or within the
  error of the best.
- **A quarter of the blocks or less, and little time:** `one-shot` by `ppl` comes within 0.001 nats of every search
  on the embedded model (0.7476 beside 0.7468), at 76 block forwards instead of 123 to 841.
- **Half of the blocks:** search. `greedy` is 0.18 nats better than one-shot there (0.9595 beside 1.1415), `auto`
  0.20.
- **`taylor` and `bi`** are cheap (6 to 12 forwards) and worse by 0.02 to 0.24 nats on the embedded model; take
  them where a paper is to be repeated.
- **Attention and FFN apart** (`--units attention,ffn`) win another 0.02 to 0.10 nats there at no more parameters,
  if you can live with a form that not everything loads ([what loads what](interop.md)).
- **Afterwards repair**: it costs no training ([figures](repair.md)). These models are tiny; on yours the plan's
  held-out losses decide.

## The tables
"""


def main() -> None:
    """All models that are there, or one; tables of others are kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sequences", type=int, default=32)
    parser.add_argument("--only", choices=MODELS)
    given = parser.parse_args()
    results = HERE / "results" / "choosing.json"
    tables = json.loads(results.read_text()) if results.is_file() else {}
    for name, (model, text) in MODELS.items():
        if given.only in (None, name) and (model == "embedded" or Path(model).is_dir()):
            for drop in ("25%", "50%"):
                settings = TextSettings(text=text, sequences=given.sequences)
                tables[f"{name}, {drop} of the blocks"] = rows = table(ModelSettings(model=model), settings, drop)
                print(name, drop, *(json.dumps(row) for row in rows), sep="\n")
    results.write_text(json.dumps(tables, indent=1) + "\n")
    page = INTRO.format(sequences=given.sequences, length=128, held_out=HOW.held_out)
    sections = [section(title, rows) for title, rows in tables.items()]
    (HERE.parent / "docs" / "choosing.md").write_text(page + "".join(sections))


def table(model: ModelSettings, text: TextSettings, drop: str) -> list[dict[str, Any]]:
    """A row for each way."""
    scores = score(model, text, ScoreSettings(criteria=CRITERIA, resamples=0))
    best = plan_of(model, text, "auto", scores, drop=drop)
    assert best is not None and best.search is not None
    found = best.search
    rows = [row("the whole model", None, found.base_nats, found.held_out_base_nats, None, 0, best)]
    for trail in found.trails:
        if trail.name.startswith("one-shot"):
            rows.append(of_found(trail.name, trail.found[-1], trail.block_forwards, best))
    for method in METHODS:
        plan = plan_of(model, text, method, None, drop=drop)
        if plan and plan.search:
            rows.append(of_found(method, plan.search.trails[-1].found[-1], plan.search.block_forwards, plan))
    rows.append(of_found("auto", found.trails[-1].found[-1], found.block_forwards, best))
    for method in ("greedy", "auto"):
        plan = plan_of(model, text, method, None, units=["attention", "ffn"], to_params=str(best.parameters_after))
        if plan and plan.search:
            name = f"{method}, attention and FFN"
            rows.append(of_found(name, plan.search.trails[-1].found[-1], plan.search.block_forwards, plan))
    return rows


def plan_of(model: ModelSettings, text: TextSettings, method: str, scores: Any, **settings: Any) -> CutPlan | None:
    """None where there are too many sets, or no set."""
    try:
        chosen = ChooseSettings(method=method, protect="ends", **settings)
        return search(model, text, chosen, HOW, scores=scores)
    except PlanError as error:
        print(f"{method}: {error}")
        return None


def of_found(name: str, found: Found, forwards: int, plan: CutPlan) -> dict[str, Any]:
    units = ",".join(map(str, found.units))
    return row(name, units, found.nats, found.held_out_nats, found.held_out_stderr, forwards, plan)


def row(
    name: str, units: str | None, nats: float, held: float | None, error: float | None, spent: int, plan: CutPlan
) -> dict[str, Any]:
    return {
        "way": name, "removed": units, "nats": nats, "held_out": held, "held_out_stderr": error, "forwards": spent,
        "parameters": plan.parameters_after if units else plan.model.parameters,
    }  # fmt: skip


def section(title: str, rows: list[dict[str, Any]]) -> str:
    """A table in Markdown."""
    lines = [f"\n## {title}\n", "| way | removed | search | held out | forwards |", "|---|---|---|---|---|"]
    for r in rows:
        error = "" if r["held_out_stderr"] is None else f" ± {r['held_out_stderr']:.4f}"
        lines.append(
            f"| {r['way']} | {r['removed'] or ''} | {r['nats']:.4f} | {r['held_out']:.4f}{error} | {r['forwards']} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
