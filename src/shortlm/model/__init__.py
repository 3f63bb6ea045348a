"""Open a checkpoint, find its parts, rewrite its config."""

from shortlm.model.anatomy import Anatomy, block_count, find_anatomy, of_other_towers, scored_weights
from shortlm.model.cache_size import cache_sizes
from shortlm.model.caches import cache_name, cache_of
from shortlm.model.config import cut_config
from shortlm.model.devices import fits, free_memory, pick_device, planned_device, tokens_per_call
from shortlm.model.file_names import names_in_model, prefix_of_blocks
from shortlm.model.guard import guard, meta_model
from shortlm.model.language import auto_class, is_composite, special_ids, text_config, vocabulary
from shortlm.model.left_out import modules_of
from shortlm.model.mtp import mtp_names, without_mtp
from shortlm.model.opening import (
    ModelFiles,
    OpenModel,
    compute_type,
    context_of,
    facts_from_config,
    facts_of,
    load_strictly,
    open_config,
    open_files,
    open_for_scoring,
    open_model,
    open_tokenizer,
    quiet,
)  # fmt: skip
from shortlm.model.own_type import architecture_of, left_out_of, own_config, plain_config, widths_of
from shortlm.model.projections import OUTPUTS, Projection, output_projection
from shortlm.model.reading import read_some
from shortlm.model.sampling import sampling_options
from shortlm.model.stored import StoredTensors
from shortlm.model.streaming import skeleton, split_by_block
from shortlm.model.widths import Widths, linear_widths

__all__ = [
    "OUTPUTS",
    "Anatomy",
    "ModelFiles",
    "OpenModel",
    "Projection",
    "StoredTensors",
    "Widths",
    "architecture_of",
    "auto_class",
    "block_count",
    "cache_name",
    "cache_of",
    "cache_sizes",
    "compute_type",
    "context_of",
    "cut_config",
    "facts_from_config",
    "facts_of",
    "find_anatomy",
    "fits",
    "free_memory",
    "guard",
    "is_composite",
    "left_out_of",
    "linear_widths",
    "load_strictly",
    "meta_model",
    "modules_of",
    "mtp_names",
    "names_in_model",
    "of_other_towers",
    "open_config",
    "open_files",
    "open_for_scoring",
    "open_model",
    "open_tokenizer",
    "output_projection",
    "own_config",
    "pick_device",
    "plain_config",
    "planned_device",
    "prefix_of_blocks",
    "quiet",
    "read_some",
    "sampling_options",
    "scored_weights",
    "skeleton",
    "special_ids",
    "split_by_block",
    "text_config",
    "tokens_per_call",
    "vocabulary",
    "widths_of",
    "without_mtp",
]  # fmt: skip
