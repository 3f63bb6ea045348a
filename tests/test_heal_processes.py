"""Two processes heal as one does: DDP by the trainer, FSDP2 by the same loss and steps in a loop of our own."""

from __future__ import annotations

import json

import pytest
import torch
from processes import ended, run, started
from safetensors.torch import load_file

from shortlm.artifacts import Healing
from shortlm.errors import HealError
from shortlm.heal.processes import join_processes

RECIPE = {
    "log_every": 1, "keep_adapter": True,
    "phases": [
        {"method": "cpt", "data": ["embedded"], "separator": "\n\n", "length": 24, "batch": 8, "held_out": 7,
         "steps": 4, "lr": 1e-3, "eval_every": 2, "precision": "float32", "micro_tokens": 48},
        {"method": "lora", "data": [{"data": "RECORDS", "weight": 2.0}, {"data": "embedded"}], "length": 40, "batch": 8,
         "held_out": 5, "steps": 3, "lr": 1e-3, "eval_every": 2, "precision": "float32", "micro_tokens": 100},
    ],
}  # fmt: skip

SHARDED = """
import sys
import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from safetensors.torch import save_file
from shortlm.heal.batches import Steps
from shortlm.heal.losses import Loss
from shortlm.heal.phases import prepare_work
from shortlm.heal.trainable import open_trained
from shortlm.model import find_anatomy, open_files
from shortlm.recipe import ModelSettings, PhaseSettings

folder, out, method, size = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
settings = PhaseSettings(method=method, data=["embedded"], length=24, batch=8, precision="float32", micro_tokens=48)
settings = settings.model_copy(update={"steps": 3})
torch.distributed.init_process_group("gloo")
files = open_files(ModelSettings(model=folder, device="cpu"))
model = open_trained(files, settings)
loss = Loss(model)
if size > 1:
    mesh = init_device_mesh("cpu", (size,))
    for block in find_anatomy(model).blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    assert isinstance(model, FSDPModule)
    assert all(isinstance(p, DTensor) for p in model.parameters())
work = prepare_work(files, settings, size)
steps = iter(Steps(work.rows, 8, work.micro_batches, work.pad, torch.distributed.get_rank(), size))
trained = [p for p in model.parameters() if p.requires_grad]
optimizer = torch.optim.AdamW(trained, lr=1e-3)
for _ in range(3):
    for _ in range(work.micro_batches // size):
        batch = next(steps)
        (loss(model, batch) / batch["step_targets"] * size).backward()
    optimizer.step()
    optimizer.zero_grad()
state = {n: p.full_tensor() if isinstance(p, DTensor) else p for n, p in model.named_parameters() if p.requires_grad}
if torch.distributed.get_rank() == 0:
    save_file({n: t.detach().contiguous() for n, t in state.items()}, out)
torch.distributed.destroy_process_group()
"""


def same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> None:
    assert one.keys() == two.keys()
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight, atol=2e-6, rtol=1e-4)


def test_two_processes_heal_as_one(llama_folder, tmp_path):
    records = [{"prompt": f"Who has {i}? ", "completion": "Rosa. " * (i % 4 + 1)} for i in range(30)]
    (tmp_path / "r.json").write_text(json.dumps(records), encoding="utf-8")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(json.dumps(RECIPE).replace("RECORDS", str(tmp_path / "r.json")), encoding="utf-8")
    done = []
    for size in (1, 2):
        out = tmp_path / f"out-{size}"
        command = run("heal", llama_folder, "--recipe", recipe, "--out", out, "--device", "cpu")
        ends = ended(started(command, size))
        assert [code for code, _, _ in ends] == [0] * size, ends[0][2]
        assert "phase 2: lora" in ends[0][1] and all(text == "" for _, text, _ in ends[1:])
        done.append(Healing.load(out / "healing.json"))
    one, two = done
    assert [p.processes for p in one.phases + two.phases] == [1, 1, 2, 2]
    for alone, shared in zip(one.phases, two.phases, strict=True):
        assert [e.loss for e in shared.log] == pytest.approx([e.loss for e in alone.log], rel=1e-5)
        assert [e.targets for e in shared.log] == [e.targets for e in alone.log]
        for a, b in zip(alone.validations, shared.validations, strict=True):
            assert b.nats_per_token == pytest.approx(a.nats_per_token, rel=1e-5)
    same(load_file(tmp_path / "out-1" / "model.safetensors"), load_file(tmp_path / "out-2" / "model.safetensors"))


@pytest.mark.parametrize("method", ["cpt", "lora"])
def test_a_sharded_model_learns_as_a_whole_one(llama_folder, tmp_path, method):
    for size in (1, 2):
        code = (
            f"import sys; sys.argv = ['x', {str(llama_folder)!r}, {str(tmp_path / str(size))!r}, {method!r}, '{size}']"
        )
        ends = ended(started(code + "\n" + SHARDED, size))
        assert [code for code, _, _ in ends] == [0] * size, ends[0][2]
    same(load_file(tmp_path / "1"), load_file(tmp_path / "2"))


def test_fsdp_on_a_cpu_is_refused(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(HealError, match="FSDP needs accelerators and the device is cpu"):
        join_processes(torch.device("cpu"))
