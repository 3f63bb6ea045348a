"""What repair without training gained: figures that the page, report.md, the card and the headline share."""

from __future__ import annotations

from dataclasses import dataclass

from shortlm.artifacts import Fold, Manifest, RepairStep, ValidationLoss
from shortlm.report.evidence import Evidence
from shortlm.report.numbers import blocks, decimals, significant

PARTS = {"attention": "attention", "ffn": "FFN", "block": "all up to here"}
MOST = 24  # rows that Markdown shows


@dataclass(frozen=True)
class FoldRow:
    """A weight that was refitted, or a factor; `block` is the dense model's index."""

    block: int
    part: str
    fold: Fold

    @property
    def changed(self) -> bool:
        """Whether the best that was found is better than no change."""
        return self.fold.ridge is not None or self.fold.factor is not None


def repair_of(evidence: Evidence) -> RepairStep | None:
    """That of the last cut."""
    return evidence.manifest.repair if evidence.manifest else None


def fold_rows(step: RepairStep) -> list[FoldRow]:
    """Every weight that was solved for, in the order of the blocks."""
    return [FoldRow(step.blocks[fold.block], PARTS[fold.part], fold) for fold in step.folds]


def changed(step: RepairStep) -> list[FoldRow]:
    """What is no copy of the cut model's weights: nothing where the repair was not delivered."""
    return [row for row in fold_rows(step) if row.changed and step.delivered]


def won_back(loss: ValidationLoss) -> str:
    """76 %: how much of what the cut lost came back. Empty where the cut lost nothing, or the repair lost more."""
    lost, won = loss.cut - loss.dense, loss.cut - loss.repaired
    return f"{significant(100 * won / lost, 2)} %" if won >= 0 and lost > max(1e-6, 1e-6 * abs(loss.dense)) else ""


def nats(loss: ValidationLoss) -> list[tuple[str, str]]:
    """(model, nats per token), with as many decimals as two digits of the error need."""
    error = loss.stderr or 0.0
    places = min(decimals(error, 2), 6) if 1e-7 <= error < 1e4 else 4
    values = (("dense", loss.dense), ("cut", loss.cut), ("repaired", loss.repaired))
    return [(name, f"{value:,.{places}f}" if abs(value) < 1e7 else significant(value)) for name, value in values]


def no_copies(step: RepairStep) -> str:
    """Which weights are computed: the output projections of attention in block 2 and of the FFN in blocks 2, 6–11."""
    found = changed(step)
    of = {part: sorted({row.block for row in found if row.fold.part == part}) for part in PARTS}
    names = {"attention": "of attention in", "ffn": "of the FFN in"}
    solved = [f"{names[part]} {_blocks(of[part])}" for part in names if of[part]]
    text = f"the output projections {' and '.join(solved)}" if solved else ""
    scaled = f"all that writes the residual stream up to the end of {_blocks(of['block'])}" if of["block"] else ""
    return " and ".join(filter(None, (text, scaled)))


def repairs(manifest: Manifest) -> list[RepairStep]:
    """All of them, also those that a later cut followed."""
    return [step for step in manifest.steps if isinstance(step, RepairStep)]


def fitted_on(step: RepairStep) -> int:
    """Tokens that weights were fitted on."""
    return max((fold.tokens for fold in step.folds), default=0)


def _blocks(indices: list[int]) -> str:
    return f"block{'s' if len(indices) > 1 else ''} {blocks(indices)}"
