"""Models by hub id, against a stand-in on the loopback interface; data sets streamed row by row."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import count
from pathlib import Path

import pytest
from hub_stand_in import COMMIT, hub

from shortlm.artifacts import BlockScores
from shortlm.embedded import model_path
from shortlm.errors import TextError
from shortlm.model import open_tokenizer
from shortlm.recipe import TextSettings
from shortlm.text import open_windows


def shortlm(address: str, home: Path, *args: object) -> subprocess.CompletedProcess:
    env = os.environ | {"HF_ENDPOINT": address, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0", "NO_PROXY": "127.0.0.1"}
    env["PYTHONPATH"] = str(Path(__file__).parents[1] / "src")
    command = [sys.executable, "-m", "shortlm", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, env=env, timeout=120)


def test_a_model_by_its_hub_id(llama_copy, tmp_path):
    (llama_copy / "pytorch_model.bin").write_bytes(b"pickled twin of the weights")
    with hub("acme/tiny", llama_copy) as (address, served):
        scores = tmp_path / "scores.json"
        result = shortlm(address, tmp_path / "home", "score", "-m", "acme/tiny", "-c", "magnitude", "-o", scores)
        assert result.returncode == 0, result.stderr
        assert BlockScores.load(scores).model.revision == COMMIT
        assert "config.json" in served and "pytorch_model.bin" not in served
        missing = shortlm(address, tmp_path / "home", "score", "-m", "acme/other", "-c", "magnitude")
    assert missing.returncode == 2
    assert missing.stderr.startswith("shortlm: acme/other: is no folder here and can't be fetched from the hub (")
    assert len(missing.stderr.strip().splitlines()) == 1


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
