"""Repair without training, held to plain least squares and to the written files."""

from __future__ import annotations

import json
from shutil import copytree

import pytest
import torch
from architectures import save_tiny
from processes import ended, run, started
from safetensors.torch import load_file

from shortlm import CutSettings, ModelSettings, RepairSettings, TextSettings, cut, repair
from shortlm.errors import ModelError, PlanError, RepairError, TextError
from shortlm.model import open_model
from shortlm.repair.fitting import Fitting
from shortlm.repair.normal_equations import NormalEquations
from shortlm.sweep import auto_batch_size


@pytest.fixture(scope="module")
def models(llama_folder, tmp_path_factory):
    """A dense Llama that is sure of what it says, the same without blocks 2 and 3, and token ids as it says them."""
    folder = tmp_path_factory.mktemp("repair")
    model = open_model(ModelSettings(model=str(llama_folder))).model
    model.lm_head.weight.data *= 20
    model.save_pretrained(folder / "dense")
    torch.manual_seed(0)
    start_B1 = torch.arange(100, 340)[:, None]
    ids_BT = model.generate(
        start_B1,
        attention_mask=torch.ones_like(start_B1),
        do_sample=True,
        min_new_tokens=23,
        max_new_tokens=23,
        top_k=0,
    )
    dense = ModelSettings(model=str(folder / "dense"))
    cut(dense, [2, 3], CutSettings(verify=False), folder / "cut")
    (folder / "ids.json").write_text(json.dumps(ids_BT.tolist()))
    return dense, ModelSettings(model=str(folder / "cut")), TextSettings(ids=str(folder / "ids.json")), folder


def settings(method, **more):
    return RepairSettings(**{"method": method, "calibration": 200, "validation": 40} | more)


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
    manifest = repair(short, dense, text, settings(method, ridges=[0.3]), tmp_path / "out", always=True)
    assert manifest.repair and manifest.repair.folds[0].ridge == 0.3
    ids_BT = torch.tensor(json.loads((folder / "ids.json").read_text()))[:200]
    z_BTF, out = states(open_model(short).model, ids_BT)
    wanted_BTD = states(open_model(dense).model, ids_BT)[1][3]
    z, lacking = (x[:, 1:].flatten(0, 1).double() for x in (z_BTF, wanted_BTD - out[1]))
    weight_FD = open_model(short).model.model.layers[1].mlp.down_proj.weight.T.double()
    inputs = z if method != "linear" else z @ weight_FD
    gram = inputs.T @ inputs
    gram += 0.3 * gram.diagonal().mean() * torch.eye(len(gram))
    change = torch.linalg.solve(gram, inputs.T @ lacking)
    expected = weight_FD + (change if method != "linear" else weight_FD @ change)
    assert manifest.repair.delivered
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


def test_an_interrupted_repair_goes_on(models, tmp_path, monkeypatch):
    dense, short, text, _ = models
    whole = repair(short, dense, text, settings("auto"), tmp_path / "whole", always=True)
    solve, solved = Fitting._solved, []

    def stopped(self, j, part, *rest):
        if (j, part) == (2, "ffn") and not solved.count("again"):
            raise KeyboardInterrupt
        solved.append((j, part))
        return solve(self, j, part, *rest)

    monkeypatch.setattr(Fitting, "_solved", stopped)
    with pytest.raises(KeyboardInterrupt):
        repair(short, dense, text, settings("auto"), tmp_path / "out", always=True)
    assert not (tmp_path / "out").exists() and len(list(tmp_path.glob(".out.repair-*"))) == 1
    kept = {tuple(path.stem.split("-")) for path in next(tmp_path.glob(".out.repair-*")).iterdir()}
    solved[:] = ["again"]
    found = repair(short, dense, text, settings("auto"), tmp_path / "out", always=True)
    again = {(f"{j:04}", part) for j, part in solved[1:]}
    assert kept and not kept & again and (("0002", "ffn") in again)
    assert found.repair and whole.repair and found.repair.folds == whole.repair.folds
    assert found.repair.loss == whole.repair.loss
    assert not list(tmp_path.glob(".out.repair-*"))


