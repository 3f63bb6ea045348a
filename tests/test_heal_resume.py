"""Killed at any moment, the same command goes on to the same result."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from architectures import save_tiny

from shortlm.artifacts import Healing
from shortlm.embedded import model_path
from shortlm.errors import OutputError
from shortlm.heal import chain, checkpoints, heal, merging, training, workspace
from shortlm.recipe import HealSettings, ModelSettings, PhaseSettings

PHASE = {
    "separator": "\n\n", "length": 40, "batch": 4, "held_out": 6, "steps": 7, "lr": 5e-3, "eval_every": 2,
    "micro_tokens": 80, "precision": "float32", "dropout": 0.1,
}  # fmt: skip


class Killed(BaseException):
    """Nothing catches it."""


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> list[str]:
    """A text and records, mixed."""
    path = tmp_path_factory.mktemp("data") / "r.json"
    path.write_text(json.dumps([{"prompt": f"Who has {i}? ", "completion": "Rosa. " * (i % 4 + 1)} for i in range(30)]))
    return ["embedded", f"{path}:weight=0.5"]


def settings(data, *methods) -> HealSettings:
    phases = [PhaseSettings(**(PHASE | {"data": data, "method": method, "held_out": 5})) for method in methods]
    return HealSettings(phases=phases, log_every=1)


def result(out: Path) -> tuple[list, list, dict[str, torch.Tensor]]:
    from safetensors.torch import load_file

    done = Healing.load(out / "healing.json")
    logs = [[e.loss for e in p.log] for p in done.phases]
    nats = [[list(v.nats_per_token.values()) for v in p.validations] for p in done.phases]
    return logs, nats, load_file(out / "model.safetensors")


def same(one: Path, two: Path) -> None:
    (logs, nats, weights), (logs2, nats2, weights2) = result(one), result(two)
    assert logs == [pytest.approx(log, rel=1e-5) for log in logs2]
    assert nats == [[pytest.approx(v, rel=1e-5) for v in phase] for phase in nats2]
    for name, weight in weights.items():
        torch.testing.assert_close(weights2[name], weight, atol=1e-6, rtol=1e-5)


@pytest.fixture(scope="module")
def uninterrupted(llama_folder, data, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "out"
    heal(ModelSettings(model=str(llama_folder), device="cpu"), settings(data, "lora", "cpt"), out)
    return out


def interrupt(monkeypatch, where: object, name: str, on: int) -> None:
    """The `on`-th call of that function never happens."""
    plain, count = getattr(where, name), iter(range(1, 100))

    def killed(*args, **kwargs):
        if next(count) == on:
            raise Killed
        return plain(*args, **kwargs)

    monkeypatch.setattr(where, name, killed)


@pytest.mark.parametrize(
    ("where", "name", "on"),
    [
        (training.HealTrainer, "training_step", 1),  # before there is anything
        (training.HealTrainer, "training_step", 5),
        (training.HealTrainer, "training_step", 17),  # in the second phase
        (training.HealTrainer, "evaluate", 3),
        (training.HealTrainer, "_save_rng_state", 2),  # in the middle of a checkpoint
        (checkpoints, "_flush", 3),
        (checkpoints, "write_text", 2),  # before its mark
        (training, "forget", 2),  # before older ones go
        (chain, "write_merged", 1),
        (merging, "carry_files", 2),
        (workspace, "write_text", 2),  # of the first phase's record
        (chain, "loss_chart", 1),
        (chain.Workspace, "remove", 1),  # when all is in place
    ],
    ids=lambda v: str(getattr(v, "__name__", v)),
)
def test_goes_on_after_a_stop_at(monkeypatch, llama_folder, data, uninterrupted, tmp_path, where, name, on):
    model, out = ModelSettings(model=str(llama_folder), device="cpu"), tmp_path / "out"
    with monkeypatch.context() as patch:
        interrupt(patch, where, name, on)
        with pytest.raises(Killed):
            heal(model, settings(data, "lora", "cpt"), out)
    heal(model, settings(data, "lora", "cpt"), out)
    same(uninterrupted, out)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out"]


@pytest.mark.parametrize("name", ["mixtral", "qwen3_moe"])
def test_experts_go_on_too(monkeypatch, name, tmp_path):
    """Their files name tensors otherwise than the modules do."""
    base = save_tiny(name, tmp_path / "base", vocab_size=1024)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(model_path() / file, base / file)
    model = ModelSettings(model=str(base), device="cpu")
    heal(model, settings(["embedded"], "cpt"), tmp_path / "whole")
    with monkeypatch.context() as patch:
        interrupt(patch, training.HealTrainer, "training_step", 11)
        with pytest.raises(Killed):
            heal(model, settings(["embedded"], "cpt"), tmp_path / "out")
    heal(model, settings(["embedded"], "cpt"), tmp_path / "out")
    same(tmp_path / "whole", tmp_path / "out")


def test_code_in_a_checkpoint_runs_only_if_the_user_said_so(monkeypatch, llama_copy, tmp_path):
    """A config that names code of its own, of a model that transformers knows without it."""
    config = json.loads((llama_copy / "config.json").read_bytes())
    config["auto_map"] = {"AutoModelForCausalLM": "modeling_own.Own"}
    (llama_copy / "config.json").write_text(json.dumps(config), encoding="utf-8")
    ran = tmp_path / "ran"
    code = f"from transformers import LlamaForCausalLM\nopen({str(ran)!r}, 'w')\nclass Own(LlamaForCausalLM): pass\n"
    model, out = ModelSettings(model=str(llama_copy), device="cpu"), tmp_path / "out"
    with monkeypatch.context() as patch:
        interrupt(patch, training.HealTrainer, "training_step", 11)
        with pytest.raises(Killed):
            heal(model, settings(["embedded"], "cpt"), out)
    for folder in (tmp_path / "out.healing").glob("phase-1/checkpoint-*"):
        (folder / "modeling_own.py").write_text(code, encoding="utf-8")
    heal(model, settings(["embedded"], "cpt"), out)
    assert not ran.exists()


def test_a_later_phase_can_be_changed_without_losing_the_first(monkeypatch, llama_folder, data, tmp_path):
    model, out, said = ModelSettings(model=str(llama_folder), device="cpu"), tmp_path / "out", []
    with monkeypatch.context() as patch:
        interrupt(patch, training.HealTrainer, "training_step", 16)  # the second phase has no checkpoint yet
        with pytest.raises(Killed):
            heal(model, settings(data, "lora", "cpt"), out)
    first = (tmp_path / "out.healing" / "phase-1" / "done.json").read_bytes()
    heal(model, settings(data, "lora", "last-layers"), out, say=said.append)
    done = Healing.load(out / "healing.json").phases
    assert [p.method for p in done] == ["lora", "last-layers"]
    assert done[0].model_dump(mode="json") == json.loads(first)


def test_another_healing_s_work_stays(monkeypatch, llama_folder, data, tmp_path):
    model, out = ModelSettings(model=str(llama_folder), device="cpu"), tmp_path / "out"
    heal(model, settings(data, "lora"), out)
    with monkeypatch.context() as patch:
        interrupt(patch, training.HealTrainer, "training_step", 9)
        with pytest.raises(Killed):
            heal(model, settings(data, "cpt"), out, force=True)
    heal(model, settings(data, "lora"), out)  # is kept as it is
    assert list((tmp_path / "out.healing").glob("phase-1/checkpoint-*"))


def test_an_unfinished_healing_is_not_lost(monkeypatch, llama_folder, data, tmp_path):
    model, out = ModelSettings(model=str(llama_folder), device="cpu"), tmp_path / "out"
    with monkeypatch.context() as patch:
        interrupt(patch, training.HealTrainer, "training_step", 9)
        with pytest.raises(Killed):
            heal(model, settings(data, "lora"), out)
    with pytest.raises(OutputError, match="holds an unfinished healing with other settings or inputs"):
        heal(model, settings(data, "cpt"), out)
    heal(model, settings(data, "cpt"), out, force=True)
    assert Healing.load(out / "healing.json").phases[0].method == "cpt"


def test_kill_9(llama_folder, data, uninterrupted, tmp_path):
    recipe, out = tmp_path / "recipe.yaml", tmp_path / "out"
    recipe.write_text(json.dumps(settings(data, "lora", "cpt").model_dump(mode="json")), encoding="utf-8")
    command = [sys.executable, "-m", "shortlm", "heal", str(llama_folder), "--recipe", str(recipe), "--out", str(out)]
    source = str(Path(__file__).parents[1] / "src")
    environment = os.environ | {"PYTHONPATH": source, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    for lines in (6, 19):  # of the log; the second phase has begun
        process = subprocess.Popen([*command, "--device", "cpu"], env=environment, stderr=subprocess.PIPE, text=True)
        log = tmp_path / "out.healing" / "log.jsonl"
        until = time.monotonic() + 100
        while process.poll() is None and time.monotonic() < until:
            if log.is_file() and len(log.read_text().splitlines()) >= lines:
                break
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, process.stderr.read()
        process.stderr.close()
        assert not out.exists()
    done = subprocess.run([*command, "--device", "cpu"], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "goes on after step" in done.stderr and "phase 2: cpt" in done.stdout
    same(uninterrupted, out)
