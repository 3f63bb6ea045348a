"""From a phase's checkpoint to a plain one in the base's type; adapters are merged.

The merge starts from the base's own files in float32 and rounds once, so that a 4-bit or bfloat16 base
that was trained on leaves no trace in the result.
"""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import torch

from shortlm.artifacts import manifest_of
from shortlm.checkpoint import Checkpoint, Copy, add_shard, carry_files, open_checkpoint
from shortlm.errors import ModelError
from shortlm.heal.adapters import with_adapter
from shortlm.heal.processes import load_whole
from shortlm.heal.remains import readable
from shortlm.heal.writing import writing
from shortlm.heap import give_back
from shortlm.model import ModelFiles, compute_type, load_strictly, mtp_names, quiet
from shortlm.outputs import whole_folder


def write_merged(files: ModelFiles, checkpoint: Path, out: Path) -> float | None:
    """The base of `files` with what was trained, as a plain checkpoint folder.

    Returns the largest difference of logits between the adapter model and the written one, in the base's type; None
    without adapters. Raises ModelError if it is more than rounding.
    """
    on_cpu = files.settings.model_copy(update={"dtype": "float32", "device": "cpu"})
    load_whole()
    own = files.settings.model_copy(update={"dtype": "auto"})
    base, dtype = files.checkpoint.folder, compute_type(own, files.config, files.checkpoint)
    hint = f"delete {checkpoint} to take the best of the others"
    if not (checkpoint / "adapter_config.json").is_file():
        with readable(checkpoint, hint):
            trained = load_strictly(checkpoint, files.config, on_cpu)
        _save(trained.to(dtype), base, out)
        return None
    plain = load_strictly(base, files.config, on_cpu)
    with readable(checkpoint, hint):
        adapted = with_adapter(plain, checkpoint)
    expected = probe(adapted)
    merged = adapted.merge_and_unload(safe_merge=True)
    exact = float((probe(merged) - expected).abs().max())
    allowed = 1e-4 * max(1.0, float(expected.abs().max()))
    if not exact <= allowed:
        raise ModelError(f"{checkpoint}: the merged model's logits differ by {exact:.2g} (allowed {allowed:.2g})")
    _save(merged.to(dtype), base, out)
    del adapted, merged
    written = load_strictly(out, files.config, files.settings.model_copy(update={"dtype": "auto", "device": "cpu"}))
    return float((probe(written) - expected).abs().max())


def make_room() -> None:
    """Give back what training held: trainer and model hold one another, and the C library's heap keeps pages."""
    gc.collect()
    give_back()


def probe(model: Any) -> torch.Tensor:
    """Logits on a few tokens, float32: B x T x V."""
    vocabulary = model.get_input_embeddings().weight.shape[0]
    ids_BT = (torch.arange(64).reshape(2, 32) * 7919) % vocabulary
    with torch.no_grad():
        return model(input_ids=ids_BT, use_cache=False).logits.float()


def _save(model: Any, base: Path, out: Path) -> None:
    with writing(out), whole_folder(out, force=True) as part, quiet():
        carry_files(base, part)
        model.save_pretrained(part)
        _carry_mtp(model.config, open_checkpoint(str(base)), open_checkpoint(str(part)))
        if manifest := manifest_of(base):  # what was cut stays known
            manifest.save(part / "manifest.json")


def _carry_mtp(config: Any, base: Checkpoint, written: Checkpoint) -> None:
    """Heads for multi-token prediction, which transformers neither loads nor saves, stay as they were."""
    pieces: list[Any] = [Copy(name, base.tensors[name]) for name in mtp_names(config, base.tensors)]
    if pieces:
        add_shard(pieces, written, "model-mtp.safetensors")
