"""Settings of pruning widths: by which method, how much, and how it is written."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from shortlm.recipe.stages import WritingSettings


class WidthSettings(WritingSettings):
    """Which heads and channels go, and how the narrower checkpoint is written."""

    option_names = {"form": "as"}

    method: str = Field(
        "flap",
        max_length=100,
        description="flap (the variance of what enters the output projections), wanda-sp (its size), llm-pruner "
        "(gradients); flap:bias=false leaves out the biases that make up for the mean of what goes.",
    )
    drop_params: str | None = Field(None, description="Budget: this share of all parameters goes, e.g. 20%.")
    to_params: str | None = Field(None, description="Budget: so many parameters stay, e.g. 5.4B.")
    ratio: str | None = Field(
        None, description="Budget: as much as this share of the heads and channels of every block."
    )
    shape: Literal["even", "free"] = Field(
        "even",
        description="even: every block keeps as many heads and channels, so that a plain config can say it; "
        "free: what the method says, nearly always in our own type.",
    )
    blocks: str | None = Field(None, description="Only blocks in this list get narrower, as 4-29; for --shape free.")
    form: Literal["auto", "plain", "shortlm"] = Field(
        "auto",
        description="How it is written: plain (loads without shortlm), shortlm (our own type, in transformers after "
        "'import shortlm'); 'auto': plain where the config can say it.",
    )
