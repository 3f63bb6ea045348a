"""`push`: a checkpoint to a hub that stands on the loopback interface."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from writable_hub import TOKEN, writable_hub

from shortlm.errors import ExportError
from shortlm.export import push


def shortlm(address: str, home: Path, token: str, *args: object) -> subprocess.CompletedProcess:
    env = {name: value for name, value in os.environ.items() if name not in ("HF_TOKEN", "HF_HUB_OFFLINE")}
    env |= {"HF_ENDPOINT": address, "HF_HOME": str(home), "NO_PROXY": "127.0.0.1"} | (
        {"HF_TOKEN": token} if token else {}
    )
    env["PYTHONPATH"] = str(Path(__file__).parents[1] / "src")
    command = [sys.executable, "-m", "shortlm", "push", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, env=env, timeout=120)


@pytest.fixture
def folder(llama_copy) -> Path:
    (llama_copy / "README.md").write_text("# A card\n")
    (llama_copy / ".secret").write_text("not to be seen")
    return llama_copy


def test_a_checkpoint_goes_to_a_private_repository_whole(folder, tmp_path):
    with writable_hub() as (address, kept):
        done = shortlm(address, tmp_path / "home", TOKEN, folder, "acme/shorter")
        assert done.returncode == 0, done.stderr
    assert kept.repositories["acme/shorter"]["visibility"] == "private" and kept.messages == ["Upload by shortlm"]
    assert kept.files == {p.name: p.read_bytes() for p in folder.iterdir() if not p.name.startswith(".")}
    assert f"went to {address}/acme/shorter (private if it is new)" in done.stdout.replace("\n", " ")


def test_public_only_if_asked(folder, tmp_path):
    with writable_hub() as (address, kept):
        done = shortlm(address, tmp_path / "home", TOKEN, folder, "acme/open", "--public", "--message", "First")
        assert done.returncode == 0, done.stderr
    assert kept.repositories["acme/open"]["visibility"] == "public" and kept.messages == ["First"]


def test_a_dry_run_asks_nobody(folder, tmp_path):
    with writable_hub() as (address, kept):
        done = shortlm(address, tmp_path / "home", "", folder, "acme/shorter", "--dry-run")
        assert done.returncode == 0 and not kept.repositories and not kept.files
    assert "model.safetensors" in done.stdout and "would go to acme/shorter" in done.stdout.replace("\n", " ")
    assert ".secret" not in done.stdout


@pytest.mark.parametrize("token", ["", "hf_wrong"])
def test_without_a_token_one_line_says_how_to_log_in(folder, tmp_path, token):
    with writable_hub() as (address, kept):
        done = shortlm(address, tmp_path / "home", token, folder, "acme/shorter")
    assert done.returncode == 2 and not kept.repositories
    assert done.stderr.startswith("shortlm: acme/shorter: can't be written on the hub (")
    assert done.stderr.strip().endswith("; log in with: hf auth login") and len(done.stderr.strip().splitlines()) == 1


def test_without_a_network_one_line_too(folder, tmp_path):
    done = shortlm("http://127.0.0.1:9", tmp_path / "home", TOKEN, folder, "acme/shorter")
    assert done.returncode == 2 and done.stderr.startswith("shortlm: acme/shorter: can't be written on the hub (")


def test_what_can_be_no_repository_or_no_checkpoint_is_refused(folder, tmp_path):
    with pytest.raises(ExportError, match="'shorter': a repository's name looks like owner/name"):
        push(folder, "shorter")
    (folder / "README.md").unlink()
    with pytest.raises(ExportError, match=r"has no model card \(README.md\), and what was cut should be told"):
        push(folder, "acme/shorter")
    with pytest.raises(ExportError, match="is no folder; give the folder of a checkpoint"):
        push(tmp_path / "nowhere", "acme/shorter")
