"""Of scoring: the scores with their ranks, how stable these are, and what scoring would take."""

from __future__ import annotations

from shortlm.artifacts import BlockScores, CriterionScores, WorkEstimate
from shortlm.console.printing import Grid, tell
from shortlm.sizes import duration, gib


def show_scores(scores: BlockScores) -> None:
    """One row per block or unit, one column per criterion; the rank (0 = removed first) behind each score.

    Of a race, whose scores are from more sequences or fewer, how many they are instead.
    """
    what = "unit" if scores.units else "block"
    table = Grid(what, *scores.criteria)
    columns = [_score_cells(criterion) for criterion in scores.criteria.values()]
    for unit, *cells in zip(scores.rows, *columns, strict=True):
        table.add(str(unit), *cells)
    raced = any(c.race and c.race.early for c in scores.criteria.values())
    ranked = f"score and rank of each {what}; rank 0 is the least important and goes first"
    tell(f"{scores.model.name}: {'score of each block, and on how many sequences' if raced else ranked}")
    table.show()
    if raced:
        tell("* left the race early: scores on other sequences can't be compared, so there are no ranks")
    show_agreement(scores)
    for race in (c.race for c in scores.criteria.values() if c.race):
        tell(f"least important of those that may go: {', '.join(map(str, race.selected))}")
        share = scores.block_forwards / max(race.block_forwards_full, 1)
        work = f"{scores.block_forwards:,} block forwards, {share:.0%}"
        tell(f"found with {work} of the full sweep's")
    if scores.base_perplexity is not None:
        tell(f"perplexity of the whole model on the same windows: {scores.base_perplexity:.4f}")


def show_agreement(scores: BlockScores) -> None:
    """How stable the ranks are, and whether that is enough."""
    known = {name: c for name, c in scores.criteria.items() if c.rank_agreement is not None}
    if known:
        each = ", ".join(f"{name} {c.rank_agreement:.2f}" for name, c in known.items())
        tell(f"rank agreement over resampled sequences (Kendall tau): {each}")
    if low := [name for name, c in known.items() if not c.stable]:
        order = f"one in ten pairs of {'units' if scores.units else 'blocks'} or more changes its order (tau below 0.8)"
        tell(f"low for {', '.join(low)}: {order}; score more --sequences")


def _score_cells(criterion: CriterionScores) -> list[str]:
    """A score and its rank; if blocks left a race early, the number of sequences instead, and a mark."""
    race = criterion.race
    if race and race.early:
        behind = [f"{'*' if i in race.early else ' '} {count:3d}" for i, count in enumerate(race.sequences)]
    else:
        ranks = {block: rank for rank, block in enumerate(criterion.order())}
        behind = [f" {ranks[i]:2d}" for i in range(len(ranks))]
    return [f"{score:.4g} {more}" for score, more in zip(criterion.scores, behind, strict=True)]


def show_work(estimate: WorkEstimate, what: str = "criterion") -> None:
    """One row per criterion, or whatever is planned: memory, reading, computing, time."""
    where = f"{estimate.provenance.device}, {estimate.provenance.dtype}"
    tell(f"{estimate.model.name}: {estimate.sequences} sequences of {estimate.tokens} tokens, {where}, weights "
              f"{gib(estimate.weights_bytes)}")  # fmt: skip
    table = Grid(what, "blocks", "peak", "read", "forwards", "TFLOP", "time", left=("blocks",))
    for row in estimate.rows:
        passes = f", {row.passes} passes" if row.passes > 1 else ""
        blocks = f"disk{passes}" if row.streamed else "memory"
        peak = gib(row.peak_bytes) if row.exact else f"< {gib(row.peak_bytes)}"
        time = "-" if row.seconds is None else duration(row.seconds)
        table.add(
            row.name, blocks, peak, gib(row.bytes_read), f"{row.block_forwards:,}", f"{row.flops / 1e12:.2f}", time
        )
    table.show()
    if all(row.seconds is None for row in estimate.rows):
        tell("the device is not here: no time could be measured")
    elif estimate.disk_bytes_per_second is None:
        tell("the time counts computing, not reading")
