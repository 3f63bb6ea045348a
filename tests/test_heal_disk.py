"""A disk that is full: one line, nothing half-written is left, and the same command goes on once there is space."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from typer.testing import CliRunner

from shortlm.cli import app
from shortlm.errors import HealError, OutputError
from shortlm.heal import checkpoints, heal, merging, training
from shortlm.heal.writing import writing
from shortlm.recipe import HealSettings, ModelSettings, PhaseSettings

PHASE = {"data": ["embedded"], "separator": "\n\n", "length": 24, "batch": 4, "held_out": 4, "lr": 1e-3, "steps": 4,
         "eval_every": 2, "precision": "float32"}  # fmt: skip


def healed(model: Path, out: Path) -> None:
    settings = HealSettings(phases=[PhaseSettings(**PHASE, method=method) for method in ("cpt", "lora")])
    heal(ModelSettings(model=str(model), device="cpu"), settings, out)


TOLD = r"can't be written \(.+\); free some space, and the same command goes on after the last complete checkpoint$"


@pytest.fixture()
def small_disk(tmp_path):
    """A function that gives a file system so many KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("needs to mount a file system")
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)], capture_output=True)
    if done.returncode:
        pytest.skip("can't mount a file system here")

    def sized(kib: int) -> Path:
        subprocess.run(["mount", "-o", f"remount,size={kib}k", str(folder)], check=True)
        return folder

    yield sized
    subprocess.run(["umount", str(folder)], check=True)


def test_a_healing_on_a_small_disk_goes_on_when_it_grows(llama_folder, tmp_path, small_disk):
    healed(llama_folder, tmp_path / "plain")
    told, kib, out = [], 4, small_disk(4) / "out"
    while not out.exists():
        try:
            healed(llama_folder, out)
        except OutputError as error:
            assert re.search(TOLD, str(error)) and "\n" not in str(error)
            told.append(str(error).partition(": ")[0].removeprefix(f"{out.parent}/out.healing/"))
            checkpoints_here = (out.parent / "out.healing").glob("phase-*/checkpoint-*")
            assert not out.exists() and all((path / "complete.json").is_file() for path in checkpoints_here)
            kib += 350
            small_disk(kib)
    assert len(set(told)) > 2, told
    one, two = (load_file(folder / "model.safetensors") for folder in (tmp_path / "plain", out))
    assert all(torch.equal(one[name], two[name]) for name in one)


FULL = [
    OSError(errno.ENOSPC, "No space left on device", "x"),
    SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 512\nframe #0: c10::Throw"),
    RuntimeError("PytorchStreamWriter failed writing file data/3: file write failed"),
]
PLACES = {
    "model": (training.HealTrainer, "save_model", "checkpoint-2"),
    "optimizer": (training.HealTrainer, "_save_optimizer_and_scheduler", "checkpoint-2"),
    "mark": (checkpoints, "write_text", "checkpoint-2"),
    "merged": (merging, "carry_files", "model"),
}


@pytest.mark.parametrize("error", FULL, ids=lambda e: type(e).__name__)
@pytest.mark.parametrize("place", list(PLACES))
def test_whoever_tells_it_the_command_line_tells_it_in_one_line(llama_folder, tmp_path, monkeypatch, place, error):
    where, name, what = PLACES[place]

    def full(*args, **kwargs):
        raise error

    command = ["heal", str(llama_folder), "--out", str(tmp_path / "out"), "--device", "cpu", "--method", "cpt"]
    for option in ("data", "separator", "length", "batch", "held_out", "steps", "eval_every"):
        value = PHASE[option][0] if option == "data" else PHASE[option]
        command += [f"--{option.replace('_', '-')}", str(value)]
    with monkeypatch.context() as patch:
        patch.setattr(where, name, full)
        done = CliRunner().invoke(app, command)
    assert done.exit_code == 2 and not (tmp_path / "out").exists()
    lines = [line for line in done.output.splitlines() if line.startswith("shortlm: ")]
    assert len(lines) == 1 and "Traceback" not in done.output
    path = lines[0].removeprefix("shortlm: ").partition(": ")[0]
    assert path.endswith(what) and lines[0].endswith("the same command goes on after the last complete checkpoint")
    assert place == "merged" or not Path(path).exists()
    assert CliRunner().invoke(app, command).exit_code == 0


def test_other_errors_stay_what_they_are(tmp_path):
    for error in (RuntimeError("mat1 and mat2"), OSError(errno.ENOENT, "gone"), HealError("No space left of ours"),
                  ValueError("x")):  # fmt: skip
        with pytest.raises(type(error)) as found, writing(tmp_path):
            raise error
        assert found.value is error
