"""Budgets, protection, one-shot and contiguous choices, published orders and counts."""

from __future__ import annotations

import json

import pytest

from shortlm.artifacts import BlockScores, CriterionScores, ModelFacts, provenance
from shortlm.choose import choose, plan_by_hand, published_names, published_scores
from shortlm.errors import PlanError
from shortlm.recipe import ChooseSettings
from shortlm.units import protected_blocks

SCORES = [9.0, 8, 7, 6, 1, 3, 2, 3, 5, 4, 0.5, 0.1]


def block_scores(scores=SCORES, sizes=None, **criterion):
    sizes = sizes or [100] * len(scores)
    model = ModelFacts(
        name="m", architecture="llama", n_blocks=len(scores), block_parameters=sizes, parameters=sum(sizes) + 800
    )
    return BlockScores(
        model=model, criteria={"ppl": CriterionScores(scores=scores, unit="u", **criterion)}, provenance=provenance()
    )


def removed(scores=None, **settings):
    return choose(scores or block_scores(), ChooseSettings(**settings)).removed


def test_one_shot_takes_the_lowest_unprotected():
    assert removed(blocks=3) == [4, 5, 6]
    assert removed(blocks=3, protect="none") == [4, 10, 11]
    assert removed(blocks=1, protect="last") == [10]
    assert removed(blocks=2, protect="4,-1,10") == [5, 6]


def test_ties_go_to_the_lower_index():
    assert removed(block_scores([1.0] * 12), blocks=2) == [4, 5]


def test_budgets():
    assert len(removed(drop="25%")) == 3
    assert len(removed(drop="0.25")) == 3
    assert len(removed(drop="30%")) == 4  # 3.6: the nearest
    assert len(removed(drop_params="20%")) == 4  # 400 of 2000
    assert len(removed(to_params="1700")) == 3
    assert len(removed(to_params="1.65k")) == 4  # at most


def test_uneven_blocks_count_by_their_size():
    sizes = [100] * 4 + [10, 300, 20, 100, 100, 100, 100, 100]
    assert removed(block_scores(sizes=sizes), to_params="1,900") == [4, 5, 6]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "no budget; give one of --blocks 6, --drop 25%"),
        ({"blocks": 1, "drop": "5%"}, "several budgets (blocks, drop)"),
        ({"drop": "25"}, "--drop 25: a share between 0 and 100% is needed"),
        ({"drop": "x%"}, "--drop x%: a share"),
        ({"drop": "1.2.3%"}, "--drop 1.2.3%: a share"),
        ({"to_params": "many"}, "--to-params many: a parameter count is needed"),
        ({"blocks": 7}, "budget '7 blocks' can't be met: it needs more blocks than may go (6 of 12 may go); "),
        ({"blocks": 7}, "the closest is --blocks 6, which leaves 1,400 of 2,000 parameters"),
        ({"blocks": 0}, "it removes no block"),
        ({"drop": "1%"}, "the closest is --blocks 1, which leaves 1,900 of 2,000 parameters"),
        ({"to_params": "1000"}, "the closest is --blocks 6, which leaves 1,400"),
        ({"blocks": 2, "protect": "0-11"}, "--protect: all 12 blocks; at least one has to stay"),
        ({"blocks": 2, "protect": "0,99"}, "--protect: 99 is out of range"),
        ({"blocks": 2, "protect": "9-0"}, "--protect: '9-0' is no block index"),
        ({"blocks": 2, "protect": ""}, "--protect: no blocks given"),
        ({"blocks": 2, "protect": "some"}, "--protect: 'some' is no block index"),
        ({"blocks": 2, "criterion": "pl"}, "criterion 'pl' was not scored; did you mean 'ppl'?"),
    ],
)  # fmt: skip
def test_bad_budgets(settings, message):
    with pytest.raises(PlanError) as error:
        removed(**settings)
    assert message in str(error.value)


def test_small_models_may_be_all_protected():
    with pytest.raises(PlanError, match=r"all 5 blocks are protected; give fewer with --protect"):
        removed(block_scores([1.0] * 5), blocks=1)


def test_contiguous_by_mean_and_by_table():
    assert removed(method="contiguous", blocks=3) == [4, 5, 6]
    assert removed(method="contiguous", blocks=3, protect="none") == [9, 10, 11]
    table = [[1.0] * (12 - n) for n in range(12)]
    table[2][5] = 0.5
    assert removed(block_scores(table=table), method="contiguous", blocks=3) == [5, 6, 7]
    with pytest.raises(PlanError, match=r"closest is --blocks 6"):
        removed(method="contiguous", blocks=7)


