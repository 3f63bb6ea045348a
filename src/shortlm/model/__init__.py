"""Open a checkpoint, find its parts, rewrite its config."""

from shortlm.model.anatomy import Anatomy, block_count, find_anatomy, scored_weights
from shortlm.model.checkpoint import Checkpoint, TensorEntry, block_prefix, locate, open_checkpoint, read_header
from shortlm.model.config import check_blocks, cut_config
from shortlm.model.guard import guard, meta_model
from shortlm.model.opening import (
    ModelFiles,
    OpenModel,
    compute_type,
    facts_from_config,
    facts_of,
    free_memory,
    load_strictly,
    open_config,
    open_files,
    open_for_scoring,
    open_model,
    open_tokenizer,
    pick_device,
    quiet,
)  # fmt: skip
from shortlm.model.reading import read_some
from shortlm.model.streaming import parted, skeleton

__all__ = [
    "Anatomy", "Checkpoint", "ModelFiles", "OpenModel", "TensorEntry", "block_count", "block_prefix", "check_blocks",
    "compute_type", "cut_config", "facts_from_config", "facts_of", "find_anatomy", "free_memory", "guard",
    "load_strictly", "locate", "meta_model", "open_checkpoint", "open_config", "open_files", "open_for_scoring",
    "open_model", "open_tokenizer", "parted", "pick_device", "quiet", "read_header", "read_some", "scored_weights",
    "skeleton",
]  # fmt: skip
