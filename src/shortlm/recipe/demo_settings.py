"""Settings of the web page on which models are tried side by side."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from shortlm.recipe.base import Settings


class DemoSettings(Settings):
    """Where the page is served, and what a visitor may ask of it."""

    host: str = Field("127.0.0.1", max_length=255, description="Address that is listened on; 0.0.0.0 for all.")
    port: int = Field(7860, ge=0, le=65535, description="0: any that is free.")
    password: str | None = Field(
        None, min_length=1, max_length=200, description="Asked of visitors, as 'user:password'."
    )
    report: str | None = Field(None, description="A page of 'run' or 'compare' (HTML), one click away.")
    new_tokens: int = Field(256, ge=1, le=100_000, description="The most tokens that a visitor may ask for.")
    prompt_tokens: int = Field(1024, ge=1, le=1_000_000, description="The longest prompt.")
    waiting: int = Field(16, ge=1, le=1000, description="Visitors who may wait for their turn.")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="Compute type; 'auto' is each checkpoint's own."
    )
    device: str = Field("auto", description="cpu, cuda, cuda:1, mps; 'auto' takes the first accelerator there is.")
    open: bool = Field(False, description="Open the page in a browser.")
