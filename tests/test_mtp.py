"""Heads for multi-token prediction: kept behind the last block, dropped on request, carried by healing, never half."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from cut_of_every_type import random_model
from every_type import tiny_config_of
from safetensors.torch import load_file, save_file

import shortlm
from shortlm.artifacts import CutStep, Manifest
from shortlm.choose import plan_by_hand
from shortlm.embedded import model_path
from shortlm.errors import ModelError
from shortlm.model import open_model, quiet
from shortlm.recipe import CutSettings, HealSettings, ModelSettings, PhaseSettings, ScoreSettings, TextSettings

BEHIND = "model.layers.6."  # DeepSeek-V3 and GLM-4.5 count the head as one more block
NAMED = "mtp."  # Qwen3-Next gives it a name of its own


@pytest.fixture(scope="module", params=["deepseek_v3", "glm4_moe", "qwen3_next"])
def folder(request, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp(request.param) / "model"
    with_head(request.param, folder)
    return folder


def with_head(model_type: str, folder: Path, promised: bool = True) -> None:
    config = tiny_config_of(model_type)
    config.vocab_size = 1024
    with quiet():
        random_model(config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(model_path() / name, folder / name)
    weights = load_file(folder / "model.safetensors")
    last = {name: tensor for name, tensor in weights.items() if name.startswith("model.layers.5.")}
    prefix = NAMED + "layers.0." if model_type == "qwen3_next" else BEHIND
    head = {prefix + name.removeprefix("model.layers.5."): tensor.clone() for name, tensor in last.items()}
    joined = torch.randn(32, 64, generator=torch.Generator().manual_seed(1))
    head[(NAMED + "fc.weight") if model_type == "qwen3_next" else BEHIND + "eh_proj.weight"] = joined
    save_file(weights | head, folder / "model.safetensors", metadata={"format": "pt"})
    written = json.loads((folder / "config.json").read_text())
    if model_type != "qwen3_next" and promised:
        written["num_nextn_predict_layers"] = 1
    else:
        written.pop("num_nextn_predict_layers", None)
    (folder / "config.json").write_text(json.dumps(written))


def heads(folder: Path) -> dict[str, torch.Tensor]:
    """The tensors of the head, under what they are called behind the last block or under their own name."""
    count = json.loads((folder / "config.json").read_text())["num_hidden_layers"]
    found = {n: t for file in sorted(folder.glob("*.safetensors")) for n, t in load_file(file).items()}
    behind = f"model.layers.{count}."
    return {n.replace(behind, "behind."): t for n, t in found.items() if n.startswith((behind, NAMED))}


def cut(folder: Path, out: Path, **settings) -> Manifest:
    model = ModelSettings(model=str(folder))
    return shortlm.cut(model, plan_by_hand(open_model(model).facts, [1, 4]), CutSettings(**settings), out)


def became(manifest: Manifest) -> str | None:
    step = manifest.steps[-1]
    assert isinstance(step, CutStep)
    return step.mtp


def test_the_head_is_kept_behind_the_last_block(folder, tmp_path):
    manifest = cut(folder, tmp_path / "out")
    before, after = heads(folder), heads(tmp_path / "out")
    assert became(manifest) == "kept" and len(before) > 5
    assert after.keys() == before.keys() and all(torch.equal(after[name], before[name]) for name in before)
    open_model(ModelSettings(model=str(tmp_path / "out")))


def test_it_is_dropped_on_request(folder, tmp_path):
    manifest = cut(folder, tmp_path / "out", mtp="drop")
    assert became(manifest) == "dropped" and not heads(tmp_path / "out")
    assert not json.loads((tmp_path / "out" / "config.json").read_text()).get("num_nextn_predict_layers")


def test_it_stays_with_a_healed_model_and_is_in_nobodys_way_on_disk(folder, tmp_path):
    cut(folder, tmp_path / "cut")
    phase = PhaseSettings(
        data=["embedded"], separator="\n\n", length=16, batch=2, held_out=4, steps=2, precision="float32", warmup=0,
        eval_every=2, lr=1e-3, method="lora", targets="o_proj",
    )  # fmt: skip
    shortlm.heal(ModelSettings(model=str(tmp_path / "cut"), device="cpu"), HealSettings(phases=[phase]), tmp_path / "h")
    before, after = heads(tmp_path / "cut"), heads(tmp_path / "h")
    assert after.keys() == before.keys() and all(torch.equal(after[name], before[name]) for name in before)
    text = TextSettings(text="embedded", sequences=4, length=16)
    found = [
        shortlm.score(ModelSettings(model=str(tmp_path / "h"), stream=stream), text, ScoreSettings(criteria=["ppl"]))
        for stream in ("off", "on")
    ]
    assert found[1].criteria["ppl"].scores == pytest.approx(found[0].criteria["ppl"].scores, rel=1e-4)


def test_a_head_that_the_config_does_not_promise_is_refused(tmp_path):
    with_head("llama", tmp_path / "m", promised=False)
    with pytest.raises(ModelError, match=r"unexpected weights|holds weights of block 6 beyond the 6 of its config"):
        cut(tmp_path / "m", tmp_path / "out")
    assert not (tmp_path / "out").exists()
