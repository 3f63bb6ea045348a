"""Open a checkpoint, find its parts, rewrite its config."""

from shortlm.model.anatomy import Anatomy, block_count, find_anatomy, scored_weights
from shortlm.model.cache_size import cache_sizes
from shortlm.model.config import cut_config
from shortlm.model.devices import fits, free_memory, pick_device, planned_device, tokens_per_call
from shortlm.model.file_names import names_in_model
from shortlm.model.guard import guard, meta_model
from shortlm.model.left_out import modules_of
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
from shortlm.model.own_type import left_out_of, own_config, plain_config, widths_of
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
    "block_count",
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
    "left_out_of",
    "linear_widths",
    "load_strictly",
    "meta_model",
    "modules_of",
    "names_in_model",
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
    "quiet",
    "read_some",
    "sampling_options",
    "scored_weights",
    "skeleton",
    "split_by_block",
    "tokens_per_call",
    "widths_of",
]  # fmt: skip
