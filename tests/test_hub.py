"""Models by hub id, against a stand-in on the loopback interface; data sets streamed row by row."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from itertools import count
from pathlib import Path

import pytest
from hub_stand_in import COMMIT, hub

from shortlm.artifacts import BlockScores
from shortlm.checkpoint import locate
from shortlm.embedded import model_path
from shortlm.errors import ModelError, TextError
from shortlm.model import open_tokenizer
from shortlm.recipe import TextSettings
from shortlm.text import open_windows


def shortlm(address: str, home: Path, *args: object) -> subprocess.CompletedProcess:
    """Without an address offline."""
    env = os.environ | {"HF_ENDPOINT": address or "http://127.0.0.1:9", "HF_HOME": str(home), "NO_PROXY": "127.0.0.1"}
    env["HF_HUB_OFFLINE"] = "0" if address else "1"
    env["PYTHONPATH"] = str(Path(__file__).parents[1] / "src")
    command = [sys.executable, "-m", "shortlm", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, env=env, timeout=120)


def test_a_model_by_its_hub_id(llama_copy, tmp_path):
    (llama_copy / "pytorch_model.bin").write_bytes(b"pickled twin of the weights")
    (llama_copy / "consolidated.safetensors").write_bytes(b"the weights in their maker's own format")
    with hub("acme/tiny", llama_copy) as (address, served):
        scores = tmp_path / "scores.json"
        result = shortlm(address, tmp_path / "home", "score", "-m", "acme/tiny", "-c", "magnitude", "-o", scores)
        assert result.returncode == 0, result.stderr
        assert BlockScores.load(scores).model.revision == COMMIT
        shards = sorted(p.name for p in llama_copy.glob("model-*.safetensors"))
        assert sorted(name for name in served if name.endswith(("safetensors", "bin"))) == shards and len(shards) > 1
        assert "config.json" in served
        missing = shortlm(address, tmp_path / "home", "score", "-m", "acme/other", "-c", "magnitude")
    assert missing.returncode == 2
    assert missing.stderr.startswith("shortlm: acme/other: is no folder here and can't be fetched from the hub (")
    assert len(missing.stderr.strip().splitlines()) == 1


def test_a_run_knows_the_commit_also_without_network_and_tells_if_it_moved(llama_folder, tmp_path):
    out, home, moved = tmp_path / "run", tmp_path / "home", "dec0de" * 6 + "dec0"
    options = (
        "--sequences 2 --length 16 -c magnitude --blocks 1 --protect ends --held-out 2 --new-tokens 0 --bench none"
    )
    command = ["run", "-m", "acme/tiny", "--text", "embedded", *options.split(), "-o", out]
    with hub("acme/tiny", llama_folder) as (address, _):
        first = shortlm(address, home, *command)
    assert first.returncode == 0 and "kept" not in first.stdout, first.stderr
    assert shortlm("", home, *command).stdout.count("kept") == 5
    with hub("acme/tiny", llama_folder, moved) as (address, _):
        told = shortlm(address, home, *command)
        assert f"scores.json: was made with acme/tiny at commit {COMMIT}, now {moved}; give --force to" in told.stderr


def test_of_a_model_in_one_file_that_file_alone_is_fetched(llama_folder, tmp_path, monkeypatch):
    """In this process, as the library reads its settings from the environment when it is imported."""
    from huggingface_hub import constants, snapshot_download

    source = tmp_path / "source"
    source.mkdir()
    (source / "config.json").write_bytes((llama_folder / "config.json").read_bytes())
    for name in ("model.safetensors", "model.fp16.safetensors"):
        (source / name).write_bytes(b"\0")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with hub("acme/one", source) as (address, served):
        near = functools.partial(snapshot_download, endpoint=address, cache_dir=tmp_path / "cache")
        monkeypatch.setattr("huggingface_hub.snapshot_download", near)
        folder, commit = locate("acme/one")
        assert commit == COMMIT and sorted(p.name for p in folder.iterdir()) == ["config.json", "model.safetensors"]
        assert sorted(served) == ["config.json", "model.safetensors"]
        assert locate("acme/one", weights=False)[0] == folder


def test_an_index_from_the_hub_is_not_trusted(tmp_path, monkeypatch):
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"w": "../../secret"}}))
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *args, **kwargs: str(tmp_path))
    with pytest.raises(ModelError, match="which is outside the folder; this index is not trusted"):
        locate("acme/evil")


class Rows:
    """An endless data set that counts the rows it was asked for."""

    def __init__(self, row):
        self.row, self.asked = row, 0

    def __iter__(self):
        for self.asked in count(1):
            yield self.row


def test_hub_data_sets_are_streamed(monkeypatch):
    import datasets

    rows, calls = Rows({"body": "Ada keeps a goose in the mill. " * 3}), []
    monkeypatch.setattr(datasets, "load_dataset", lambda *args, **kwargs: calls.append((args, kwargs)) or rows)
    settings = TextSettings(text="acme/stories", subset="small", split="train", field="body", sequences=10, length=32)
    windows = open_windows(settings, open_tokenizer(model_path()), 1024)
    assert windows.ids_BT.shape == (10, 33)
    assert calls == [(("acme/stories", "small"), {"split": "train", "streaming": True})]
    assert rows.asked <= 128
    with pytest.raises(TextError, match=r"acme/stories: has no text field 'text' \(fields: body\)"):
        open_windows(settings.model_copy(update={"field": "text"}), open_tokenizer(model_path()), 1024)
