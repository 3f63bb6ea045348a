"""Searches made by hand: six ways of choosing in models of any depth, by losses that a simple formula gives.

A unit costs more at both ends of the model and if its neighbour is gone; held-out losses are a little worse.
"""

from __future__ import annotations

import math
import random

from made_by_hand import Page, data, origin

from shortlm.artifacts import (
    BlockScores,
    Certainty,
    CriterionScores,
    CutPlan,
    Estimate,
    Found,
    ModelFacts,
    Search,
    Trail,
    Tried,
)
from shortlm.report import Evidence, write_page
from shortlm.units import Unit

ATTENTION, FFN, OUTSIDE = 30_000, 60_000, 100_000
BASE, HELD_OUT_BASE = 2.401, 2.455


def sized(blocks: int) -> ModelFacts:
    return ModelFacts(
        name="embedded", revision="main", architecture="LlamaForCausalLM", n_blocks=blocks,
        block_parameters=[ATTENTION + FFN] * blocks, attention_parameters=[ATTENTION] * blocks,
        ffn_parameters=[FFN] * blocks, parameters=blocks * (ATTENTION + FFN) + OUTSIDE,
    )  # fmt: skip


def protected(blocks: int) -> list[int]:
    return [0, 1, blocks - 1]


def cost(units: list[Unit], blocks: int) -> float:
    share = {"block": 1.0, "attention": 0.22, "ffn": 0.62}
    gone = {u.block for u in units}
    total = 0.0
    for u in units:
        noise = random.Random(f"{u}").random()
        bowl = 0.012 + 0.3 * abs(2 * (u.block + 1) / blocks - 1.15) ** 3 + 0.02 * noise
        total += share[u.part] * bowl * (16 / blocks) * (1.6 if u.block - 1 in gone else 1.0)
    return total


def found(units: list[Unit], blocks: int, forwards: int) -> Found:
    rise, luck = cost(units, blocks), random.Random(f"{sorted(units)}").gauss(0, 0.03)
    return Found(
        units=sorted(units), nats=BASE + rise, stderr=0.02 * rise + 0.001, block_forwards=forwards,
        held_out_nats=HELD_OUT_BASE + rise * (1.12 + luck) + 0.004, held_out_stderr=0.03 * rise + 0.002,
    )  # fmt: skip


