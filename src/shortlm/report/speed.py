"""Speed and memory from raw runs: medians, spreads, ratios to the reference, and whether the machine was quiet enough.

Models that took turns are compared round by round: what slowed one round slowed all of them. The ratio is the median
over rounds, so that a round in which the machine stalled does not count for more than its one vote.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass

from shortlm.artifacts import Benchmark, Breakdown, Cell, Limit
from shortlm.report.numbers import exp
from shortlm.report.roles import reference_of

STUDENT = [  # 97.5 % by degrees of freedom
    math.inf, 12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23, 2.20, 2.18, 2.16, 2.14, 2.13, 2.12, 2.11,
    2.10, 2.09, 2.09, 2.08, 2.07, 2.07, 2.06, 2.06, 2.06, 2.05, 2.05, 2.05, 2.04,
]  # fmt: skip
TICK = 1e-9  # seconds: a run that took less, by a coarse clock or a file from elsewhere, counts as so long
PART_TICK = 1e-12  # the same for the parts of a step


@dataclass(frozen=True)
class CaseName:
    """A cell of the grid, whatever the model."""

    batch: int
    prompt_tokens: int
    output_tokens: int

    @property
    def words(self) -> str:
        """For axes and tables."""
        if not self.output_tokens:
            return f"batch {self.batch}, reading {self.prompt_tokens} tokens"
        return f"batch {self.batch}, {self.prompt_tokens} + {self.output_tokens} tokens"


@dataclass(frozen=True)
class Ratio:
    """How many times as fast as the reference, with its 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def sure(self) -> bool:
        """Whether the interval leaves 1 out: the machine was quiet enough to tell."""
        return self.low > 1 or self.high < 1


@dataclass(frozen=True)
class SpeedRow:
    """One model on one case. Times in seconds; quartiles are of the latency."""

    case: CaseName
    role: str
    latency: float
    quartiles: tuple[float, float]
    mean: float
    deviation: float  # population standard deviation, as the paper gives it
    first_token: float | None
    per_token: float | None
    tokens_per_second: float
    peak_bytes: int | None
    cache_bytes: int | None
    utilisation: float | None
    joules_per_token: float | None
    ratio: Ratio | None
    runs: int


def case_of(cell: Cell) -> CaseName:
    """The case of a cell."""
    return CaseName(cell.batch, cell.prompt_tokens, cell.output_tokens)


def speed_rows(benchmark: Benchmark | None) -> list[SpeedRow]:
    """A row per case and model, in the order they were measured, the reference first; cells without runs left out."""
    if benchmark is None:
        return []
    roles = [m.role for m in benchmark.models]
    first = reference_of(roles)
    roles.sort(key=lambda role: role != first)
    cells = {(case_of(c), c.role): c for c in benchmark.cells if c.runs}
    found = []
    for case in dict.fromkeys(case_of(c) for c in benchmark.cells):
        for role in roles:
            if (case, role) in cells:
                beside = cells.get((case, first)) if first is not None and role != first else None
                found.append(_row(case, cells[case, role], beside, benchmark.interleaved))
    return found


def _row(case: CaseName, cell: Cell, reference: Cell | None, paired: bool) -> SpeedRow:
    times = [max(run.seconds, TICK) for run in cell.runs]
    latency, firsts = statistics.median(times), [r.first_token for r in cell.runs if r.first_token is not None]
    first = statistics.median(firsts) if firsts else None
    later = [
        (r.seconds - r.first_token) / (case.output_tokens - 1)
        for r in cell.runs
        if r.first_token is not None and case.output_tokens > 1
    ]
    tokens = case.batch * (case.output_tokens or case.prompt_tokens)
    used = [r.utilisation for r in cell.runs if r.utilisation is not None]
    joules = [r.joules for r in cell.runs if r.joules is not None]
    return SpeedRow(
        case=case, role=cell.role, latency=latency, quartiles=_quartiles(times), mean=statistics.mean(times),
        deviation=statistics.pstdev(times), first_token=first, per_token=statistics.median(later) if later else None,
        tokens_per_second=tokens / latency, peak_bytes=cell.peak_bytes, cache_bytes=cell.cache_bytes,
        utilisation=statistics.mean(used) if used else None,
        joules_per_token=statistics.mean(joules) / tokens if joules and tokens else None,
        ratio=ratio(reference, cell, paired) if reference else None, runs=len(times),
    )  # fmt: skip


def _quartiles(times: list[float]) -> tuple[float, float]:
    if len(times) < 2:
        return times[0], times[0]
    low, _, high = statistics.quantiles(times, n=4, method="inclusive")
    return low, high


