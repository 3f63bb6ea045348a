"""What goes along with the weights: tokenizer, generation config, licence, remote code."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

WEIGHTS = re.compile(r".*\.(safetensors|bin|pt|pth|h5|msgpack|ot|onnx|gguf)(\.index\.json)?$")
NOT_CARRIED = {"SHA256SUMS", "config.json", "manifest.json", "README.md", "training.json"}
NOT_CARRIED |= {"log.jsonl", "loss.svg"}  # healing.json is the history of the weights


def carry_files(source: Path, folder: Path) -> None:
    """Copy what is neither weights nor rewritten from `source` to `folder`."""
    for path in sorted(source.iterdir()):
        hidden_or_weights = path.name.startswith(".") or WEIGHTS.match(path.name)
        if path.is_file() and path.name not in NOT_CARRIED and not hidden_or_weights and _inside(path, source):
            shutil.copyfile(path, folder / path.name)  # without its mode: sources may be read-only


def _inside(path: Path, source: Path) -> bool:
    """Whether a link stays in the checkpoint (or in the hub cache's own store of files beside it)."""
    homes = (source.resolve(), source.resolve().parent.parent / "blobs")
    return any(path.resolve().is_relative_to(home) for home in homes)
