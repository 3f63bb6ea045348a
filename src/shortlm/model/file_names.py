"""What the tensors of a checkpoint's files are called in the model: transformers renames some while it loads."""

from __future__ import annotations

from typing import Any

from shortlm.checkpoint import Checkpoint


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
