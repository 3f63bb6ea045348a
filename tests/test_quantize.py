"""`quantize`: what is refused beforehand; with the real tool (slow): integers that stand for the weights they were."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from architectures import save_tiny
from safetensors.torch import load_file
from typer.testing import CliRunner

from shortlm.artifacts import Manifest
from shortlm.cli import app
from shortlm.embedded import model_path
from shortlm.errors import ExportError, ModelError, OutputError, RecipeError
from shortlm.export import quantize
from shortlm.export.quantizable import quantizable
from shortlm.heal import heal
from shortlm.model import open_config, open_model
from shortlm.recipe import ModelSettings


def config_of(folder: Path | str):
    return open_config(ModelSettings(model=str(folder)))


def test_the_linear_layers_of_the_blocks_alone_become_integers():
    layers = quantizable(config_of("embedded"), "embedded", 128, False)
    assert len(layers.quantized) == 12 * 7 and layers.ignored == ["lm_head"]
    assert layers.parameters == 12 * (128 * (128 + 64 + 64 + 128) + 3 * 128 * 256)


@pytest.mark.parametrize(
    ("group", "said"),
    [(96, "a layer of 128 inputs can't be split into groups of 96; give --group-size 64"),
     (256, "a layer of 128 inputs can't be split into groups of 256; give --group-size 128")],
)  # fmt: skip
def test_groups_that_the_widths_are_no_multiple_of_are_refused_with_one_that_fits(group, said):
    with pytest.raises(ExportError, match=said):
        quantizable(config_of("embedded"), "embedded", group, False)


@pytest.mark.parametrize("name", ["gpt2", "mixtral"])
def test_models_whose_weights_are_not_in_linear_layers_are_refused(tmp_path, name):
    save_tiny(name, tmp_path / name)
    with pytest.raises(ExportError, match=r"only \d+% of its blocks' parameters are in linear layers \(experts in one"):
        quantizable(config_of(tmp_path / name), name, 16, False)


def test_what_is_wrong_is_told_before_any_work(llama_copy, tmp_path, monkeypatch):
    monkeypatch.setenv("SHORTLM_CACHE", str(tmp_path / "cache"))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    with pytest.raises(OutputError, match="the output folder exists and is not empty"):
        quantize("embedded", out=tmp_path / "full")
    with pytest.raises(OutputError, match="the output would replace the model itself"):
        quantize(str(llama_copy), out=llama_copy, force=True)
    with pytest.raises(RecipeError, match=r"bits: input should be 4 or 8 \(got 3\)"):
        quantize("embedded", settings={"bits": 3}, out=tmp_path / "out")
    with pytest.raises(ExportError, match=r"--python /no/python: can't be run \(.*\); give a Python interpreter"):
        quantize("embedded", {"sequences": 2}, {"python": "/no/python"}, tmp_path / "out")
    monkeypatch.setattr("shortlm.export.quantizing.find_spec", lambda name: None)
    with pytest.raises(ExportError, match=r"can't be read here without compressed-tensors; pip install 'shortlm\["):
        quantize("embedded", out=tmp_path / "out")
    assert not (tmp_path / "out").exists() and not (tmp_path / "cache").exists()


def test_a_quantised_model_is_neither_cut_nor_healed_nor_quantised_again(llama_copy, tmp_path):
    path = llama_copy / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"quantization_config": {"quant_method": "gptq"}}))
    with pytest.raises(ModelError, match="is quantised; heal the unquantised model, then quantise the result"):
        heal(str(llama_copy), {"phases": [{"method": "cpt", "data": ["embedded"], "steps": 1}]}, tmp_path / "out")
    with pytest.raises(ExportError, match="is quantised already; give the unquantised checkpoint"):
        quantizable(config_of(llama_copy), "m", 16, False)
    done = CliRunner().invoke(app, ["export", str(llama_copy), "--gguf", str(tmp_path / "m.gguf")])
    assert done.exit_code == 2 and "export the unquantised checkpoint with --type q4_k_m instead" in done.stderr


def dequantised(folder: Path, name: str) -> torch.Tensor:
    """A weight by hand: 8 integers of 4 bits (offset 8) in each int32, times the scale of its group."""
    tensors = load_file(folder / "model.safetensors")
    packed, scale = tensors[f"{name}.weight_packed"], tensors[f"{name}.weight_scale"]
    integers = torch.stack([(packed >> (4 * i)) & 15 for i in range(8)], -1).flatten(1) - 8
    return integers * scale.repeat_interleave(integers.shape[1] // scale.shape[1], 1)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("method", ["rtn", "gptq"])
def test_integers_stand_for_the_weights_and_all_that_measures_opens_them(tmp_path, method):
    """With llm-compressor in its own environment, which is made if it isn't there: needs the package index once."""
    out = tmp_path / "out"
    shutil.copytree(model_path(), tmp_path / "source")
    windows = {"text": "embedded", "sequences": 16, "length": 128}
    manifest = quantize(str(tmp_path / "source"), windows, {"method": method}, out)
    step = Manifest.load(out / "manifest.json").steps[-1]
    assert step == manifest.steps[-1] and step.kind == "quantize" and step.layers == 84
    assert step.loss.after == pytest.approx(step.loss.before, abs=0.05) and step.loss.after != step.loss.before
    assert step.bytes_after < 0.2 * step.bytes_before
    assert (step.data is None) == (method == "rtn")
    mine, before = open_model(str(out)).model, open_model("embedded").model
    name = "model.layers.3.mlp.down_proj"
    weight, original = mine.get_submodule(name).weight, before.get_submodule(name).weight
    torch.testing.assert_close(weight, dequantised(out, name))
    groups_OGI = original.unflatten(1, (-1, 128))
    step_OG1 = groups_OGI.abs().amax(-1, keepdim=True) / 7.5  # the integers go from -8 to 7
    error_OGI = (weight.unflatten(1, (-1, 128)) - groups_OGI).abs()
    assert (error_OGI <= step_OG1).float().mean() > (0.999 if method == "rtn" else 0.9)
    torch.testing.assert_close(mine.lm_head.weight, before.lm_head.weight)
    config = json.loads((out / "config.json").read_text())
    source = json.loads((tmp_path / "source" / "config.json").read_text())
    assert {**source, "quantization_config": config["quantization_config"]} == config
    assert "village" not in json.dumps(config) and sorted(p.name for p in out.iterdir()) == [
        "config.json", "generation_config.json", "manifest.json", "model.safetensors", "tokenizer.json",
        "tokenizer_config.json",
    ]  # fmt: skip
    with pytest.raises(ModelError, match="this checkpoint is quantised; cut the unquantised one"):
        from shortlm.cut import cut

        cut(str(out), [3], out=tmp_path / "cut")
