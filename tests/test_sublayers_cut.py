"""Checkpoints without some attentions and FFNs: every form computes what the original computes with these at zero."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from contextlib import ExitStack

import pytest
import torch
from architectures import ARCHITECTURES, save_tiny
from transformers import AutoModelForCausalLM, LlamaConfig
from typer.testing import CliRunner

from shortlm.checkpoint import read_header
from shortlm.cli import app
from shortlm.cut import cut
from shortlm.cut.nemotron import nemotron_config
from shortlm.errors import ModelError, PlanError
from shortlm.model import find_anatomy, meta_model, open_model, quiet
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
    name = "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"  # of transformers
    parts, cache = [], None
    for ids in [ids_BT[:, :5], *ids_BT[:, 5:].split(1, dim=1)]:
        output = model(input_ids=ids, use_cache=True, **({name: cache} if parts else {}))
        cache = output[name]
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


# --- which form says what


def test_plain_checkpoints_have_whole_blocks(llama_folder, tmp_path):
    told = r"3\.attention, 4\.ffn can't be left out of a plain llama checkpoint; give --as shortlm .*, --as zeroed"
    with pytest.raises(PlanError, match=told) as error:
        cut_to(llama_folder, tmp_path / "out", form="plain")
    assert len(str(error.value).splitlines()) == 1 and not (tmp_path / "out").exists()
    for form in ("auto", "plain", "shortlm", "nemotron-nas", "zeroed"):
        manifest = cut_to(llama_folder, tmp_path / form, [1], form=form)
        assert manifest.last_cut.form == "plain" and loaded(tmp_path / form).config.model_type == "llama"


def test_the_command_says_what_it_has_written(llama_folder, tmp_path):
    command = ["cut", "-m", str(llama_folder), "--remove", "1,3.attention,4.ffn", "-o", str(tmp_path / "out")]
    done = CliRunner().invoke(app, [*command, "--as", "plain"])
    assert done.exit_code == 2 and "can't be left out of a plain llama checkpoint" in done.output
    done = CliRunner().invoke(app, [*command, "--as", "zeroed"])
    assert done.exit_code == 0
    assert "zeroed: loads everywhere, and is as large and as slow as with them" in done.output
    done = CliRunner().invoke(app, [*command, "--force"])
    assert "without 3.attention, 4.ffn of these; of our own type 'shortlm'" in done.output
    count = sum(p.numel() for p in loaded(tmp_path / "out").parameters())
    assert f"-> {count:,}" in done.output


def test_a_block_that_would_be_empty_goes_as_a_whole(llama_folder, tmp_path):
    manifest = cut_to(llama_folder, tmp_path / "out", [Unit(2, "attention"), Unit(2, "ffn")])
    assert manifest.plan.removed == [2] and manifest.last_cut.form == "plain" and manifest.blocks == [0, 1, 3, 4, 5]
    everything = [Unit(i, part) for i in range(6) for part in ("attention", "ffn")]
    with pytest.raises(PlanError, match="all 6 blocks would be empty; at least one has to stay"):
        cut_to(llama_folder, tmp_path / "none", everything)
    with pytest.raises(PlanError, match="no block would have attention; keep that of one block"):
        cut_to(llama_folder, tmp_path / "none", [Unit(i, "attention") for i in range(6)])


@pytest.mark.parametrize("name", ["llama", "gemma2", "qwen3", "mistral"])
def test_the_first_attention_may_go_too(name, tmp_path):
    """Caches are numbered by the attentions that stay, so their length is read from one that is there."""
    with quiet():
        save_tiny(name, tmp_path / "m")
    cut_to(tmp_path / "m", tmp_path / "out", [Unit(0, "attention"), Unit(1, "attention")])
    model, ids_BT = loaded(tmp_path / "out"), torch.randint(3, 96, (2, 30))
    logits_BTV, cache = token_by_token(model, ids_BT)
    assert torch.allclose(logits_BTV, model(input_ids=ids_BT, use_cache=False).logits, atol=1e-4)
    assert cache.get_seq_length() == 30 and len(cache.layers) == 4


def test_a_cut_of_a_cut(llama_folder, tmp_path):
    cut_to(llama_folder, tmp_path / "first")  # 0, 2, 3 without attention, 4 without FFN, 5
    second = cut_to(tmp_path / "first", tmp_path / "second", [Unit(0), Unit(1, "ffn"), Unit(2, "ffn")])
    assert second.blocks == [2, 4, 5] and second.left_out == [Unit(2, "ffn"), Unit(4, "ffn")]
    model = loaded(tmp_path / "second")
    assert set(model.config.left_out) == {"0", "1"} and second.equivalence.max_abs_difference <= 1e-5
    third = cut_to(tmp_path / "second", tmp_path / "third", [Unit(0), Unit(1)])
    assert third.last_cut.form == "plain" and loaded(tmp_path / "third").config.model_type == "llama"
    with pytest.raises(PlanError, match="block 2 has no attention that can be told apart"):
        cut_to(tmp_path / "first", tmp_path / "no", [ATTENTION._replace(block=2)])
    with pytest.raises(PlanError, match=r"the weights of 2\.attention, 3\.ffn are gone, so zeroed can't be"):
        cut_to(tmp_path / "first", tmp_path / "no", [Unit(0, "ffn")], form="zeroed")


@pytest.mark.parametrize(
    "left_out",
    [None, [], {"x": {}}, {"0": []}, {"0": {"attention": []}}, {"0": {"head": {"mlp": 1}}}, {"9" * 99: {}},
     {"0": {"ffn": {"mlp": -1}}}, {"0": {"ffn": {"mlp": True}}}, {"0": {"ffn": {"no": 1}}},
     {"77": {"ffn": {"mlp": 1}}}],
)  # fmt: skip
def test_a_config_that_makes_no_sense_is_one_line(llama_folder, tmp_path, left_out):
    cut_to(llama_folder, tmp_path / "out")
    fields = json.loads((tmp_path / "out" / "config.json").read_bytes())
    (tmp_path / "out" / "config.json").write_text(json.dumps(fields | {"left_out": left_out}))
    with pytest.raises(ModelError, match="left_out: ") as error:
        open_model(ModelSettings(model=str(tmp_path / "out")))
    assert len(str(error.value).splitlines()) == 1


def test_another_base_type_is_refused(llama_folder, tmp_path):
    cut_to(llama_folder, tmp_path / "out")
    text = (tmp_path / "out" / "config.json").read_text()
    for other in ('"vit"', '"shortlm"', "[1]", '"no such"'):
        (tmp_path / "out" / "config.json").write_text(
            text.replace('"base_model_type": "llama"', f'"base_model_type": {other}')
        )
        with pytest.raises(ModelError, match="is no causal LM that transformers knows"):
            open_model(ModelSettings(model=str(tmp_path / "out")))


# --- nemotron-nas


def nemotron(tmp_path, units=UNITS, name="llama", **changes):
    with quiet():
        save_tiny(name, tmp_path / "m", **({"intermediate_size": 256} | changes))
    cut_to(tmp_path / "m", tmp_path / "out", units, form="nemotron-nas")
    return tmp_path / "out"


def test_nemotron_says_what_each_block_has(tmp_path):
    folder = nemotron(tmp_path)
    fields = json.loads((folder / "config.json").read_bytes())
    assert fields["model_type"] == "nemotron-nas" and fields["architectures"] == ["DeciLMForCausalLM"]
    assert [b["attention"]["no_op"] for b in fields["block_configs"]] == [False, False, True, False, False]
    assert [b["ffn"]["no_op"] for b in fields["block_configs"]] == [False, False, False, True, False]
    published = {"n_heads_in_group", "no_op", "num_sink_tokens", "replace_with_linear", "sparsify", "unshifted_sink",
                 "use_prefill_window_in_sink_attention", "window_length"}  # fmt: skip
    for block in fields["block_configs"]:
        assert block.keys() == {"attention", "ffn"} and block["attention"].keys() == published
        assert block["ffn"].keys() == {"ffn_mult", "no_op", "replace_with_linear", "sparsify"}
        assert block["attention"]["n_heads_in_group"] == (None if block["attention"]["no_op"] else 2)
    assert fields["rope_theta"] == 10000.0 and fields["num_hidden_layers"] == 5


def test_nemotron_holds_just_the_tensors_of_these_blocks(tmp_path):
    """As vLLM builds them: no norm where there is nothing behind it."""
    folder = nemotron(tmp_path)
    names = set(read_header(folder / "model.safetensors"))
    for i, block in enumerate(json.loads((folder / "config.json").read_bytes())["block_configs"]):
        inside = {n.removeprefix(f"model.layers.{i}.").split(".")[0] for n in names if f".layers.{i}." in n}
        attention, ffn = {"self_attn", "input_layernorm"}, {"mlp", "post_attention_layernorm"}
        assert inside == (set() if block["attention"]["no_op"] else attention) | (
            set() if block["ffn"]["no_op"] else ffn
        )


def test_nemotrons_config_has_attributes(tmp_path):
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(nemotron(tmp_path), trust_remote_code=True)
    assert config.block_configs[2].attention.no_op and not config.block_configs[2].ffn.no_op
    assert not hasattr(config.block_configs[0].ffn, "intermediate_size")
    config.save_pretrained(tmp_path / "again")
    written = json.loads((tmp_path / "again" / "config.json").read_bytes())
    assert written["block_configs"] == json.loads((tmp_path / "out" / "config.json").read_bytes())["block_configs"]


@pytest.mark.parametrize(
    ("hidden", "width"), [(4096, 11008), (4096, 14336), (8192, 28672), (2048, 8192), (5120, 13824)]
)
def test_engines_compute_the_width_of_the_ffn(hidden, width):
    config = LlamaConfig(hidden_size=hidden, intermediate_size=width, num_hidden_layers=1)
    multiplier = nemotron_config("m", config, meta_model(config), {})["block_configs"][0]["ffn"]["ffn_mult"]
    computed = int(2 * round(multiplier, 6) * hidden / 3)
    assert -(-computed // 256) * 256 == width


NOT_NEMOTRON = {
    "qwen3": ({"use_sliding_window": False, "layer_types": None}, "a qwen3 is no Llama"),
    "llama": ({"attention_bias": True}, "it has self_attn.k_proj.bias"),
    "mistral": ({}, "its attention slides"),
}


@pytest.mark.parametrize("name", NOT_NEMOTRON)
def test_others_are_no_nemotron(name, tmp_path):
    changes, reason = NOT_NEMOTRON[name]
    with pytest.raises(ModelError, match=rf"can't be written as nemotron-nas \({reason}\); give --as shortlm"):
        nemotron(tmp_path, name=name, **changes)


def test_what_nemotron_can_not_say(tmp_path):
    with pytest.raises(ModelError, match="its FFN is 48 wide, which nemotron-nas can't say"):
        nemotron(tmp_path, intermediate_size=48)
    with pytest.raises(PlanError, match="the first block that stays has to keep its attention in a nemotron-nas"):
        nemotron(tmp_path, [Unit(0), Unit(1, "attention")])


# --- registered in any order


@pytest.mark.parametrize(
    "code",
    [
        "import shortlm; assert not {'torch', 'transformers'} & set(sys.modules); import transformers",
        "import transformers; import shortlm",
        "from transformers import AutoModelForCausalLM; import shortlm",
        "import shortlm; from transformers.models.auto import configuration_auto; import transformers",
    ],
)
def test_registered_in_any_order(llama_folder, tmp_path, code):
    cut_to(llama_folder, tmp_path / "out", verify=False)
    code = f"import sys; {code}; m = transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1]); " + (
        "print(type(m).__name__, m.config.model_type)"
    )
    code = code if "import transformers" in code else code.replace("import shortlm", "import shortlm, transformers")
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "out")], capture_output=True, text=True)
    assert done.stdout == "ShortLlamaForCausalLM shortlm\n", done.stderr


def test_transformers_alone_fails_loudly(llama_folder, tmp_path):
    cut_to(llama_folder, tmp_path / "out", verify=False)
    code = (
        "import sys; from transformers import AutoModelForCausalLM; AutoModelForCausalLM.from_pretrained(sys.argv[1])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "out")], capture_output=True, text=True)
    assert done.returncode == 1 and "model type `shortlm`" in done.stderr
