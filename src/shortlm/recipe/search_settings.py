"""Settings of methods that ask the model: by which objective, on which texts, how much work."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from shortlm.recipe.base import Settings
from shortlm.recipe.stages import MOST_WINDOWS


class SearchSettings(Settings):
    """How a method that asks the model compares sets."""

    objective: Literal["cross-entropy", "kl"] = Field(
        "cross-entropy", description="What is made small: cross-entropy, or KL divergence to the whole model."
    )
    top_k: int = Field(
        512, ge=1, le=1_000_000, description="For kl: so many likeliest tokens are kept, all others are one class."
    )
    mix: list[str] = Field(
        [],
        max_length=100,
        description="More texts beside --text, each as FILE or FILE=WEIGHT (--text has weight 1): c4.jsonl=0.5.",
    )
    held_out: int = Field(
        32,
        ge=0,
        le=MOST_WINDOWS,
        description="Windows that no search sees; the loss of every best set on them is told.",
    )
    confirm: int = Field(
        32, ge=0, le=MOST_WINDOWS, description="For auto: more windows, on which the last sets are compared."
    )
    budget_minutes: float | None = Field(
        None, gt=0, le=1e6, description="For auto: about so long; empty: 12 times what plain scoring by ppl takes."
    )
    most_sequences: int = Field(
        320,
        ge=2,
        le=MOST_WINDOWS,
        description="With --sequences auto, which doubles the text until the choice is stable: the limit.",
    )
    resamples: int = Field(
        1000, ge=0, le=100_000, description="Bootstrap resamples of the sequences, which tell how sure the choice is."
    )
