"""`heal --dry-run`: the arithmetic, the published budgets, the memory that is counted."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from architectures import tiny_config
from transformers import LlamaConfig

from shortlm.artifacts import HealEstimate
from shortlm.errors import RecipeError
from shortlm.heal import Cluster, estimate_healing
from shortlm.heal.batches import micro_batch
from shortlm.heal.estimate import _traced
from shortlm.heal.losses import Loss
from shortlm.heal.trainable import open_trained
from shortlm.model import open_files
from shortlm.recipe import HealSettings, ModelSettings, PhaseSettings, healing_of, preset_names
from shortlm.recipe.presets import FOLDER
from shortlm.recipe.shipped import FOLDER as RECIPES
from shortlm.sweep import LiveBytes
from shortlm.text.records import Row

CLUSTER = RECIPES / "cluster"
# Blocks that stay, and tokens, as published for Vicuna-7B and LLaMA-7B (arXiv 2402.02834, continued pretraining).
PUBLISHED = {26: ("37B", 5_524_115_456, 35_286), 17: ("74B", 3_702_665_216, 70_572)}
PUBLISHED |= {12: ("150B", 2_690_748_416, 143_052), 6: ("271B", 1_476_448_256, 258_446)}


def llama(folder: Path, blocks: int) -> ModelSettings:
    LlamaConfig(
        vocab_size=32000, hidden_size=4096, intermediate_size=11008, num_hidden_layers=blocks, num_attention_heads=32,
        dtype="float16",
    ).save_pretrained(folder)  # fmt: skip
    return ModelSettings(model=str(folder), device="cuda")


@pytest.mark.parametrize("blocks", list(PUBLISHED))
def test_published_budgets(tmp_path, blocks):
    tokens, parameters, steps = PUBLISHED[blocks]
    settings = healing_of("shortened-llm-cpt", None, {"tokens": tokens})
    cluster = Cluster(processes=8, tflops=400, sharded=True)
    found = estimate_healing(llama(tmp_path, blocks), settings, cluster)
    (phase,) = found.phases
    assert found.model.parameters == phase.trainable == parameters
    assert phase.tokens_per_step == 512 * 2048 and phase.steps == steps
    assert phase.micro_batches == 256  # 8 processes x accumulation 32, two rows of 2048 each
    dense = 6 * (parameters - 32000 * 4096) * phase.tokens  # a matrix product takes 2 operations forwards, 4 backwards
    assert dense < phase.flops < 1.25 * dense  # attention on top
    assert phase.seconds == pytest.approx(phase.flops / 3200e12)
    assert phase.parts["weights"] == parameters * 4 // 8 and phase.parts["optimizer"] == parameters // 8 * 8


@pytest.mark.parametrize("method", ["cpt", "lora", "last-layers"])
def test_what_is_counted_is_what_is_alive(llama_folder, method):
    files = open_files(ModelSettings(model=str(llama_folder), device="cpu"))
    settings = PhaseSettings(method=method, precision="float32", last=2)
    batch = micro_batch([Row([i + j for j in range(30)], list(range(30))) for i in range(4)], pad=0)
    traced = _traced(files, settings, batch, "float32")
    model = open_trained(files, settings)
    loss = Loss(model)
    model.train()
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.zeros_like(parameter)
    with LiveBytes(model) as live:
        loss.nats(model, batch).backward()
    assert traced.activations == pytest.approx(live.peak, rel=0.1)
    assert traced.trainable == sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert traced.trainable_bytes + traced.frozen_bytes == sum(p.numel() * 4 for p in model.parameters())


def test_recomputing_takes_less_memory_and_more_work(tmp_path):
    model = llama(tmp_path, 8)
    settings = {"method": "cpt", "data": ["x/y"], "length": 512, "steps": 1, "batch": 4, "held_out": 0}
    few, many = (
        estimate_healing(model, HealSettings(phases=[PhaseSettings(**settings, checkpointing=on)]), Cluster(tflops=1))
        for on in (True, False)
    )
    assert few.phases[0].parts["activations"] < 0.8 * many.phases[0].parts["activations"]
    assert many.phases[0].flops < few.phases[0].flops < 1.4 * many.phases[0].flops


def test_data_parallel_processes_hold_everything(tmp_path):
    model = llama(tmp_path, 2)
    phase = PhaseSettings(method="cpt", data=["x/y"], length=128, steps=1, batch=8, held_out=0)
    one, two = (estimate_healing(model, HealSettings(phases=[phase]), Cluster(n, 1)).phases[0] for n in (1, 2))
    assert two.parts["weights"] == one.parts["weights"] and two.parts["buckets of gradients"] == one.parts["gradients"]
    assert two.micro_batches == 2 and two.seconds == pytest.approx(one.seconds / 2, rel=0.01)


def test_time_is_measured_where_the_device_is_here(llama_folder):
    phase = PhaseSettings(method="lora", data=["embedded"], steps=3, batch=4, length=24)
    found = estimate_healing(
        ModelSettings(model=str(llama_folder), device="cpu"), HealSettings(phases=[phase]), Cluster()
    )
    assert found.phases[0].seconds > 0 and found.phases[0].rate == "measured here on made-up blocks"
    assert found.phases[0].parts["process"] > 1e8


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan"), float("inf"), 1e300])
def test_a_rate_that_no_device_has_is_refused(llama_folder, rate):
    settings = HealSettings(phases=[PhaseSettings(data=["embedded"], steps=3, length=24)])
    with pytest.raises(RecipeError, match=r"--tflops .*: a rate above 0 is needed"):
        estimate_healing(ModelSettings(model=str(llama_folder), device="cpu"), settings, Cluster(tflops=rate))


def test_what_can_not_be_estimated_is_said(tmp_path):
    model = llama(tmp_path, 2)
    with pytest.raises(RecipeError, match="yahma/alpaca-cleaned: can't be read from here; give --steps or --tokens"):
        estimate_healing(model, healing_of("shortened-llm-lora", None, {}), Cluster(tflops=1))
    found = estimate_healing(model, healing_of("shortened-llm-lora", None, {"steps": 5}), Cluster())
    assert found.phases[0].seconds is None and found.phases[0].rate == "the device is not here; give --tflops"


@pytest.mark.parametrize("name", preset_names("heal"))
def test_presets_are_dry_run(name, tmp_path):
    tiny_config("llama", hidden_size=32, head_dim=8).save_pretrained(tmp_path)
    small = {"teacher": str(tmp_path), "last": 2, "steps": 2, "epochs": None, "tokens": None, "length": 32, "rank": 2}
    settings = healing_of(name, None, {})
    settings = settings.model_copy(update={"phases": [p.model_copy(update=small) for p in settings.phases]})
    found = estimate_healing(ModelSettings(model=str(tmp_path), device="cpu"), settings, Cluster(tflops=1))
    assert [p.method for p in found.phases] == [p.method for p in settings.phases] and settings.source
    (tmp_path / "old.json").write_text(
        found.model_dump_json().replace('"HealEstimate"', '"HealPlan"'), encoding="utf-8"
    )
    assert HealEstimate.load(tmp_path / "old.json").phases == found.phases  # as it was called before


def test_there_are_all_published_presets():
    wanted = {f"gromov-qlora{suffix}" for suffix in ("", "-13b", "-70b", "-mistral-7b", "-qwen-7b")}
    wanted |= {"shortened-llm-lora", "shortened-llm-cpt", "shortened-llm-cpt-lora", "last-layers", "distill"}
    assert set(preset_names("heal")) == wanted and all((FOLDER / "heal" / f"{n}.yaml").is_file() for n in wanted)


def test_published_settings():
    (lora,) = healing_of("shortened-llm-lora", None, {}).phases
    assert (lora.rank, lora.alpha, lora.dropout, lora.lr, lora.batch, lora.length) == (8, 16, 0.05, 1e-4, 64, 256)
    assert (lora.epochs, lora.warmup, lora.held_out, lora.schedule, lora.keep) == (2, 100, 2000, "linear", "best")
    (cpt,) = healing_of("shortened-llm-cpt", None, {}).phases
    assert (cpt.betas, cpt.lr, cpt.weight_decay, cpt.batch) == ((0.9, 0.95), 1e-4, 0.1, 512)
    chain = healing_of("shortened-llm-cpt-lora", None, {}).phases
    assert chain == [cpt, lora]
    ranks = {"": 2, "-13b": 64, "-70b": 8, "-mistral-7b": 4, "-qwen-7b": 64}
    for suffix, rank in ranks.items():
        (phase,) = healing_of(f"gromov-qlora{suffix}", None, {}).phases
        assert phase.rank == phase.alpha == rank and phase.targets == "ffn" and phase.steps == 5000
        assert phase.lr == {"-70b": 3e-5, "-mistral-7b": 3e-6}.get(suffix, 3e-4) and phase.batch == 16
        assert phase.length == (4096 if suffix in ("-13b", "-70b") else 2048)


@pytest.mark.parametrize("path", sorted(CLUSTER.glob("*.yaml")), ids=lambda p: p.stem)
def test_cluster_files(path):
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    if "phases" in content:
        assert HealSettings.model_validate(content).phases[0].batch % 32 == 0
        return
    from accelerate.commands.config.config_args import ClusterConfig

    config = ClusterConfig.from_yaml_file(yaml_file=str(path))
    assert config.num_processes in (8, 32) and str(config.distributed_type.value) in ("MULTI_GPU", "FSDP", "DEEPSPEED")
    if "fsdp_config" in content:
        assert content["fsdp_config"]["fsdp_version"] == 2
        assert content["fsdp_config"]["fsdp_state_dict_type"] == "FULL_STATE_DICT"
