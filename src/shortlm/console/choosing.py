"""Of choosing: what goes, how it was found, how sure the choice is."""

from __future__ import annotations

from pathlib import Path

from shortlm.artifacts import CERTAIN, BlockScores, CutPlan, Search
from shortlm.console.printing import tell
from shortlm.console.scores import show_agreement


def show_plan(plan: CutPlan) -> None:
    """Which blocks go and what that leaves."""
    before, after = plan.model.parameters, plan.parameters_after
    blocks = ", ".join(map(str, plan.removed)) or "none"
    tell(f"remove {len(plan.removed)} of {plan.model.n_blocks} blocks: {blocks}")
    if plan.removed_sublayers:
        tell(f"of others: {', '.join(map(str, plan.removed_sublayers))}")
    tell(f"by {plan.criterion} ({plan.method}), budget {plan.budget}, protected: {plan.protected or 'none'}")
    tell(f"parameters {before:,} -> {after:,} (-{1 - after / max(before, 1):.1%})")
    if plan.search:
        _show_search(plan.search)
    for line in certainty_lines(plan):
        tell(line)


def show_certainty(folder: Path) -> None:
    """Of a run: how stable the ranks were, and how sure the choice."""
    show_agreement(BlockScores.load(folder / "scores.json"))
    for line in certainty_lines(CutPlan.load(folder / "plan.json")):
        tell(line)


def certainty_lines(plan: CutPlan) -> list[str]:
    """How sure the choice is, by resampling the sequences, and a word where that is not enough."""
    lines = []
    if plan.search and (sure := plan.search.certainty):
        lines.append(
            f"of {sure.sets:,} sets the chosen one is the best in {sure.same:.0%} of {sure.resamples:,} resamples of "
            f"the sequences, {sure.regret:.2g} nats above the best on average"
            + (", as cut; it was chosen for what it is after the repair" if plan.search.after_repair else "")
        )
    elif plan.agreement is not None:
        lines.append(f"the same blocks are chosen in {plan.agreement:.0%} of resamples of the sequences")
    if plan.certain is False:
        lines.append(f"low: other text may choose otherwise (below {CERTAIN:.0%}); give more --sequences")
    return lines


def _show_search(found: Search) -> None:
    """What it took, how the chosen set does on other text."""
    spared = f", {found.spared:,} spared" if found.spared else ""
    tell(f"asked the model about {found.sets:,} sets{spared}: {found.block_forwards:,} block forwards")
    for trail in found.trails if len(found.trails) > 1 else found.trails[-1:]:
        last = trail.found[-1] if trail.found else None
        if last and last.held_out_nats is not None:
            error = "" if last.held_out_stderr is None else f" ± {last.held_out_stderr:.4f}"
            held = f", held out {last.held_out_nats:.4f}{error}"
        else:
            held = ""
        if last:
            tell(f"  {trail.name}: {last.nats:.4f} nats per token{held}, {trail.block_forwards:,} block forwards")
    if found.held_out_base_nats is not None:
        tell(f"  the whole model: {found.base_nats:.4f}, held out {found.held_out_base_nats:.4f}")
    if found.estimate:
        tau = found.estimate.rank_correlation
        count = len(found.estimate.units)
        tell(f"first-order estimate: rank correlation {tau:.2f} with the true losses of {count} units")
    for note in found.notes:
        tell(note)
