"""How the next token is chosen, as options of transformers' `generate`."""

from __future__ import annotations

from typing import Any

# What a checkpoint's generation_config.json may set, and the value at which it does nothing.
NEUTRAL: dict[str, Any] = {
    "num_beams": 1, "repetition_penalty": 1.0, "no_repeat_ngram_size": 0, "typical_p": 1.0, "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0, "min_p": 0.0,
}  # fmt: skip


def sampling_options(model: Any, temperature: float, top_k: int, top_p: float) -> dict[str, Any]:
    """Greedy at temperature 0. What the model's own generation settings ask beyond that is switched off, so that models
    can be compared; `generate` would fill it in.
    """
    own = model.generation_config
    switched_off = {name: value for name, value in NEUTRAL.items() if getattr(own, name, None) not in (None, value)}
    if not temperature:
        return switched_off | {"do_sample": False, "temperature": None, "top_k": None, "top_p": None}
    return switched_off | {"do_sample": True, "temperature": temperature, "top_k": top_k, "top_p": top_p}
