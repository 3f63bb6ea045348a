"""A checkpoint from the hub: its config and small files first, then the shards that it is made of, and no others.

Repositories hold more than that: pickled twins, the maker's own format (consolidated.safetensors), other precisions.
"""

from __future__ import annotations

import glob
from collections.abc import Callable
from pathlib import Path

from shortlm.errors import ModelError, library_errors, shortened

SMALL = ["*.json", "*.txt", "*.model", "*.jinja", "*.py", "*.tiktoken", "LICENSE*", "NOTICE*"]


def fetched(name: str, revision: str | None, shards_of: Callable[[Path], list[str]] | None) -> tuple[Path, str]:
    """The local folder of a hub model and its commit. Raises ModelError if it can't be had.

    `shards_of` names the weight files that a folder with the small files needs; None: no weights are fetched.
    """
    folder = _snapshot(name, revision, SMALL)
    if shards_of and (shards := [s for s in shards_of(folder) if not (folder / s).is_file()]):
        folder = _snapshot(name, folder.name, [*SMALL, *map(glob.escape, shards)])
    return folder, folder.name


def _snapshot(name: str, revision: str | None, patterns: list[str]) -> Path:
    from huggingface_hub import snapshot_download

    what = f"{shortened(name, 200)}: is no folder here and can't be fetched from the hub"
    way_out = "check the name and the network, or give the folder of a downloaded copy"
    with library_errors(ModelError, what, way_out):
        return Path(snapshot_download(name, revision=revision, allow_patterns=patterns))
