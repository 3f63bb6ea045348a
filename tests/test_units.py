"""Units: their grammar, plans that name them, and blocks without their attention or their FFN."""

from __future__ import annotations

import json

import pytest
import torch
from architectures import BLOCKS, COMMON, tiny_model
from torch.utils.flop_counter import FlopCounterMode

from shortlm.artifacts import CutPlan, ModelFacts
from shortlm.cut import cut
from shortlm.errors import ModelError, PlanError, ShortLMError
from shortlm.model import find_anatomy
from shortlm.model.opening import facts_of
from shortlm.plans import plan_by_hand
from shortlm.recipe import CutSettings, ModelSettings
from shortlm.sweep import BlockCaller, sweep
from shortlm.sweep.decisions import DROP, KEEP, WITHOUT_ATTENTION, WITHOUT_FFN, path_of
from shortlm.units import Unit, blocks_mask, check_units, protected_blocks, protected_units, unit_list

IDS_BT = torch.randint(3, 96, (3, 16), generator=torch.Generator().manual_seed(1))
ALL_BT = torch.ones_like(IDS_BT, dtype=torch.bool)


def test_lists_of_units_are_read_and_written_back():
    units = unit_list("21-22, 12.attention,3-4.ffn,-1", "x")
    assert [str(unit) for unit in units] == ["21", "22", "12.attention", "3.ffn", "4.ffn", "-1"]
    assert check_units(units, 30) == [
        Unit(3, "ffn"), Unit(4, "ffn"), Unit(12, "attention"), Unit(21), Unit(22), Unit(29)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("3.mlp", "--remove: '3.mlp' is no block index, and no attention or ffn of one; give a list as 3,7-9 or"),
        ("7-3", "--remove: '7-3' is no block index"),
        (" , ", "--remove: no blocks given"),
        ("3.", "--remove: '3.' is no block index"),
        ("0-9999,0-9999,0-9999,0-9999", "names more than 30,000 units"),
    ],
)
def test_lists_that_are_none(text, message):
    with pytest.raises(PlanError) as caught:
        unit_list(text, "--remove")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("3.ffn,-3.ffn", "x: 3.ffn is given twice"),
        ("3,3.ffn", "x: 3.ffn is part of block 3, which is given too"),
        ("6.ffn", "x: 6.ffn is out of range; the model has blocks 0..5"),
        ("0-5", "x: all 6 blocks; at least one has to stay"),
    ],
)
def test_units_that_a_model_does_not_have(text, message):
    with pytest.raises(PlanError, match=message):
        check_units(unit_list(text, "x"), 6, "x")


def test_a_block_with_a_protected_sublayer_stays():
    assert protected_units("1,4.ffn", 6) == [Unit(1), Unit(4, "ffn")]
    assert protected_blocks("1,4.ffn", 6) == [1, 4]


def test_paths():
    assert path_of(frozenset(unit_list("0,1.attention,2.ffn,3.attention,3.ffn", "x")), 5) == bytes(
        [DROP, WITHOUT_ATTENTION, WITHOUT_FFN, DROP, KEEP]
    )
    with pytest.raises(IndexError):
        path_of(blocks_mask([5]), 5)


def test_plans_name_sublayers_and_count_their_parameters(tmp_path):
    model = tiny_model("llama")
    facts = facts_of(model, "m")
    plan = plan_by_hand(facts, unit_list("3,-1.attention,2.ffn", "x"))
    assert (plan.removed, plan.removed_sublayers) == ([3], [Unit(2, "ffn"), Unit(5, "attention")])
    assert plan.kept == [0, 1, 2, 4, 5]
    assert plan.budget == "1 blocks and 2 sublayers"
    gone = [model.model.layers[3], model.model.layers[2].mlp, model.model.layers[5].self_attn]
    expected = facts.parameters - sum(p.numel() for module in gone for p in module.parameters())
    assert plan.parameters_after == expected
    path = plan.save(tmp_path / "plan.json")
    assert json.loads(path.read_text())["removed_sublayers"] == ["2.ffn", "5.attention"]
    assert CutPlan.load(path) == plan
    assert plan.units == [Unit(3), Unit(2, "ffn"), Unit(5, "attention")]


@pytest.mark.parametrize("given", ["3.mlp", "3", "99999.ffn", 3, ["3.ffn"], "3.ffn,4.ffn"])
def test_plans_with_other_things_for_sublayers(tmp_path, given):
    plan = plan_by_hand(facts_of(tiny_model("llama"), "m"), [1])
    (tmp_path / "p.json").write_text(json.dumps(plan.model_dump(mode="json") | {"removed_sublayers": [given]}))
    with pytest.raises(ShortLMError, match=r"removed_sublayers.0: .*must be .*the attention or ffn of"):
        CutPlan.load(tmp_path / "p.json")


