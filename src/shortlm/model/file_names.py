"""What the tensors of a checkpoint's files are called in the model: transformers renames some while it loads."""

from __future__ import annotations

import re
from typing import Any

from shortlm.checkpoint import Checkpoint, block_prefix
from shortlm.errors import ModelError
from shortlm.model.anatomy import find_anatomy


def names_in_model(model: Any, checkpoint: Checkpoint) -> dict[str, str]:
    """Name in the files -> name of the parameter that it becomes, or a part of (Mixtral's single experts)."""
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

    known = model.state_dict()
    mapping = get_model_conversion_mapping(model)
    renamings = [step for step in mapping if isinstance(step, WeightRenaming)]
    converters = [step for step in mapping if isinstance(step, WeightConverter)]
    return {
        name: rename_source_key(name, renamings, converters, model.base_model_prefix, known)[0]
        for name in checkpoint.tensors
    }


def prefix_of_blocks(model: Any, checkpoint: Checkpoint) -> str:
    """How the names of the blocks' tensors begin in the files, up to the index: model.layers.

    That is the module path of the blocks, with or without the base model's name before it, or what transformers makes
    that path of (language_model.model.layers, where the model says model.language_model.layers). Raises ModelError if
    the files don't hold all blocks.
    """
    anatomy = find_anatomy(model)
    path, last = anatomy.blocks_path, len(anatomy.blocks) - 1
    try:
        return block_prefix(checkpoint, path, last + 1)
    except ModelError:
        for file, name in names_in_model(model, checkpoint).items():
            if name.startswith(f"{path}.{last}."):
                for found in _prefixes(file, last):
                    if all(any(n.startswith(f"{found}{i}.") for n in checkpoint.tensors) for i in range(last)):
                        return found
        raise


def _prefixes(file: str, index: int) -> list[str]:
    """What stands before this index, wherever it occurs in a name."""
    return [file[: match.start() + 1] for match in re.finditer(rf"\.{index}(?=\.)", file)]
