"""A composite model from end to end: the language model inside is worked on, the vision tower goes along untouched."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from cut_of_every_type import random_model
from every_type import tiny_config_of
from safetensors.torch import load_file

import shortlm
from shortlm.artifacts import CutPlan, Manifest
from shortlm.choose import plan_by_hand
from shortlm.embedded import model_path
from shortlm.errors import ModelError
from shortlm.model import open_model, quiet
from shortlm.recipe import (
    BenchSettings,
    CutSettings,
    EvalSettings,
    HealSettings,
    ModelSettings,
    PhaseSettings,
    RepairSettings,
    ScoreSettings,
    TextSettings,
    WidthSettings,
    WorkloadSettings,
)  # fmt: skip
from shortlm.units import unit_list

PROCESSOR = {"processor_config.json": {"image_seq_length": 4}, "preprocessor_config.json": {"size": 28}}
PHASE = {
    "data": ["embedded"], "separator": "\n\n", "length": 24, "batch": 4, "held_out": 6, "steps": 2, "lr": 1e-2,
    "eval_every": 2, "precision": "float32", "warmup": 0, "micro_tokens": 96,
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A tiny Gemma 3 with its vision tower, a tokenizer, and files for a processor."""
    folder = tmp_path_factory.mktemp("gemma3") / "model"
    config = tiny_config_of("gemma3")
    config.text_config.vocab_size = 1024
    with quiet():
        random_model(config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(model_path() / name, folder / name)
    for name, content in PROCESSOR.items():
        (folder / name).write_text(json.dumps(content))
    return folder


@pytest.fixture(scope="module")
def shorter(folder, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("cut") / "model"
    settings = ModelSettings(model=str(folder))
    shortlm.cut(settings, plan_by_hand(open_model(settings).facts, [1, 3]), CutSettings(), out)
    return out


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for file in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(file).items()}


def changed(before: Path, after: Path) -> set[str]:
    old, new = tensors(before), tensors(after)
    return {name for name in new if name not in old or not torch.equal(old[name], new[name])}


def text(**settings) -> TextSettings:
    return TextSettings(**({"text": "embedded", "sequences": 8, "length": 24} | settings))


def test_scores_are_those_of_the_language_model_in_memory_and_from_disk(folder):
    criteria = ScoreSettings(criteria=["ppl", "bi", "taylor", "magnitude"], batch_size=4)
    found = [
        shortlm.score(ModelSettings(model=str(folder), stream=stream), text(), criteria).criteria
        for stream in ("off", "on")
    ]
    for name, of_memory in found[0].items():
        assert len(of_memory.scores) == 6
        assert found[1][name].scores == pytest.approx(of_memory.scores, rel=1e-4)


def test_towers_config_and_processor_files_stay_as_they_are(folder, shorter):
    before, after = tensors(folder), tensors(shorter)
    towers = [name for name in before if "language_model" not in name and not name.startswith("lm_head")]
    assert any("vision_tower" in name for name in towers) and any("projector" in name for name in towers)
    assert all(torch.equal(after[name], before[name]) for name in towers)
    assert {n: json.loads((shorter / n).read_text()) for n in PROCESSOR} == PROCESSOR
    old, new = (json.loads((f / "config.json").read_text()) for f in (folder, shorter))
    assert new["architectures"] == old["architectures"] == ["Gemma3ForConditionalGeneration"]
    assert new["model_type"] == "gemma3" and new["vision_config"] == old["vision_config"] | {"dtype": "float32"}
    assert (old["text_config"]["num_hidden_layers"], new["text_config"]["num_hidden_layers"]) == (6, 4)
    kept = [old["text_config"]["layer_types"][i] for i in (0, 2, 4, 5)]
    assert new["text_config"]["layer_types"] == kept


def test_the_card_says_how_to_load_it_whole(shorter):
    manifest = Manifest.model_validate_json((shorter / "manifest.json").read_text())
    card = shortlm.model_card(shortlm.Evidence(manifest=manifest))
    assert "model = AutoModelForImageTextToText.from_pretrained(path)" in card
    assert "pipeline_tag: image-text-to-text" in card


def test_all_blocks_of_a_kind_may_go(folder, tmp_path):
    model = ModelSettings(model=str(folder))  # the last block is the only one with full attention
    shortlm.cut(model, plan_by_hand(open_model(model).facts, [1, 5]), CutSettings(), tmp_path / "out")
    text_config = json.loads((tmp_path / "out" / "config.json").read_text())["text_config"]
    assert {*text_config["layer_types"]} == {"sliding_attention"}


@pytest.mark.parametrize("method", ["lora", "cpt"])
def test_healing_trains_the_language_model_alone(folder, shorter, tmp_path, method):
    phase = PhaseSettings(**PHASE, method=method)
    shortlm.heal(ModelSettings(model=str(shorter), device="cpu"), HealSettings(phases=[phase]), tmp_path / "out")
    trained = changed(shorter, tmp_path / "out")
    assert trained and all(in_language_model(name) for name in trained)
    assert tensors(tmp_path / "out").keys() == tensors(shorter).keys()
    assert {n: json.loads((tmp_path / "out" / n).read_text()) for n in PROCESSOR} == PROCESSOR
    open_model(ModelSettings(model=str(tmp_path / "out")))


def test_repair_computes_weights_of_the_language_model_alone(folder, shorter, tmp_path):
    settings = RepairSettings(method="linear")
    dense, short = (ModelSettings(model=str(f)) for f in (folder, shorter))
    shortlm.repair(short, dense, text(), settings, tmp_path / "out", always=True)
    repaired = changed(shorter, tmp_path / "out")
    assert repaired and all(in_language_model(name) for name in repaired)
    open_model(ModelSettings(model=str(tmp_path / "out")))


def test_widths_of_the_language_model(folder, tmp_path):
    settings = WidthSettings(method="flap", drop_params="15%")
    shortlm.prune_width(ModelSettings(model=str(folder)), text(), settings, tmp_path / "out")
    narrower = changed(folder, tmp_path / "out")
    assert narrower and all(in_language_model(name) for name in narrower)


def test_perplexity_and_decoding_are_measured(shorter):
    model = ModelSettings(model=str(shorter))
    measured = shortlm.evaluate(model, EvalSettings(texts=[text()]))
    assert measured.perplexities[0].perplexity > 1
    quick = WorkloadSettings(batches=[1], prompt_tokens=[4], output_tokens=[4], runs=2, warmup=0)
    benchmark = shortlm.bench([model], BenchSettings(workloads=[quick]))
    assert benchmark.models


def test_an_ffn_may_go_and_attention_as_zeros_only(folder, tmp_path):
    model = ModelSettings(model=str(folder))
    without = [plan_of(model, unit) for unit in ("2.ffn", "2.attention")]
    shortlm.cut(model, without[0], CutSettings(), tmp_path / "ffn")
    assert type(open_model(ModelSettings(model=str(tmp_path / "ffn"))).model).__name__.startswith("ShortGemma3For")
    with pytest.raises(ModelError, match="attention can't be left out of the language model in a composite one"):
        shortlm.cut(model, without[1], CutSettings(), tmp_path / "attention")
    shortlm.cut(model, without[1], CutSettings(form="zeroed"), tmp_path / "attention")
    assert all(in_language_model(name) for name in changed(folder, tmp_path / "attention"))


def plan_of(model: ModelSettings, unit: str) -> CutPlan:
    return plan_by_hand(open_model(model).facts, unit_list(unit, "unit"))


def test_what_is_no_composite_matter(tmp_path):
    """Encoder-decoders, and models whose text can't stand alone."""
    from transformers import AutoConfig

    from shortlm.model import text_config

    with pytest.raises(ModelError, match="is an encoder-decoder, whose blocks read the encoder too"):
        text_config(AutoConfig.for_model("bart"))


def in_language_model(name: str) -> bool:
    return "language_model" in name or name.startswith("lm_head")
