"""A model of 200 blocks through the whole path, and the plan of one of 126 blocks of width 16,384 from its config."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from cut_of_every_type import random_model

import shortlm
from shortlm.embedded import model_path
from shortlm.model import open_model, quiet
from shortlm.recipe import (
    BenchSettings,
    ChooseSettings,
    CutSettings,
    EvalSettings,
    HealSettings,
    ModelSettings,
    PhaseSettings,
    ScoreSettings,
    TextSettings,
    WorkloadSettings,
)  # fmt: skip
from shortlm.score import work_estimate

WIDE = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "torch_dtype": "bfloat16", "hidden_size": 16384,
    "intermediate_size": 53248, "num_hidden_layers": 126, "num_attention_heads": 128, "num_key_value_heads": 8,
    "vocab_size": 128256, "max_position_embeddings": 131072, "rope_theta": 500000.0, "tie_word_embeddings": False,
}  # fmt: skip
BLOCKS = 200
TEXT = TextSettings(sequences=10, length=128)


def test_405b_parameters_are_planned_from_the_config(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(WIDE))
    model = ModelSettings(model=str(tmp_path), memory="64GiB")
    plan = shortlm.plan_memory(model, TEXT, ScoreSettings(criteria=["ppl", "taylor"]), measure=False)
    block = 2 * (2 * 16384**2 + 2 * 16384 * 1024 + 3 * 16384 * 53248)  # bytes in bfloat16, norms aside
    assert plan.model.n_blocks == 126 and plan.weights_bytes == pytest.approx(126 * block, rel=0.02)
    assert plan.rows[0].streamed and plan.rows[0].parts["weights"] == pytest.approx(2 * block, rel=0.02)
    assert plan.rows[0].peak_bytes < plan.rows[1].peak_bytes < 64 * 2**30


def test_what_free_memory_cannot_hold_is_planned_without_times(tmp_path, monkeypatch):
    small = WIDE | {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4, "num_key_value_heads": 2}
    (tmp_path / "config.json").write_text(json.dumps(small | {"vocab_size": 512, "num_hidden_layers": 4}))
    model, settings = ModelSettings(model=str(tmp_path)), ScoreSettings(criteria=["bi"])
    assert shortlm.plan_memory(model, TEXT, settings).rows[0].seconds is not None
    monkeypatch.setattr(work_estimate._Clock, "_needed", lambda clock, schedule: clock.free + 1)
    assert shortlm.plan_memory(model, TEXT, settings).rows[0].seconds is None


@pytest.mark.slow
def test_200_blocks_from_end_to_end(tmp_path):
    from transformers import LlamaConfig

    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2, "vocab_size": 1024}
    with quiet():
        whole = random_model(LlamaConfig(num_hidden_layers=BLOCKS, max_position_embeddings=64, **sizes))
        with torch.no_grad():
            for block in whole.model.layers:  # each adds little, as in deep models
                block.self_attn.o_proj.weight.mul_(0.1)
                block.mlp.down_proj.weight.mul_(0.1)
        whole.save_pretrained(tmp_path / "m", max_shard_size="200KB")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(model_path() / name, tmp_path / "m" / name)
    model, text = ModelSettings(model=str(tmp_path / "m")), TextSettings(text="embedded", sequences=2, length=16)
    scores = shortlm.score(model, text, ScoreSettings(criteria=["ppl", "bi", "taylor"], resamples=20))
    assert all(len(found.scores) == BLOCKS for found in scores.criteria.values())
    plan = shortlm.choose(scores, ChooseSettings(criterion="ppl", drop="25%"))
    assert len(plan.removed) == 50
    manifest = shortlm.cut(model, plan, CutSettings(), tmp_path / "cut")
    assert manifest.blocks == plan.kept
    shorter = ModelSettings(model=str(tmp_path / "cut"), device="cpu")
    phase = PhaseSettings(
        data=["embedded"], separator="\n\n", length=16, batch=2, held_out=4, steps=2, precision="float32", warmup=0,
        eval_every=2, lr=1e-3, method="lora",
    )  # fmt: skip
    shortlm.heal(shorter, HealSettings(phases=[phase]), tmp_path / "healed")
    healed = ModelSettings(model=str(tmp_path / "healed"))
    assert open_model(healed).facts.n_blocks == 150
    assert shortlm.evaluate(healed, EvalSettings(texts=[text])).perplexities[0].perplexity > 1
    quick = WorkloadSettings(batches=[1], prompt_tokens=[4], output_tokens=[4], runs=2, warmup=0)
    benched = shortlm.bench([model, healed], BenchSettings(workloads=[quick], breakdown=False))
    assert [entry.model.n_blocks for entry in benched.models] == [200, 150]
