"""Settings of repair: by which method, on how much text."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from shortlm.recipe.base import Settings
from shortlm.recipe.stages import MOST_WINDOWS

Ridge = Annotated[float, Field(ge=0, le=1e12)]


class RepairSettings(Settings):
    """How the blocks that stay take over what the missing ones did."""

    method: str = Field(
        "auto",
        max_length=100,
        description="auto (refit of attention and FFN), refit, linear, scale, none; with options as "
        "refit:attention=false, or as published: linear:replaceme, linear:replaceme-cosine, scale:prune-and-comp.",
    )
    calibration: int = Field(200, ge=1, le=MOST_WINDOWS, description="Windows that weights are fitted on.")
    validation: int = Field(
        40, ge=2, le=MOST_WINDOWS, description="Windows behind these, by which ridges are chosen and losses compared."
    )
    ridges: list[Ridge] = Field(
        [1e-4, 1e-3, 1e-2, 1e-1],
        min_length=1,
        max_length=20,
        description="Shares of the mean diagonal that are tried as ridge, for every weight.",
    )
    weighting: Literal["plain", "norm"] = Field(
        "plain",
        description="norm: every token's error counts as the next norm sees it, every channel's by the final norm.",
    )
