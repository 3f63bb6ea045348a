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
from shortlm.statistics import independent_stderr, order_rank, stderr, student_width

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
            return f"batch {self.batch}, prefill of {self.prompt_tokens} tokens"
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
        mean, error, freedom = statistics.mean(logs), stderr(logs), len(logs) - 1
    else:
        mean = statistics.mean(a) - statistics.mean(b)
        error, freedom = independent_stderr([stderr(a), stderr(b)]), min(len(a), len(b)) - 1
    width = math.inf if error is None else error * student_width(freedom)
    return Ratio(exp(mean), exp(mean - width), exp(mean + width))


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


LOADED = 0.1  # share of the cores that others may keep busy without a word


def load_note(busy: float | None, cores: int) -> str | None:
    """What to say of a machine that others use too."""
    if busy is None or busy <= LOADED * cores:
        return None
    return f"other processes kept {busy:.1f} of {cores} cores busy before the start, so times are longer and noisier"


def bench_notes(benchmark: Benchmark | None) -> list[str]:
    """A line for the machine's load, for every case that was cut short, and for all that was left out."""
    if benchmark is None:
        return []
    load, short = load_note(benchmark.busy_cores, benchmark.cores), {}
    for cell in benchmark.cells:
        if 0 < len(cell.runs) < cell.rounds:
            short.setdefault((case_of(cell), len(cell.runs), cell.rounds), []).append(cell.role)
    found = [
        f"{case.words}: {', '.join(roles)} cut short after {done} of {asked} rounds, the time was up "
        f"(--minutes {benchmark.minutes or 0:g})"
        for (case, done, asked), roles in short.items()
    ]
    return [*([load] if load else []), *found, *benchmark.left_out]


def noise_warnings(benchmark: Benchmark | None) -> list[str]:
    """A line for each difference that the machine was too noisy to tell."""
    return [
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
    ideal: float | None  # if the blocks' time were in proportion to their parameters, and all else the same
    of_ideal_blocks: float | None  # the blocks' own speed-up, over that of their parameters


def shares(benchmark: Benchmark | None) -> list[Share]:
    """Of every breakdown, the reference's first."""
    if benchmark is None or not benchmark.breakdowns:
        return []
    first = reference_of(m.role for m in benchmark.models)
    counts = {m.role: m.model.n_blocks for m in benchmark.models}
    weights = {m.role: sum(m.model.block_parameters) for m in benchmark.models}
    ordered = sorted(benchmark.breakdowns, key=lambda b: b.role != first)
    base = ordered[0] if ordered[0].role == first else None
    return [_share(b, base if b is not base else None, counts, weights) for b in ordered]


def _share(b: Breakdown, base: Breakdown | None, counts: dict[str, int], weights: dict[str, int]) -> Share:
    step = max(b.blocks + b.head + b.rest, PART_TICK)
    if base is None:
        return Share(b, counts[b.role], step, None, None, None)
    before, kept = base.blocks + base.head + base.rest, weights[b.role] / max(weights[base.role], 1)
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