@pytest.mark.parametrize("given", [["1.ffn"], ["3.ffn", "2.ffn"], ["3.ffn", "3.ffn"], ["6.ffn"]])
def test_plans_with_sublayers_that_cannot_be(tmp_path, given):
    plan = plan_by_hand(facts_of(tiny_model("llama"), "m"), [1])
    (tmp_path / "p.json").write_text(json.dumps(plan.model_dump(mode="json") | {"removed_sublayers": given}))
    with pytest.raises(ShortLMError, match="must be different sublayers, in order, of blocks that stay"):
        CutPlan.load(tmp_path / "p.json")


def test_sublayers_of_facts_that_do_not_know_them():
    facts = ModelFacts(name="m", architecture="x", n_blocks=2, block_parameters=[5, 5], parameters=12)
    with pytest.raises(PlanError, match=r"m: block 1 has no ffn that can be told apart; only whole blocks"):
        plan_by_hand(facts, [Unit(1, "ffn")])


def test_a_plain_checkpoint_cannot_leave_sublayers_out(tmp_path):
    message = r"embedded: 2.attention, 4.ffn can't be left out of a plain llama checkpoint; give --as shortlm"
    with pytest.raises(PlanError, match=message):
        cut(ModelSettings(), unit_list("1,4.ffn,2.attention", "x"), CutSettings(form="plain"), tmp_path / "out")
    assert not list(tmp_path.iterdir())


def losses_of(model, text):
    caller = BlockCaller(model, find_anatomy(model))
    return sweep(caller, [(IDS_BT, ALL_BT)], [frozenset(unit_list(text, "x"))], check=0)


def test_a_module_that_adds_to_the_residual_itself_hands_it_on():
    """BLOOM: attention and FFN are given the residual."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.for_model("bloom", hidden_size=32, n_layer=4, n_head=4, vocab_size=96)
    model = AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.05)
    found = float(losses_of(model, "1.attention,2.ffn").nats_MS.sum())
    first, second = model.transformer.h[1], model.transformer.h[2]
    first.self_attention.dense.weight.zero_(), first.self_attention.dense.bias.zero_()
    second.mlp.dense_4h_to_h.weight.zero_(), second.mlp.dense_4h_to_h.bias.zero_()
    logits_BTV = model(input_ids=IDS_BT).logits
    expected = torch.nn.functional.cross_entropy(
        logits_BTV[:, :-1].flatten(0, 1), IDS_BT[:, 1:].flatten(), reduction="sum"
    )
    assert found == pytest.approx(float(expected), rel=1e-5)


def test_blocks_that_change_their_input_otherwise_are_refused():
    """OPT with its norms behind the additions: without both branches the residual stream is normed all the same."""
    model = tiny_model("opt", do_layer_norm_before=False)
    with pytest.raises(ModelError, match="OPTDecoderLayer: changes its input without attention and FFN too"):
        losses_of(model, "1.ffn")


def test_blocks_without_attention_are_refused_before_any_work():
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(
        "mamba", **{k: v for k, v in COMMON.items() if "heads" not in k}, intermediate_size=64
    )
    model = AutoModelForCausalLM.from_config(config).eval()
    caller = BlockCaller(model, find_anatomy(model))
    with pytest.raises(ModelError, match="MambaBlock: has no ffn that can be told apart in block 1"):
        sweep(caller, [(IDS_BT, ALL_BT)], [frozenset({Unit(1, "ffn")})])
    assert caller.forwards == 0


@pytest.mark.parametrize(("part", "sublayer"), [("attention", "mlp"), ("ffn", "self_attn")])
def test_what_is_left_out_costs_nothing(part, sublayer):
    """Of a block, only the products of the other sublayer are computed."""
    model = tiny_model("llama")
    caller = BlockCaller(model, find_anatomy(model))
    batch = caller.prepare(IDS_BT, ALL_BT)
    decision = WITHOUT_ATTENTION if part == "attention" else WITHOUT_FFN
    with torch.no_grad():
        caller(2, batch.h_BTD, batch, decision)  # finds out what the modules return
        with FlopCounterMode(display=False) as without:
            caller(2, batch.h_BTD, batch, decision)
        with FlopCounterMode(display=False) as whole:
            caller(2, batch.h_BTD, batch)
    of_other = sum(whole.get_flop_counts()[f"LlamaDecoderLayer.{sublayer}"].values())
    assert 0 < without.get_total_flops() == of_other < whole.get_total_flops()


def test_the_model_is_left_as_it_was():
    model = tiny_model("gemma2")
    losses_of(model, "0-2.attention,3.ffn")
    assert not any("forward" in vars(module) or module._forward_hooks for module in model.modules())
    assert len(model.model.layers) == BLOCKS
