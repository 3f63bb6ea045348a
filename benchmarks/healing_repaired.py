"""Does healing that starts from a repaired model need fewer tokens than healing from the plain cut one?

python benchmarks/healing_repaired.py [ideas|table|page ...] [--cuts 50%,25%] [--methods cpt,distill]

The embedded model (12 blocks), cut by greedy sets, repaired by `auto` with its default settings. Every run has its own
schedule, so that a budget of 60 % is a run of that length. The rate of each start and method is tuned on seed 99, which
is not used again. Runs are kept in results/healing_repaired.json as they end; one that is there isn't made again.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from healing import phase
from machine import RESULTS, describe

import shortlm
from shortlm.heal import heal
from shortlm.model import facts_from_config
from shortlm.recipe import CutSettings, EvalSettings, HealSettings, ModelSettings, RepairSettings, TextSettings

REMOVED = {"25%": [3, 4, 9], "50%": [2, 3, 4, 6, 8, 9]}
TOKENS = {"25%": 80_000, "50%": 160_000}
STRONG = "repaired, ridges 0.1 and 1"
RATES = {"cut": (1e-3, 2e-3, 4e-3), "repaired": (5e-4, 1e-3, 2e-3), STRONG: (5e-4, 1e-3, 2e-3)}
TUNED_AT = {"cut": 1.0, "repaired": 0.6, STRONG: 0.6}  # shares of the tokens
BUDGETS = {"cut": (0.3, 1.0), "repaired": (0.3, 0.6, 1.0), STRONG: (0.3, 0.6)}
STARTS = {"cpt": ("cut", "repaired", STRONG), "distill": ("cut", STRONG)}
EXTRAS: dict[str, dict[str, Any]] = {"distill": {"hidden": 1.0}}
REPAIRS = {
    "repaired": RepairSettings(),
    STRONG: RepairSettings(ridges=[0.1, 1.0]),
    "repaired, 1000 windows": RepairSettings(calibration=1000),
    "repaired, ridges 1 and 10": RepairSettings(ridges=[1.0, 10.0]),
}
IDEAS: list[tuple[str, str, str, dict[str, Any]]] = [
    ("no warm-up", "repaired", "cpt", {"warmup": 0}),
    ("warm-up 30 %", "repaired", "cpt", {"warmup": 0.3}),
    ("weight decay 0.1", "repaired", "cpt", {"weight_decay": 0.1}),
    ("second moment 0.95", "repaired", "cpt", {"betas": (0.9, 0.95)}),
    ("linear schedule", "repaired", "cpt", {"schedule": "linear"}),
    ("ridges 0.1 and 1", STRONG, "cpt", {}),
    ("ridges 1 and 10", "repaired, ridges 1 and 10", "cpt", {}),
    ("ridges 0.1 and 1, linear schedule", STRONG, "cpt", {"schedule": "linear"}),
    ("1000 windows of repair", "repaired, 1000 windows", "cpt", {}),
    ("distill", "repaired", "distill", {}),
    ("distill, hidden 1", "repaired", "distill", {"hidden": 1.0}),
    ("distill, hidden 10", "repaired", "distill", {"hidden": 10.0}),
    ("distill, kl 0.5", "repaired", "distill", {"kl": 0.5}),
]
TUNING_SEED, SEEDS = 99, (0, 1, 2)
DENSE = ModelSettings(model="embedded")
HELD_OUT = TextSettings(text="embedded", seed=2**40, sequences=96, length=255)
REPAIR_TEXT = TextSettings(text="embedded", seed=2**41)
OUT = RESULTS / "healing_repaired.json"
PAGE = Path(__file__).parents[1] / "docs" / "healing.md"
MARKS = "<!-- table by benchmarks/healing_repaired.py -->\n", "<!-- end of the table -->"


class Book:
    """The runs made so far, on disk after each."""

    def __init__(self) -> None:
        kept = json.loads(OUT.read_text()) if OUT.is_file() else {}
        self.starts, self.runs = kept.get("starts", {}), kept.get("runs", [])

    def save(self) -> None:
        """All of it."""
        what = {"what": __doc__.splitlines()[0], "machine": describe(), "tokens": TOKENS, "removed": REMOVED}
        OUT.write_text(json.dumps(what | {"starts": self.starts, "runs": self.runs}, indent=1) + "\n")

    def find(self, key: dict[str, Any]) -> dict[str, Any] | None:
        """The run of this key, if it was made."""
        return next((run for run in self.runs if all(run[k] == v for k, v in key.items())), None)


def nats(model: str) -> float:
    """On the held-out windows."""
    settings = EvalSettings(texts=[HELD_OUT], new_tokens=0)
    return shortlm.evaluate(ModelSettings(model=model), settings).perplexities[0].nats_per_token


def start(book: Book, cut: str, name: str, folder: Path) -> str:
    """The model that healing starts from, made if it isn't there, with its loss in the book."""
    path = folder / f"{name}-{cut}".replace(" ", "-").replace("%", "")
    if not path.is_dir():
        if name == "cut":
            plan = shortlm.plan_by_hand(facts_from_config(DENSE), REMOVED[cut])
            shortlm.cut(DENSE, plan, CutSettings(), str(path))
        else:
            cut_model = ModelSettings(model=start(book, cut, "cut", folder))
            shortlm.repair(cut_model, DENSE, REPAIR_TEXT, REPAIRS[name], str(path))
    if name not in book.starts.setdefault(cut, {"dense": nats("embedded")}):
        book.starts[cut][name] = nats(str(path))
        book.save()
    return str(path)


