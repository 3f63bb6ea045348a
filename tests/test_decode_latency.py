"""Where a decoding step's time goes, by a clock that only matrix products move: figures are exact and can't flake."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from architectures import BLOCKS, tiny_model

from shortlm.checkpoint import Checkpoint
from shortlm.errors import ModelError
from shortlm.model import OpenModel, facts_of, find_anatomy, open_files, quiet
from shortlm.recipe import ModelSettings
from shortlm.sweep import DecodeLatency, decode_latencies
from shortlm.units import unit_list


def opened(model) -> OpenModel:
    return OpenModel(model, None, find_anatomy(model), Checkpoint, facts_of(model, "tiny"))


@pytest.fixture
def clock(monkeypatch):
    """Seconds are millions of weights that matrix products have used; for a step, whatever the prompt's length."""
    now, linear = [0.0], F.linear

    def counted(x, weight, bias=None):
        now[0] += weight.numel() / 1e6
        return linear(x, weight, bias)

    monkeypatch.setattr(F, "linear", counted)
    monkeypatch.setattr("shortlm.clock.time.perf_counter", lambda: now[0])
    return now


def products(module) -> float:
    return sum(m.weight.numel() for m in module.modules() if isinstance(m, torch.nn.Linear)) / 1e6


@pytest.mark.parametrize("name", ["llama", "gpt_neox", "gemma2", "opt", "phi"])
def test_what_each_unit_takes_of_a_step(clock, name):
    model = tiny_model(name)
    anatomy = find_anatomy(model)
    if name == "llama":
        wide = tiny_model(name, intermediate_size=480)
        anatomy.blocks[2].mlp = find_anatomy(wide).blocks[2].mlp
    found = decode_latencies(opened(model), prompt_tokens=9, steps=3, rounds=2)
    for i, block in enumerate(anatomy.blocks):
        attention, ffn = (
            sum(products(block.get_submodule(n)) for n in names[i]) for names in (anatomy.attention, anatomy.ffn)
        )
        assert found.attention[i] == pytest.approx(attention)
        assert found.ffn[i] == pytest.approx(ffn)
        assert found.blocks[i] == pytest.approx(products(block)) == pytest.approx(attention + ffn)
    assert found.rest == pytest.approx(anatomy.head.weight.numel() / 1e6)
    assert (found.prompt_tokens, found.steps) == (9, 6)
    if name == "llama":
        assert found.ffn[2] == pytest.approx(10 * found.ffn[1])
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_a_step_without_units():
    found = DecodeLatency([1, 2, 3], [10, 20, 30], [15, 26, 37], 100, 64, 16)
    assert found.total == 178
    assert found.without([]) == 178
    assert found.without(unit_list("0,1.attention,2.ffn", "x")) == 178 - 15 - 2 - 30
    assert found.without(unit_list("1.attention,1.ffn", "x")) == found.without(unit_list("1", "x")) == 178 - 26


def test_a_block_without_ffn(clock):
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model("mamba", hidden_size=16, num_hidden_layers=2, vocab_size=96, state_size=4)
    found = decode_latencies(opened(AutoModelForCausalLM.from_config(config).eval()), 4, 2, 1)
    assert found.ffn == [0, 0]
    assert found.attention == pytest.approx(found.blocks) and min(found.blocks) > 0


def test_by_the_real_clock_it_adds_up():
    found = decode_latencies(opened(tiny_model("llama")), prompt_tokens=4, steps=2, rounds=2)
    assert min(found.attention + found.ffn + found.blocks) > 0
    assert found.total == pytest.approx(sum(found.blocks) + found.rest)
    assert all(max(pair) <= whole for *pair, whole in zip(found.attention, found.ffn, found.blocks, strict=True))
    assert len(found.blocks) == BLOCKS


def test_a_short_context_shortens_the_prompt(clock):
    found = decode_latencies(opened(tiny_model("gpt2", max_position_embeddings=12)), prompt_tokens=64, steps=4)
    assert found.prompt_tokens == 7


def test_what_cannot_be_timed_is_refused(tmp_path):
    with quiet():
        tiny_model("llama").save_pretrained(tmp_path)
    streamed = open_files(ModelSettings(model=str(tmp_path), stream="on")).open(True)
    with pytest.raises(ModelError, match="blocks on disk can't write text to be timed; use --stream off"):
        decode_latencies(streamed)