def test_two_processes_come_to_the_same_weights_by_the_command(tmp_path):
    cut(ModelSettings(), [3, 4, 5], CutSettings(verify=False), tmp_path / "cut")
    for size in (1, 2):
        args = ["repair", tmp_path / "cut", "--against", "embedded", "--length", 64, "--calibration", 60]
        args += ["--validation", 10, "--method", "refit:attention=false", "--out", tmp_path / str(size)]
        done = ended(started(run(*args), size))
        assert [code for code, _, _ in done] == [0] * size, done
        assert "won back" in done[0][1] and all(not output for _, output, _ in done[1:])
    one, two = (load_file(tmp_path / str(size) / "model.safetensors") for size in (1, 2))
    assert all(torch.allclose(one[name], two[name], atol=1e-5) for name in one)


def test_what_makes_the_loss_worse_is_not_written(models, tmp_path):
    """A random model has nothing to win; whichever way it goes, files and figures agree."""
    dense, short, text, _ = models
    try:
        step = repair(short, dense, text, settings("auto"), tmp_path / "out").repair
        assert step and step.loss.repaired <= step.loss.cut
    except RepairError as error:
        assert "nothing was written" in str(error) and not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".out.repair-*"))


def test_what_does_not_belong_together_is_refused(models, tmp_path):
    dense, short, text, _ = models
    with pytest.raises(ModelError, match="--against must be the model that was cut"):
        repair(short, ModelSettings(model="embedded"), text, settings("auto"), tmp_path / "out")
    with pytest.raises(PlanError, match=r"--blocks: 0,1,2,9 can't be the 4 blocks"):
        repair(short, dense, text, settings("auto"), tmp_path / "out", blocks=[0, 1, 2, 9])
    with pytest.raises(TextError, match="holds 240 windows, --calibration and --validation need 340"):
        repair(short, dense, text, settings("auto", calibration=300), tmp_path / "out")
    with pytest.raises(PlanError, match="nothing is missing"):
        repair(dense, dense, text, settings("auto"), tmp_path / "out")
    with pytest.raises(RepairError, match="did you mean 'refit'"):
        repair(short, dense, text, settings("refitt"), tmp_path / "out")


def test_the_cosine_objective_is_that_of_a_plain_loop(models, tmp_path):
    dense, short, text, folder = models
    step = repair(short, dense, text, settings("linear:replaceme-cosine"), tmp_path / "out", always=True).repair
    assert step and step.delivered and step.folds[0].ridge == 0
    ids_BT = torch.tensor(json.loads((folder / "ids.json").read_text()))[:200]
    z_BTF, out = states(open_model(short).model, ids_BT)
    weight_FD = open_model(short).model.model.layers[1].mlp.down_proj.weight.T
    wanted_BTD = states(open_model(dense).model, ids_BT)[1][3]
    m_BTD = z_BTF @ weight_FD
    map_DD = torch.eye(weight_FD.shape[1], requires_grad=True)
    adam = torch.optim.Adam([map_DD], lr=1e-4)
    for _ in range(10):
        for part in torch.arange(200).split(auto_batch_size(200, 24, torch.device("cpu"))):
            m, rest, wanted = (x[part, 1:] for x in (m_BTD, out[1] - m_BTD, wanted_BTD))
            adam.zero_grad()
            (1 - torch.cosine_similarity(rest + m @ map_DD, wanted, dim=-1)).mean().backward()
            adam.step()
    found = open_model(ModelSettings(model=str(tmp_path / "out"))).model.model.layers[1].mlp.down_proj.weight.T
    assert torch.allclose(found, weight_FD @ map_DD.detach(), atol=1e-5)
    assert not torch.allclose(found, weight_FD, atol=1e-4)


