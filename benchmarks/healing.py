"""CPT, LoRA and CPT -> LoRA on the embedded model cut by a quarter and by half, at equal tokens and at equal time.

python benchmarks/healing.py [--tokens 400k] [--seeds 3] [--threads 1] [--cuts 50%,75% --name healing-severe]

Blocks are chosen by ppl, one-shot. Rates are tuned first on a seed that is not used again. What counts is the share of
the lost nats that healing wins back, on held-out windows of another seed of the text. At equal time a method gets the
tokens that it trains in the time that CPT takes; speeds are measured in this run, alternating.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

import torch
from machine import describe, save

import shortlm
from shortlm.heal import heal
from shortlm.recipe import (
    ChooseSettings,
    CutSettings,
    EvalSettings,
    HealSettings,
    ModelSettings,
    PhaseSettings,
    ScoreSettings,
    TextSettings,
)  # fmt: skip
from shortlm.sizes import quantity

RATES = {"cpt": (5e-4, 1e-3, 2e-3, 4e-3), "lora": (5e-3, 1e-2, 2e-2, 4e-2)}
CUTS = {"25%": 3, "50%": 6, "75%": 9}
HELD_OUT = TextSettings(text="embedded", seed=2**40, sequences=256, length=255)


def phase(method: str, tokens: int, seed: int, rate: float) -> PhaseSettings:
    """One phase; the best of rank 8 and all matrices of the blocks for LoRA."""
    return PhaseSettings(
        method=method, data=[{"data": "embedded", "seed": 10_000 + seed}], separator="\n\n", tokens=str(tokens),
        batch=16, lr=rate, held_out=0, eval_every=10**6, keep="last", seed=seed,
    )  # fmt: skip


def nats(model: str) -> float:
    """On the held-out windows."""
    settings = EvalSettings(texts=[HELD_OUT], new_tokens=0)
    return shortlm.evaluate(ModelSettings(model=model), settings).perplexities[0].nats_per_token


def healed(model: str, phases: list[PhaseSettings]) -> tuple[float, float]:
    """Nats after these phases, and tokens per second of the last one."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "healed"
        done = heal(ModelSettings(model=model), HealSettings(phases=phases), out)
        last = done.phases[-1].log[-1]
        return nats(str(out)), last.tokens / last.seconds


def chain(name: str, tokens: int, seed: int, rates: dict[str, float]) -> list[PhaseSettings]:
    """The phases of a method; a chain shares the tokens equally."""
    methods = name.split(" -> ")
    return [phase(method, tokens // len(methods), seed, rates[method]) for method in methods]


def tuned(model: str, tokens: int) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """The best rate of each method on seed 99, and what all rates gave."""
    tried = {
        method: {f"{rate:g}": healed(model, [phase(method, tokens, 99, rate)])[0] for rate in rates}
        for method, rates in RATES.items()
    }
    return {method: float(min(found, key=lambda r: found[r])) for method, found in tried.items()}, tried


def speed_ratio(model: str, rates: dict[str, float]) -> float:
    """Tokens per second of LoRA over those of CPT, median of alternating runs."""
    found = []
    for _ in range(3):
        cpt, lora = (healed(model, [phase(m, 40_000, 98, rates[m])])[1] for m in ("cpt", "lora"))
        found.append(lora / cpt)
    return statistics.median(found)


def row(cut: str, budget: str, name: str, values: list[float], dense: float, before: float, tokens: int) -> dict:
    """Recovery: mean and spread over the seeds."""
    recovered = [(before - v) / (before - dense) for v in values]
    return {"cut": cut, "budget": budget, "method": name, "tokens": tokens, "nats": values, "recovered": recovered,
            "mean": statistics.mean(recovered), "stdev": statistics.stdev(recovered)}  # fmt: skip


def compared(cut: str, blocks: int, tokens: int, seeds: int, folder: Path) -> dict:
    """All methods on one cut."""
    model = str(folder / f"cut-{blocks}")
    scores = shortlm.score(
        ModelSettings(), TextSettings(text="embedded", sequences=64), ScoreSettings(criteria=["ppl"])
    )
    plan = shortlm.choose(scores, ChooseSettings(blocks=blocks, protect="ends"))
    shortlm.cut(ModelSettings(), plan, CutSettings(), model)
    dense, before = nats("embedded"), nats(model)
    rates, tried = tuned(model, tokens // 4)
    ratio = speed_ratio(model, rates)
    rows = []
    for name, faster in (("cpt", 1.0), ("lora", ratio), ("cpt -> lora", 2 / (1 + 1 / ratio))):
        for budget in ("equal tokens", "equal time"):
            given = round(tokens * (faster if budget == "equal time" else 1.0))
            if budget == "equal time" and name == "cpt":
                rows.append(rows[-1] | {"budget": budget})
                continue
            values = [healed(model, chain(name, given, seed, rates))[0] for seed in range(seeds)]
            rows.append(row(cut, budget, name, values, dense, before, given))
            print({k: rows[-1][k] for k in ("cut", "budget", "method", "tokens", "mean", "stdev")}, flush=True)
    return {"cut": cut, "removed": plan.removed, "dense": dense, "before": before, "rates": rates, "tried": tried,
            "lora_speed": ratio, "rows": rows}  # fmt: skip


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", default="400k")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cuts", default="25%,50%")
    parser.add_argument("--name", default="healing")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    with tempfile.TemporaryDirectory() as folder:
        cuts = [
            compared(cut, CUTS[cut], quantity(given.tokens), given.seeds, Path(folder)) for cut in given.cuts.split(",")
        ]
    save(given.name, {"what": __doc__.splitlines()[0], "machine": describe(), "seeds": given.seeds, "cuts": cuts})


if __name__ == "__main__":
    main()
