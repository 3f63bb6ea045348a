"""How the next token is chosen, as options of transformers' `generate`."""

from __future__ import annotations

from typing import Any


def sampling_options(temperature: float, top_k: int, top_p: float) -> dict[str, Any]:
    """Greedy at temperature 0; the model's own generation defaults are overruled, so that models can be compared."""
    if not temperature:
        return {"do_sample": False, "temperature": None, "top_k": None, "top_p": None}
    return {"do_sample": True, "temperature": temperature, "top_k": top_k, "top_p": top_p}