def one_shot(name: str, blocks: int, count: int, slope: float) -> Trail:
    order = sorted(
        (i for i in range(blocks) if i not in protected(blocks)),
        key=lambda i: cost([Unit(i)], blocks) + slope * random.Random(f"{name}{i}").random(),
    )
    sets = [found([Unit(i) for i in order[: n + 1]], blocks, blocks * (blocks + 1) // 2) for n in range(count)]
    return Trail(name=name, found=sets, block_forwards=blocks * (blocks + 1) // 2)


def greedy(name: str, blocks: int, candidates: list[Unit], least: int, noise: float = 0.0) -> Trail:
    """Until as many parameters are gone as `least` blocks have."""
    chosen: list[Unit] = []
    sets, forwards, weights = [], 0, {"block": 3, "attention": 1, "ffn": 2}
    while sum(weights[u.part] for u in chosen) < 3 * least:
        rest = [u for u in candidates if u not in chosen]
        rng = random.Random(f"{name}{len(chosen)}")
        chosen.append(min(rest, key=lambda u: cost([*chosen, u], blocks) / weights[u.part] + noise * rng.random()))
        forwards += len(rest) * blocks * 8
        sets.append(found(chosen, blocks, forwards))
    return Trail(name=name, found=sets, block_forwards=forwards)


def evolution(blocks: int, count: int, steps: int = 9) -> Trail:
    rng, best, sets = random.Random(5), [], []
    free = [i for i in range(blocks) if i not in protected(blocks)]
    tries = [[Unit(i) for i in rng.sample(free, count)] for _ in range(40 * steps)]
    for n, units in enumerate(tries, start=1):
        if not best or cost(units, blocks) < cost(best, blocks):
            best = units
            sets.append(found(best, blocks, n * blocks * 10))
    return Trail(name="evolution", found=sets, block_forwards=len(tries) * blocks * 10)


def trails(blocks: int) -> list[Trail]:
    """The last one is of whole blocks."""
    count = blocks // 4
    free = [i for i in range(blocks) if i not in protected(blocks)]
    whole, fine = [Unit(i) for i in free], [Unit(i, p) for i in free for p in ("attention", "ffn")]
    return [
        one_shot("one-shot bi", blocks, count, 0.06), one_shot("one-shot ppl", blocks, count, 0.012),
        evolution(blocks, count), greedy("greedy over attention and FFN", blocks, fine, count),
        greedy("greedy", blocks, whole, count, 0.006), greedy("beam:width=4", blocks, whole, count),
    ]  # fmt: skip


def search(blocks: int, listed: list[Trail] | None = None, **changes) -> Search:
    listed = trails(blocks) if listed is None else listed
    tried = [Tried(units=f.units, nats=f.nats, sequences=10, tokens=1280) for t in listed for f in t.found]
    units = [Unit(i) for i in range(blocks)]
    known = {
        "base_nats": BASE, "tried": tried, "block_forwards": sum(t.block_forwards for t in listed), "data": data(),
        "held_out": data("wikitext", "0" * 64), "held_out_base_nats": HELD_OUT_BASE, "trails": listed,
        "certainty": Certainty(resamples=1000, sets=240, same=0.63, overlap=0.88, regret=0.0042, regret_95=0.0131),
        "estimate": Estimate(
            units=units, estimated=[0.8 * cost([u], blocks) for u in units],
            measured=[cost([u], blocks) for u in units], rank_correlation=0.71,
        ),
    }  # fmt: skip
    return Search(**(known | changes))


def searched_plan(blocks: int = 16, listed: list[Trail] | None = None, **changes) -> CutPlan:
    """A plan of the last set of the last way."""
    told = search(blocks, listed, **changes)
    units, model = told.trails[-1].found[-1].units, sized(blocks)
    lost = [u.block for u in units]
    whole = [Unit(u.block) for u in units if u.part == "block" or (u.part == "ffn" and lost.count(u.block) == 2)]
    units = [*whole, *(u for u in units if u.part != "block" and Unit(u.block) not in whole)]
    return CutPlan(
        model=model, removed=[u.block for u in whole], removed_sublayers=units[len(whole):],
        method=told.trails[-1].name, criterion="none", budget="25%", protected=protected(blocks), search=told,
        parameters_after=model.parameters - sum(model.parameters_of(u) for u in units), provenance=origin(321.0),
    )  # fmt: skip


def unit_scores(blocks: int = 16) -> BlockScores:
    """Scores of attention and FFN of every block."""
    units = [Unit(i, part) for i in range(blocks) for part in ("attention", "ffn")]
    losses, rng = [cost([u], blocks) for u in units], random.Random(7)
    criteria = {
        "ppl": CriterionScores(
            scores=[3.021 * math.exp(loss) for loss in losses], unit="perplexity", rank_agreement=0.81,
            paired_stderr=[0.06 * loss + 0.004 for loss in losses],
        ),
        "first_order": CriterionScores(scores=[0.7 * v + 0.03 * rng.random() for v in losses], unit="nats per token"),
        "bi": CriterionScores(scores=[v**1.4 * rng.uniform(0.6, 1.6) for v in losses], unit="1 - cosine"),
    }  # fmt: skip
    return BlockScores(
        model=sized(blocks), data=data(), base_perplexity=3.021, units=units, criteria=criteria, provenance=origin()
    )


def drawn(folder, **known) -> str:
    return write_page(folder / "r.html", Evidence("T", **known), force=True).read_text(encoding="utf-8")


def sections(text: str) -> list[str | None]:
    return [a["id"] for tag, a in Page(text).elements if tag == "section"]


def words(text: str) -> str:
    return " ".join(" ".join(Page(text).words).split()).replace("\u00a0", " ").replace("−", "-")


def one_set(name: str, units: list[Unit], nats: float, held_out: float | None = None, forwards: int = 10) -> Trail:
    error = None if held_out is None else 0.003
    found = Found(units=units, nats=nats, stderr=0.002, held_out_nats=held_out, held_out_stderr=error,
                  block_forwards=forwards)  # fmt: skip
    return Trail(name=name, found=[found], block_forwards=forwards)