def test_contiguous_budgets_count_the_run_that_goes():
    """Blocks of two sizes: what is cheap to remove must not pass for what is large."""
    scores = block_scores([0.9] * 4 + [0.1] * 4, sizes=[100] * 4 + [10] * 4)  # 1240 with what stands outside
    plan = choose(scores, ChooseSettings(method="contiguous", protect="none", to_params="1040"))
    assert (plan.removed, plan.parameters_after) == ([0, 1], 1040)
    near = choose(scores, ChooseSettings(method="contiguous", protect="none", drop_params="20%"))
    assert abs(1240 - near.parameters_after - 248) <= 52


def test_shares_are_rounded_half_up():
    for blocks, quarter in {6: 2, 10: 3, 14: 4, 18: 5, 30: 8}.items():
        assert len(removed(block_scores([1.0] * blocks), drop="25%", protect="none")) == quarter


def test_contiguous_respects_where_pruneme_starts():
    table = [[0.0] + [1.0] * (11 - n) for n in range(12)]
    scores = block_scores(table=table, options={"first_start": 1})
    assert removed(scores, method="contiguous", blocks=2, protect="none") == [1, 2]


def test_agreement_over_resamples():
    sure = [[float(s)] * 6 for s in SCORES]
    weights = [1 / 6] * 6
    assert choose(block_scores(per_sequence=sure, weights=weights), ChooseSettings(blocks=3)).agreement == 1
    # blocks 5 and 7 tie at 3; which one is lower depends on which sequences are drawn
    unsure = [list(row) for row in sure]
    unsure[5] = [0.0, 6.0] * 3
    agreement = choose(block_scores(per_sequence=unsure, weights=weights), ChooseSettings(blocks=3)).agreement
    assert 0.2 < agreement < 0.9


def test_protection_rules():
    assert protected_blocks("+", 32) == [0, 1, 2, 3, 30, 31]
    assert protected_blocks("ends", 32) == [0, 31]
    assert protected_blocks("+", 5) == [0, 1, 2, 3, 4]


def test_plan_by_hand():
    plan = plan_by_hand(block_scores().model, [-1, 3])
    assert (plan.removed, plan.kept, plan.parameters_after) == ([3, 11], [0, 1, 2, 4, 5, 6, 7, 8, 9, 10], 1800)
    with pytest.raises(PlanError, match="no blocks to remove"):
        plan_by_hand(block_scores().model, [])


@pytest.mark.parametrize(
    ("name", "blocks", "after"),
    [("llama-1-7b/taylor", 6, 5_524_115_456), ("vicuna-13b-v1.3/taylor", 8, 10_478_228_480)],
)
def test_published_counts(name, blocks, after):
    plan = choose(published_scores(name), ChooseSettings(blocks=blocks))
    assert plan.parameters_after == after


def test_published_removal_of_llama_7b():
    plan = choose(published_scores("llama-1-7b/taylor"), ChooseSettings(blocks=6))
    assert plan.removed == [24, 25, 26, 27, 28, 29]
    assert plan.model.block_parameters[0] == 202_383_360


def test_counts_come_out_of_configs_alone(tmp_path):
    from shortlm.model import facts_from_config
    from shortlm.recipe import ModelSettings

    for hidden, width, blocks, name in [(4096, 11008, 32, "llama-1-7b/ppl"), (5120, 13824, 40, "vicuna-13b-v1.3/ppl")]:
        config = {"model_type": "llama", "hidden_size": hidden, "intermediate_size": width, "num_hidden_layers": blocks,
                  "num_attention_heads": hidden // 128, "vocab_size": 32000}  # fmt: skip
        (tmp_path / "config.json").write_text(json.dumps(config))
        facts = facts_from_config(ModelSettings(model=str(tmp_path)))
        published = published_scores(name).model
        assert (facts.parameters, facts.block_parameters) == (published.parameters, published.block_parameters)


def test_published_orders(shared):
    entries = json.loads((shared / "published_orders.json").read_text())["models"]
    names = [f"{model}/{criterion}" for model, entry in entries.items() for criterion in entry["criteria"]]
    assert names == published_names()
    for name in names:
        model, _, criterion = name.partition("/")
        assert published_scores(name).criteria[criterion].order() == entries[model]["criteria"][criterion]["order"]


def test_unknown_published_name():
    with pytest.raises(PlanError, match="did you mean 'llama-1-7b/taylor'"):
        published_scores("llama-7b/taylor")
