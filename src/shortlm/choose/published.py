"""Published scores of well-known models: cut one without scoring it.

Shipped as data: the block scores of the public Shortened LLaMA code, and the shape of each model, from
which the parameter counts follow.
"""

from __future__ import annotations

import json
import sys
from functools import cache
from pathlib import Path
from typing import Any

from shortlm.artifacts import BlockScores, CriterionScores, ModelFacts, provenance
from shortlm.errors import PlanError, did_you_mean, shown

DATA = Path(__file__).with_name("published.json")


@cache
def _published() -> dict[str, Any]:
    return json.loads(DATA.read_text(encoding="utf-8"))


def published_names() -> list[str]:
    """All model/criterion names."""
    return [f"{model}/{name}" for model, entry in _published()["models"].items() for name in entry["criteria"]]


def published_scores(name: str) -> BlockScores:
    """The published scores called model/criterion. Raises PlanError, naming the nearest known name."""
    if name not in published_names():
        raise PlanError(f"no published scores {shown(name)}; {did_you_mean(name, published_names())}")
    model, _, criterion = name.partition("/")
    entry = _published()["models"][model]
    # one published perplexity overflowed to infinity, which JSON can't hold: it stands there as null
    values = [sys.float_info.max if v is None else v for v in entry["criteria"][criterion]["scores"]]
    scores = CriterionScores(scores=values, unit="as published")
    return BlockScores(model=_facts(entry), criteria={criterion: scores}, provenance=provenance())


def published_source() -> str:
    """Where the scores were published, and on which text."""
    return f"{_published()['source']}; {_published()['calibration']}"


def _facts(entry: dict[str, Any]) -> ModelFacts:
    """Counted from the shape alone, as the model's own config gives them."""
    shape = entry["shape"]
    hidden, heads, kv_heads = shape["hidden_size"], shape["num_attention_heads"], shape["num_key_value_heads"]
    width = shape["head_dim"]
    attention = 2 * hidden * heads * width + 2 * hidden * kv_heads * width
    block = attention + 3 * hidden * shape["intermediate_size"] + 2 * hidden
    n_blocks, embedding = shape["num_hidden_layers"], shape["vocab_size"] * hidden
    total = n_blocks * block + embedding * (1 if shape["tie_word_embeddings"] else 2) + hidden
    return ModelFacts(
        name=entry["hub_id"], architecture=shape["model_type"], n_blocks=n_blocks,
        block_parameters=[block] * n_blocks, parameters=total,
    )  # fmt: skip
