"""How a choice was found by asking the model: the sets that were tried, what each way came to, how sure it is."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from shortlm.artifacts.base import ONE_MISTAKE, Count, DataFacts, Positive, Record, Share, Size, Units, Values

AFTER_REPAIR = "nats per token after repair"  # how the note begins that tells of sets compared so
CERTAIN = 0.9  # share of resamples that have to agree with a choice; `--sequences auto` takes text until they do


class Tried(Record):
    """A set of units that a search has asked the model about."""

    units: Units = Field(description="What was left out.")
    nats: float = Field(description="The objective per token without them: cross-entropy, or KL divergence.")
    sequences: Count = Field(description="From how many sequences.")
    tokens: Count = Field(description="Predicted tokens in these.")


class Found(Record):
    """A set that was the best one at some step of a search."""

    units: Units
    nats: float = Field(description="The objective per token, on the text of the search.")
    stderr: Size | None = Field(None, description="Standard error of its difference to the whole model's, paired.")
    held_out_nats: float | None = Field(None, description="Cross-entropy per token on text that no search saw.")
    held_out_stderr: Size | None = Field(None, description="Standard error of its difference to the whole model's.")
    block_forwards: Count = Field(description="Spent by its way when it was found, each over all sequences.")


class Trail(Record):
    """What one way of choosing came to: sets of growing size, or better and better ones of one size."""

    name: str = Field(description="As one-shot bi, greedy, beam:width=4.")
    found: Annotated[list[Found], ONE_MISTAKE]
    block_forwards: Count = Field(description="Spent by this way alone, each over all sequences.")


class Estimate(Record):
    """The first-order estimate of what leaving out each unit costs, beside the true losses."""

    units: Units
    estimated: Values = Field(description="Nats per token.")
    measured: Values = Field(description="Nats per token: loss without the unit less that of the whole model.")
    rank_correlation: float = Field(ge=-1, le=1, description="Kendall's tau.")


class Certainty(Record):
    """How sure a choice is: by bootstrap over the sequences, among all sets that meet the budget and were tried."""

    resamples: Positive
    sets: Positive = Field(description="How many were compared.")
    same: Share = Field(description="Share of resamples in which the chosen set is the best.")
    overlap: Share = Field(description="Mean share of the chosen units that are also in the best set of a resample.")
    regret: Size = Field(description="Mean loss of the chosen set above the best one of each resample, nats per token.")
    regret_95: Size = Field(description="95 % of resamples have at most this.")

    @property
    def enough(self) -> bool:
        """Whether other text of the same kind would hardly choose otherwise."""
        return self.same >= CERTAIN


class Search(Record):
    """How a choice was found by asking the model."""

    base_nats: float = Field(description="Mean cross-entropy per token of the whole model.")
    tried: Annotated[list[Tried], ONE_MISTAKE] = Field(description="All sets, or of very many the best ones.")
    sets: Count = Field(0, description="How many sets were tried.")
    block_forwards: Count = Field(description="Of all processes together, each over all sequences once.")
    data: DataFacts
    objective: str = Field("cross-entropy", description="What was made small.")
    held_out: DataFacts | None = Field(None, description="Text that no search saw.")
    held_out_base_nats: float | None = Field(None, description="Of the whole model on it.")
    trails: Annotated[list[Trail], ONE_MISTAKE] = Field(
        [], description="Each way that was tried; the last one's last set is the choice."
    )
    spared: Count = Field(
        0, description="Candidates that were not evaluated, or not to the end, since they could not win."
    )
    estimate: Estimate | None = None
    certainty: Certainty | None = None
    notes: Annotated[list[str], ONE_MISTAKE] = []

    @property
    def after_repair(self) -> bool:
        """Whether the choice was made among repaired sets, of which the certainty doesn't tell."""
        return any(note.startswith(AFTER_REPAIR) for note in self.notes)
