"""Fixtures: a small world of checkpoints made in the process; nothing is downloaded."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"  # before huggingface_hub is imported
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ.pop("COLUMNS", None)  # output goes to no terminal, whatever the tests are run from

SHARED = Path(__file__).parents[2] / "shared"


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Tiny tensors: more threads only get in each other's way, and pytest-xdist already uses both cores."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real models, text and golden scores, where they are at hand."""
    if not SHARED.is_dir():
        pytest.skip("no ../shared folder beside the project")
    return SHARED


@pytest.fixture(scope="session")
def llama_folder(tmp_path_factory) -> Path:
    """A tiny random Llama of 6 blocks in several shards, with the embedded model's tokenizer."""
    from architectures import save_tiny

    from shortlm.embedded import model_path

    folder = tmp_path_factory.mktemp("llama") / "model"
    save_tiny("llama", folder, shard_size="60KB", vocab_size=1024, pad_token_id=None)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(model_path() / name, folder / name)
    return folder


@pytest.fixture()
def llama_copy(llama_folder, tmp_path) -> Path:
    """The same, to be damaged."""
    return Path(shutil.copytree(llama_folder, tmp_path / "copy"))
