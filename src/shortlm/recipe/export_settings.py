"""Settings of what becomes of a finished checkpoint: fewer bits, another format."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from shortlm.recipe.base import Settings
from shortlm.recipe.stages import FilesSettings

PYTHON = "A Python interpreter that has the tool; an environment is made for it otherwise, once, and kept."


class QuantizeSettings(FilesSettings):
    """How the weights of linear layers become integers."""

    method: Literal["gptq", "rtn"] = Field(
        "gptq", description="gptq (2210.17323: column by column, the rest makes up for it), rtn (round to nearest)."
    )
    bits: Literal[4, 8] = Field(4, description="Of a weight; activations stay as they are.")
    group_size: int = Field(128, ge=0, le=2**20, description="Inputs that share a scale; 0: a scale for each output.")
    act_order: bool = Field(
        True, description="Of gptq: columns are taken by the size of their activations; groups stay neighbours."
    )
    dampening: float = Field(0.01, gt=0, le=1, description="Of gptq: share of the mean diagonal added to the Hessian.")
    held_out: int = Field(8, ge=0, le=10_000, description="Windows behind the others that both losses are taken on.")
    python: str | None = Field(None, description=PYTHON)


class GgufSettings(Settings):
    """How a GGUF file is made of a checkpoint."""

    option_names = {"outtype": "type"}

    outtype: Literal["auto", "f32", "f16", "bf16", "q8_0", "q6_k", "q5_k_m", "q4_k_m", "q4_0"] = Field(
        "auto", description="Type of the weights in the file; 'auto' is the checkpoint's own."
    )
    llama_cpp: str | None = Field(
        None,
        description="A checkout of llama.cpp, whose converter is taken; the one that comes with the tool otherwise.",
    )
    check: bool = Field(True, description="Load the file in llama.cpp and compare greedy decoding with transformers.")
    python: str | None = Field(None, description=PYTHON)
