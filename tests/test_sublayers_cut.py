"""Checkpoints without some attentions and FFNs: every form computes what the original computes with these at zero."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
import torch
from architectures import ARCHITECTURES, save_tiny
from transformers import AutoModelForCausalLM

from shortlm.cut import cut
from shortlm.model import find_anatomy, open_model, quiet
from shortlm.recipe import CutSettings, ModelSettings
from shortlm.units import Unit

BLOCK, ATTENTION, FFN = Unit(1), Unit(3, "attention"), Unit(4, "ffn")
UNITS = [BLOCK, ATTENTION, FFN]
# What a branch's output goes through before it is added, where that is a norm: its output is what adds.
ADDED = {
    "gemma2": ("post_attention_layernorm", "post_feedforward_layernorm"),
    "gemma3_text": ("post_attention_layernorm", "post_feedforward_layernorm"),
    "olmo2": ("post_attention_layernorm", "post_feedforward_layernorm"),
}


def cut_to(folder, out, units=UNITS, **settings):
    model = ModelSettings(model=str(folder), stream=settings.pop("stream", "auto"))
    return cut(model, units, CutSettings(**settings), out)


def loaded(folder):
    with quiet():
        model, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    return model.eval().requires_grad_(False)


def zeroed_output(module, args, output):
    return (torch.zeros_like(output[0]), *output[1:]) if isinstance(output, tuple) else torch.zeros_like(output)


def reference(name, folder, ids_BT):
    """Logits of the original whose block 1 hands on its input, whose branches' outputs are zero."""
    model = loaded(folder)
    anatomy = find_anatomy(model)
    hand_on = lambda module, args, output: (args[0], *output[1:]) if isinstance(output, tuple) else args[0]  # noqa: E731
    attention, ffn = ADDED.get(name, (anatomy.attention[3][-1], anatomy.ffn[4][-1]))
    with ExitStack() as hooks:
        for module, hook in (
            (anatomy.blocks[1], hand_on),
            (anatomy.blocks[3].get_submodule(attention), zeroed_output),
            (anatomy.blocks[4].get_submodule(ffn), zeroed_output),
        ):
            hooks.callback(module.register_forward_hook(hook).remove)
        return model(input_ids=ids_BT, use_cache=False).logits


def token_by_token(model, ids_BT):
    """Logits with the KV cache, and the cache."""
    parts, cache = [], None
    for ids in [ids_BT[:, :5], *ids_BT[:, 5:].split(1, dim=1)]:
        output = model(input_ids=ids, past_key_values=cache, use_cache=True)
        cache = output.past_key_values
        parts.append(output.logits)
    return torch.cat(parts, dim=1), cache


def generated(model, ids_BT, use_cache):
    return model.generate(
        ids_BT, attention_mask=torch.ones_like(ids_BT), max_new_tokens=12, min_new_tokens=12, do_sample=False,
        use_cache=use_cache, pad_token_id=0,
    )  # fmt: skip


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_our_own_type(name, tmp_path):
    with quiet():
        save_tiny(name, tmp_path / "m")
    ids_BT = torch.randint(3, 96, (2, 20), generator=torch.Generator().manual_seed(1))
    expected_BTV = reference(name, tmp_path / "m", ids_BT)
    manifest = cut_to(tmp_path / "m", tmp_path / "out")
    model = loaded(tmp_path / "out")
    assert model.config.model_type == "shortlm" and manifest.last_cut.form == "shortlm"
    assert manifest.plan.parameters_after == sum(p.numel() for p in model.parameters())
    assert torch.allclose(model(input_ids=ids_BT, use_cache=False).logits, expected_BTV, atol=2e-5)
    logits_BTV, cache = token_by_token(model, ids_BT)
    assert torch.allclose(logits_BTV, expected_BTV, atol=1e-4)
    assert len(cache.layers) == 4 and all(layer.keys.numel() for layer in cache.layers)  # of 5 blocks
    assert torch.equal(generated(model, ids_BT, True), generated(model, ids_BT, False))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_zeroed(name, tmp_path):
    with quiet():
        save_tiny(name, tmp_path / "m")
    ids_BT = torch.randint(3, 96, (2, 20), generator=torch.Generator().manual_seed(1))
    expected_BTV = reference(name, tmp_path / "m", ids_BT)
    manifest = cut_to(tmp_path / "m", tmp_path / "out", form="zeroed")
    model = loaded(tmp_path / "out")
    assert model.config.model_type == name and manifest.last_cut.form == "zeroed"
    assert manifest.plan.parameters_after == sum(p.numel() for p in model.parameters())
    assert torch.allclose(model(input_ids=ids_BT, use_cache=False).logits, expected_BTV, atol=2e-5)


@pytest.mark.parametrize("name", ["llama", "mixtral", "qwen3_moe", "gpt2", "gemma2", "opt"])
def test_from_disk(name, tmp_path):
    with quiet():
        save_tiny(name, tmp_path / "m")
    check = cut_to(tmp_path / "m", tmp_path / "out", stream="on").equivalence
    assert check.streamed and check.max_abs_difference <= 1e-5