def run(book: Book, folder: Path, cut: str, begin: str, method: str, share: float, seed: int, rate: float,
        extras: dict[str, Any]) -> float:  # fmt: skip
    """The held-out nats of one healing, from the book or made now."""
    tokens = round(TOKENS[cut] * share)
    key = {"cut": cut, "start": begin, "method": method, "tokens": tokens, "seed": seed, "rate": rate,
           "extras": json.loads(json.dumps(extras))}  # fmt: skip
    if not (found := book.find(key)):
        model, began = start(book, cut, begin, folder), time.perf_counter()
        settings = phase(method, tokens, seed, rate).model_copy(update={"batch": 8} | extras)
        with tempfile.TemporaryDirectory() as place:
            heal(ModelSettings(model=model), HealSettings(phases=[settings]), Path(place) / "healed")
            found = key | {"nats": nats(str(Path(place) / "healed"))}
        found["seconds"] = round(time.perf_counter() - began, 1)
        book.runs.append(found)
        book.save()
        print(time.strftime("%X"), found, flush=True)
    return float(found["nats"])


def best_rate(book: Book, folder: Path, cut: str, begin: str, method: str, share: float) -> float:
    """On the seed of tuning; goes on beyond an end of the rates while the best one is there."""
    extras = EXTRAS.get(method, {})
    tried = {rate: run(book, folder, cut, begin, method, share, TUNING_SEED, rate, extras) for rate in RATES[begin]}
    while (best := min(tried, key=lambda r: tried[r])) in (min(tried), max(tried)):
        rate = best / 2 if best == min(tried) else best * 2
        tried[rate] = run(book, folder, cut, begin, method, share, TUNING_SEED, rate, extras)
    return best


def ideas(book: Book, folder: Path, cut: str) -> None:
    """Each idea by itself, on the seed of tuning, from the repaired model with 30 % of the tokens."""
    rate = best_rate(book, folder, cut, "repaired", "cpt", 0.3)
    for _, begin, method, extras in IDEAS:
        run(book, folder, cut, begin, method, 0.3, TUNING_SEED, rate, extras)


