"""Heads for multi-token prediction: blocks behind the last one, which guess the tokens after the next.

transformers leaves them in the files; engines that know them decode faster with them. Checkpoints hold them as blocks
with the indices after the last (DeepSeek-V3, GLM-4.5) or under names of their own (mtp.*: Qwen3-Next, Nemotron-H).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from shortlm.model.anatomy import block_count
from shortlm.model.language import text_config, with_text_config

COUNTS = ("num_nextn_predict_layers", "num_mtp_layers", "mtp_num_hidden_layers", "mtp_num_layers")
LISTS = ("mtp_layer_types", "mtp_mlp_layer_types")
NAME = r"(?:^|\.)mtp(?:_\w+)?\."  # mtp.fc., model.mtp_layers.0., mtp_block.0.


def mtp_names(config: Any, names: Iterable[str]) -> list[str]:
    """Those of the tensors' names that belong to such heads."""
    text, last = text_config(config), block_count(config)
    count = max((n for field in COUNTS if isinstance(n := getattr(text, field, None), int)), default=0)
    behind = "|".join(map(str, range(last, last + min(count, last))))
    pattern = re.compile(NAME + (rf"|(?:^|\.)(?:layers|blocks|h)\.(?:{behind})\." if behind else ""))
    return [name for name in names if pattern.search(name)]


def without_mtp(config: Any) -> Any:
    """A config that promises no such heads."""
    text = text_config(config)
    fields: dict[str, Any] = {name: 0 for name in COUNTS if getattr(text, name, None)}
    fields |= {name: None for name in LISTS if getattr(text, name, None)}
    return with_text_config(config, type(text).from_dict(text.to_dict() | fields)) if fields else config