def ratio(reference: Cell, cell: Cell, paired: bool) -> Ratio:
    """The reference's time over the model's: the median over rounds, with an interval by order statistics.

    Of fewer than six rounds, or where the models did not take turns, the geometric mean with Student's t.
    """
    a, b = ([math.log(max(run.seconds, TICK)) for run in c.runs] for c in (reference, cell))
    if paired and len(a) == len(b):
        logs = sorted(x - y for x, y in zip(a, b, strict=True))
        if (rank := order_rank(len(logs))) > 0:
            return Ratio(*(exp(x) for x in (statistics.median(logs), logs[rank - 1], logs[-rank])))
        mean, error, freedom = statistics.mean(logs), _stderr(logs), len(logs) - 1
    else:
        mean = statistics.mean(a) - statistics.mean(b)
        error, freedom = math.hypot(_stderr(a), _stderr(b)), min(len(a), len(b)) - 1
    student = STUDENT[freedom] if freedom < len(STUDENT) else 1.96 + 2.5 / freedom
    width = error * student if freedom > 0 else math.inf
    return Ratio(exp(mean), exp(mean - width), exp(mean + width))


def order_rank(count: int) -> int:
    """The rank k for which the k-th smallest and k-th largest of `count` values enclose the median with 95 %; 0: none.

    A value is below the median as a coin falls, so the two fail with twice the binomial's lower tail.
    """
    tail, rank = 0.0, 0
    while 2 * (tail := tail + math.comb(count, rank) / 2**count) <= 0.05:
        rank += 1
    return rank


def _stderr(values: list[float]) -> float:
    return statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.inf


def main_case(benchmark: Benchmark | None) -> CaseName | None:
    """The first case with output that all models ran (else the first that they ran): the one for the headline."""
    rows = speed_rows(benchmark)
    if benchmark is None or not rows:
        return None
    wanted = {m.role for m in benchmark.models}
    shared = [c for c in dict.fromkeys(r.case for r in rows) if {r.role for r in rows if r.case == c} == wanted]
    return next((case for case in shared if case.output_tokens), shared[0] if shared else None)


def types_of(benchmark: Benchmark) -> str:
    """The compute types: one, or each model's where they differ."""
    found = {m.role: m.dtype or benchmark.provenance.dtype or "" for m in benchmark.models}
    kinds = set(found.values())
    return kinds.pop() if len(kinds) == 1 else ", ".join(f"{role} {dtype}" for role, dtype in found.items())


def noise_warnings(benchmark: Benchmark | None) -> list[str]:
    """What was noted while it ran, and a line for each difference that the machine was too noisy to tell."""
    return [*(benchmark.notes if benchmark else ())] + [
        f"{row.case.words}: {row.role} is {row.ratio.value:.2f} times as fast, but the 95 % interval "
        f"({row.ratio.low:.2f} to {row.ratio.high:.2f}) holds 1: too noisy a machine, or too few runs, to tell"
        for row in speed_rows(benchmark)
        if row.ratio and not row.ratio.sure
    ]


@dataclass(frozen=True)
class Share:
    """A decoding step of one model in parts, and its speed-up beside what dropping blocks can give at best."""

    breakdown: Breakdown
    blocks: int
    step: float
    speedup: float | None  # of the whole step
    ideal: float | None  # if the blocks' time were in proportion to their number, and all else the same
    of_ideal_blocks: float | None  # the blocks' own speed-up, over L / (L - k)


def shares(benchmark: Benchmark | None) -> list[Share]:
    """Of every breakdown, the reference's first."""
    if benchmark is None or not benchmark.breakdowns:
        return []
    first = reference_of(m.role for m in benchmark.models)
    counts = {m.role: m.model.n_blocks for m in benchmark.models}
    ordered = sorted(benchmark.breakdowns, key=lambda b: b.role != first)
    base = ordered[0] if ordered[0].role == first else None
    return [_share(b, base if b is not base else None, counts) for b in ordered]


def _share(b: Breakdown, base: Breakdown | None, counts: dict[str, int]) -> Share:
    step = max(b.blocks + b.head + b.rest, PART_TICK)
    if base is None:
        return Share(b, counts[b.role], step, None, None, None)
    before, kept = base.blocks + base.head + base.rest, counts[b.role] / max(counts[base.role], 1)
    ideal = before / max(base.blocks * kept + base.head + base.rest, PART_TICK)
    return Share(b, counts[b.role], step, before / step, ideal, base.blocks / max(b.blocks, PART_TICK) * kept)


def limit_pairs(benchmark: Benchmark | None) -> list[tuple[Limit, float | None]]:
    """Every limit with its factor over the reference's, the same kinds together."""
    if benchmark is None:
        return []
    first = reference_of(m.role for m in benchmark.models)
    found = sorted(benchmark.limits, key=lambda x: (x.kind, x.role != first))
    base = {x.kind: x.value for x in found if x.role == first}
    return [(x, x.value / base[x.kind] if x.role != first and base.get(x.kind) else None) for x in found]