def table(book: Book, folder: Path, cut: str, method: str) -> None:
    """Both starts, all budgets and seeds, at each start's best rate."""
    rates = {begin: best_rate(book, folder, cut, begin, method, TUNED_AT[begin]) for begin in STARTS[method]}
    for seed in SEEDS:
        for begin, rate in rates.items():
            for share in BUDGETS[begin]:
                run(book, folder, cut, begin, method, share, seed, rate, EXTRAS.get(method, {}))


def curve(book: Book, cut: str, method: str, begin: str) -> dict[int, list[float]]:
    """Tokens -> held-out nats of the seeds."""
    found: dict[int, list[float]] = {}
    for one in book.runs:
        wanted = (one["cut"], one["method"], one["start"]) == (cut, method, begin)
        if wanted and one["seed"] in SEEDS and one["extras"] == EXTRAS.get(method, {}):
            found.setdefault(one["tokens"], []).append(one["nats"])
    return dict(sorted(found.items()))


def rate_of(book: Book, cut: str, method: str, begin: str) -> float:
    """The tuned rate."""
    runs = (one for one in book.runs if (one["cut"], one["method"], one["start"]) == (cut, method, begin))
    return next(one["rate"] for one in runs if one["seed"] in SEEDS)


def needed(points: list[tuple[int, float]], target: float) -> float | None:
    """Tokens at which a line through the points comes down to the target; None where it never does."""
    for (before, high), (after, low) in itertools.pairwise(points):
        if low <= target < high:
            return before + (after - before) * (high - target) / (high - low)
    return None


def said(tokens: float | None, most: int, whole: int) -> str:
    """Tokens needed, in words, with their share of the budget of the cut model."""
    if tokens is None:
        return f"more than {100 * most / whole:.0f} %"
    return f"{tokens / 1000:.0f}k ({100 * tokens / whole:.0f} %)"


def rows(book: Book, cut: str, method: str) -> list[str]:
    """Lines of the table, with what the repaired starts needed."""
    target = statistics.mean(curve(book, cut, method, "cut")[TOKENS[cut]])
    lines = []
    for begin in STARTS[method]:
        losses, before = curve(book, cut, method, begin), book.starts[cut][begin]
        points = [(0, before), *((tokens, statistics.mean(values)) for tokens, values in losses.items())]
        answer = "" if begin == "cut" else said(needed(points, target), max(losses), TOKENS[cut])
        for tokens, values in losses.items():
            spread = f"{statistics.mean(values):.4f}"
            spread += f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
            name, rate = f"{begin} ({before:.3f})", f"{rate_of(book, cut, method, begin):g}"
            cells = (cut.replace("%", " %"), method, name, rate, f"{tokens // 1000}k", spread)
            lines.append(f"| {' | '.join(cells)} | {len(values)} | {answer} |")
            answer = ""
    return lines


def write_page(book: Book) -> None:
    """The table between its marks in docs/healing.md."""
    lines = ["| cut | method | start (nats) | rate | tokens | held-out nats | seeds | reaches the cut start after |",
             "|---|---|---|--:|--:|--:|--:|--:|"]  # fmt: skip
    for cut, method in itertools.product(TOKENS, STARTS):
        if TOKENS[cut] in curve(book, cut, method, "cut"):
            lines += rows(book, cut, method)
    head, _, rest = PAGE.read_text().partition(MARKS[0])
    PAGE.write_text(head + MARKS[0] + "\n" + "\n".join(lines) + "\n\n" + MARKS[1] + rest.partition(MARKS[1])[2])


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="*", default=["table", "page"])
    parser.add_argument("--cuts", default="50%,25%")
    parser.add_argument("--methods", default="cpt,distill")
    parser.add_argument("--folder", type=Path, help="where the models are made; a temporary one otherwise")
    given = parser.parse_args()
    torch.set_num_threads(1)
    book = Book()
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        for cut in given.cuts.split(","):
            if "ideas" in given.what:
                ideas(book, folder, cut)
            if "table" in given.what:
                for method in given.methods.split(","):
                    table(book, folder, cut, method)
    if "page" in given.what:
        write_page(book)


if __name__ == "__main__":
    main()