@pytest.mark.parametrize("name", ["llama", "gemma2"])
def test_scale_multiplies_the_residual_stream_before_the_gap(name, tmp_path):
    """Also where a branch is normed before it is added (Gemma 2): its norm's gain is scaled then."""
    save_tiny(name, tmp_path / "dense")
    ids_BT = torch.randint(3, 96, (60, 24), generator=torch.Generator().manual_seed(0))
    (tmp_path / "ids.json").write_text(json.dumps(ids_BT.tolist()))
    dense, short = ModelSettings(model=str(tmp_path / "dense")), ModelSettings(model=str(tmp_path / "cut"))
    cut(dense, [2, 3], CutSettings(verify=False), tmp_path / "cut")
    wanted = RepairSettings(method="scale", calibration=40, validation=20)
    step = repair(short, dense, TextSettings(ids=str(tmp_path / "ids.json")), wanted, tmp_path / "out", always=True)
    assert step.repair and step.repair.delivered, "the seed is one at which scaling helps a little"
    factor = step.repair.folds[0].factor
    assert factor and abs(factor - 1) > 0.1
    before, after = (_behind_block(ModelSettings(model=str(tmp_path / f)), 1, ids_BT[:4]) for f in ("cut", "out"))
    assert torch.allclose(after, factor * before, rtol=1e-3, atol=1e-4)


def _behind_block(model, j, ids_BT):
    opened, seen = open_model(model), []
    opened.anatomy.blocks[j].register_forward_hook(lambda m, args, out: seen.append(out))
    with torch.no_grad():
        opened.model(ids_BT)
    return seen[0][0] if isinstance(seen[0], tuple) else seen[0]


@pytest.mark.parametrize("panel", [1, 7, 16, 50, 64])
def test_normal_equations_are_solved_in_place_again_and_again(panel):
    z_NF, e_ND = (torch.randn(90, n, generator=torch.Generator().manual_seed(n), dtype=torch.float64) for n in (50, 6))
    equations = NormalEquations(50, 6, torch.device("cpu"), panel)
    for part in (slice(0, 40), slice(40, 90)):
        equations.add(z_NF[part], e_ND[part])
    gram = z_NF.T @ z_NF
    for ridge in (0.1, 0.0, 1e-3):
        wide = gram + ridge * gram.diagonal().mean() * torch.eye(50)
        found = equations.solved(ridge)
        assert found is not None and torch.allclose(found, torch.linalg.solve(wide, z_NF.T @ e_ND), atol=1e-10)
        assert torch.allclose(equations.gram_FF, gram, atol=1e-12)
    few = NormalEquations(50, 6, torch.device("cpu"), panel)
    few.add(z_NF[:20], e_ND[:20])
    assert few.solved(0.0) is None
    assert torch.allclose(few.gram_FF, z_NF[:20].T @ z_NF[:20]) and few.solved(0.1) is not None


def test_linear_is_contained_in_refit(models, tmp_path):
    """On the calibration text, which both are fitted on, with next to no ridge."""
    dense, short, text, folder = models
    ids_BT = torch.tensor(json.loads((folder / "ids.json").read_text()))[:200]
    wanted_BTD = states(open_model(dense).model, ids_BT)[1][3]
    residual = {}
    for name, method in (("refit", "refit:attention=false,everywhere=false"), ("linear", "linear"), ("cut", "none")):
        repair(short, dense, text, settings(method, ridges=[1e-9]), tmp_path / name, always=True)
        out_BTD = states(open_model(ModelSettings(model=str(tmp_path / name))).model, ids_BT)[1][1]
        residual[name] = float((out_BTD - wanted_BTD)[:, 1:].double().square().sum())
    assert residual["refit"] < residual["linear"] < residual["cut"]


def test_a_model_that_another_tool_has_cut_is_repaired_by_its_map_of_blocks(models, tmp_path):
    dense, short, text, folder = models
    copytree(folder / "cut", tmp_path / "foreign")
    (tmp_path / "foreign" / "manifest.json").unlink()
    foreign = ModelSettings(model=str(tmp_path / "foreign"))
    ours = repair(short, dense, text, settings("auto"), tmp_path / "ours", always=True).repair
    theirs = repair(foreign, dense, text, settings("auto"), tmp_path / "theirs", blocks=[0, 1, 4, 5], always=True)
    assert ours and theirs.repair and theirs.repair.folds == ours.folds
    with pytest.raises(PlanError, match="can't be the 4 blocks"):
        repair(foreign, dense, text, settings("auto"), tmp_path / "out", blocks=[0, 1, 4])
