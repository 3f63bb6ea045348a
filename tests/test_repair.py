"""Repair without training, held to plain least squares and to the written files."""

from __future__ import annotations

import json
import random

import pytest
import torch

from shortlm import CutSettings, ModelSettings, RepairSettings, TextSettings, cut, repair
from shortlm.errors import ModelError, PlanError, RepairError
from shortlm.model import open_model


@pytest.fixture(scope="module")
def models(llama_folder, tmp_path_factory):
    """A dense Llama, the same without blocks 2 and 3, and random token ids."""
    folder, drawn = tmp_path_factory.mktemp("repair"), random.Random(0)
    dense = ModelSettings(model=str(llama_folder))
    cut(dense, [2, 3], CutSettings(verify=False), folder / "cut")
    (folder / "ids.json").write_text(json.dumps([[drawn.randrange(1024) for _ in range(24)] for _ in range(40)]))
    return dense, ModelSettings(model=str(folder / "cut")), TextSettings(ids=str(folder / "ids.json")), folder


def settings(method, **more):
    return RepairSettings(**{"method": method, "calibration": 30, "validation": 10} | more)


def states(model, ids_BT):
    """Input of block 1's down_proj, and the states behind every block."""
    seen = {}
    hook = model.model.layers[1].mlp.down_proj.register_forward_hook(lambda m, args, out: seen.update(z=args[0]))
    outputs = []
    hooks = [b.register_forward_hook(lambda m, args, out: outputs.append(out)) for b in model.model.layers]
    with torch.no_grad():
        model(ids_BT)
    for handle in (hook, *hooks):
        handle.remove()
    return seen["z"], outputs


@pytest.mark.parametrize("method", ["refit:attention=false,everywhere=false", "linear"])
def test_the_weight_before_a_gap_is_that_of_plain_least_squares(models, method, tmp_path):
    dense, short, text, folder = models
    manifest = repair(short, dense, text, settings(method, ridges=[0.01]), tmp_path / "out", always=True)
    assert manifest.repair and manifest.repair.folds[0].ridge == 0.01
    ids_BT = torch.tensor(json.loads((folder / "ids.json").read_text()))[:30]
    z_BTF, out = states(open_model(short).model, ids_BT)
    wanted_BTD = states(open_model(dense).model, ids_BT)[1][3]
    z, lacking = (x[:, 1:].flatten(0, 1).double() for x in (z_BTF, wanted_BTD - out[1]))
    weight_FD = open_model(short).model.model.layers[1].mlp.down_proj.weight.T.double()
    inputs = z if method != "linear" else z @ weight_FD
    gram = inputs.T @ inputs
    gram += 0.01 * gram.diagonal().mean() * torch.eye(len(gram))
    change = torch.linalg.solve(gram, inputs.T @ lacking)
    expected = weight_FD + (change if method != "linear" else weight_FD @ change)
    if manifest.repair.delivered:
        found = open_model(ModelSettings(model=str(tmp_path / "out"))).model.model.layers[1].mlp.down_proj.weight.T
        assert torch.allclose(found.double(), expected, atol=1e-5)


def test_all_blocks_behind_the_gap_come_nearer_to_the_dense_states(models, tmp_path):
    dense, short, text, _ = models
    step = repair(short, dense, text, settings("auto"), tmp_path / "out", always=True).repair
    assert step and [(fold.block, fold.part) for fold in step.folds] == [
        (j, part) for j in (1, 2, 3) for part in ("attention", "ffn")
    ]
    assert all(fold.error_after <= fold.error_before for fold in step.folds)
    assert step.depths[-1].repaired < step.depths[-1].cut
    assert step.blocks == [0, 1, 4, 5]


def test_a_huge_ridge_is_the_cut_model(models, tmp_path):
    dense, short, text, _ = models
    repair(short, dense, text, settings("refit", ridges=[1e12]), tmp_path / "out", always=True)
    before, after = (dict(open_model(m).model.named_parameters()) for m in (
        short, ModelSettings(model=str(tmp_path / "out"))))  # fmt: skip
    assert all(torch.allclose(before[name], after[name], atol=1e-6) for name in before)


def test_blocks_from_disk_give_the_same(models, tmp_path):
    dense, short, text, _ = models
    streamed = short.model_copy(update={"stream": "on"})
    one = repair(short, dense, text, settings("auto"), tmp_path / "one", always=True).repair
    two = repair(streamed, dense, text, settings("auto"), tmp_path / "two", always=True).repair
    assert one and two and one.loss.repaired == pytest.approx(two.loss.repaired, abs=1e-5)


def test_what_makes_the_loss_worse_is_not_written(models, tmp_path):
    """A random model has nothing to win; whichever way it goes, files and figures agree."""
    dense, short, text, _ = models
    try:
        step = repair(short, dense, text, settings("auto"), tmp_path / "out").repair
        assert step and step.loss.repaired <= step.loss.cut
    except RepairError as error:
        assert "nothing was written" in str(error) and not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".out.repair-*"))


def test_what_does_not_belong_together_is_refused(models, tmp_path, monkeypatch):
    dense, short, text, _ = models
    with pytest.raises(ModelError, match="--against must be the model that was cut"):
        repair(short, ModelSettings(model="embedded"), text, settings("auto"), tmp_path / "out")
    with pytest.raises(PlanError, match=r"--blocks: 0,1,2,9 can't be the 4 blocks"):
        repair(short, dense, text, settings("auto"), tmp_path / "out", blocks=[0, 1, 2, 9])
    with pytest.raises(PlanError, match="nothing is missing"):
        repair(dense, dense, text, settings("auto"), tmp_path / "out")
    with pytest.raises(RepairError, match="did you mean 'refit'"):
        repair(short, dense, text, settings("refitt"), tmp_path / "out")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RepairError, match="without torchrun"):
        repair(short, dense, text, settings("auto"), tmp_path / "out")
