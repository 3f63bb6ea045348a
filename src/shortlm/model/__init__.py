"""Open a checkpoint, find its parts, rewrite its config."""

from shortlm.model.anatomy import Anatomy, block_count, find_anatomy, scored_weights
from shortlm.model.checkpoint import Checkpoint, TensorEntry, block_prefix, open_checkpoint, read_header
from shortlm.model.config import check_blocks, cut_config
from shortlm.model.guard import guard, meta_model
from shortlm.model.opening import (
    OpenModel,
    facts_from_config,
    facts_of,
    load_strictly,
    open_config,
    open_for_scoring,
    open_model,
    open_tokenizer,
    pick_device,
    quiet,
)  # fmt: skip

__all__ = [
    "Anatomy", "Checkpoint", "OpenModel", "TensorEntry", "block_count", "block_prefix", "check_blocks", "cut_config",
    "facts_from_config", "facts_of", "find_anatomy", "guard", "load_strictly", "meta_model", "open_checkpoint",
    "open_config", "open_for_scoring", "open_model", "open_tokenizer", "pick_device", "quiet", "read_header",
    "scored_weights",
]  # fmt: skip
