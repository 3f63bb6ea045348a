"""What reports say of sublayers (their scores, plans without them) and of how well criteria agree."""

from __future__ import annotations

import re

import pytest
from made_by_hand import block_scores, manifest
from scipy.stats import kendalltau
from searches_by_hand import (
    drawn,
    one_set,
    searched_plan,
    sections,
    trails,
    unit_scores,
    words,
)  # fmt: skip

from shortlm.report import Evidence, model_card
from shortlm.report.agreement import comparable, tau_matrix
from shortlm.report.headline import headline, key_figures
from shortlm.report.units import sublayers, unit_name, units_text
from shortlm.statistics import kendall_tau
from shortlm.units import Unit


def test_the_matrix_is_kendalls_tau_of_every_two_criteria(tmp_path):
    scores = block_scores(blocks=16)
    specs = comparable(scores)
    matrix = tau_matrix(scores, specs)
    for i, a in enumerate(specs):
        for j, b in enumerate(specs):
            plain = kendalltau(scores.criteria[a].scores, scores.criteria[b].scores).statistic
            assert matrix[i][j] == pytest.approx(plain)
    whole = drawn(tmp_path, plan=searched_plan(16), scores=scores)
    svg = re.findall(r'<svg class="chart" id="agreement-chart".*?</svg>', whole, re.DOTALL)[0]
    assert svg.count(f">{matrix[0][4]:.2f}<".replace("-", "−")) >= 2
    assert "as the measured losses do with a tau of 0.71" in words(whole)


def test_equal_scores_have_no_tau():
    assert kendall_tau([1.0, 1.0], [1.0, 2.0]) is None and kendall_tau([1.0, 2.0, 3.0], [3.0, 2.0, 1.0]) == -1.0
    scores = block_scores()
    scores.criteria["magnitude"].scores = [1.0] * 12
    assert tau_matrix(scores, comparable(scores))[4][0] is None


def test_criteria_of_a_race_are_not_compared():
    from test_raced_report import raced

    assert comparable(raced()) == [] and comparable(None) == []


def test_an_estimate_alone_is_told(tmp_path):
    text = drawn(tmp_path, plan=searched_plan(16))
    assert "agreement" in sections(text) and "agreement-chart" not in text


def test_scores_of_sublayers_have_a_panel_each(tmp_path):
    scores, plan = unit_scores(), searched_plan(16, trails(16)[:4])
    text = drawn(tmp_path, scores=scores, plan=plan)
    assert len(re.findall(r'<g id="scores-0-block-\d+-attention">', text)) == 16
    assert len(re.findall(r'<g id="scores-0-block-\d+-ffn">', text)) == 16
    svg = re.findall(r'<svg class="chart" id="scores-0".*?</svg>', text, re.DOTALL)[0]
    assert svg.count(">attention<") == svg.count(">FFN<") == 1
    gone = sublayers(plan.units)
    removed = set(re.findall(r"<title>(\S+), removed: ", svg))
    assert removed == {str(u) for u in scores.units if u in gone} and removed
    i = min(range(32), key=scores.criteria["ppl"].scores.__getitem__)
    assert f"at {unit_name(scores.units[i])}, highest" in svg
    order = re.findall(r'<td class="order">(.*?)</td>', text, re.DOTALL)[0]
    assert re.findall(r">(\d+\.\w+)<", order)[0] == str(scores.units[i])


def test_the_plan_lists_sublayers_and_marks_their_blocks(tmp_path):
    plan = searched_plan(16, trails(16)[:4])
    text = drawn(tmp_path, plan=plan)
    assert f"Sublayers removed {units_text(plan.removed_sublayers)} " in words(text)
    states = re.findall(r'<li class="(\w+)" title="block (\d+): ([\w ]+)"', text)
    partly = {int(i): what for state, i, what in states if state == "partly"}
    names = {"attention": "attention removed", "ffn": "FFN removed"}
    assert partly == {u.block: names[u.part] for u in plan.removed_sublayers}
    assert [int(i) for state, i, _ in states if state == "removed"] == plan.removed


def test_the_headline_counts_sublayers():
    plan = searched_plan(16, [one_set("a", [Unit(4), Unit(5, "attention"), Unit(6, "ffn"), Unit(7, "ffn")], 2.5)])
    known = Evidence("T", plan=plan)
    assert headline(known).startswith("1 of 16 blocks, 1 attention and 2 FFN layers removed: ")
    figures = {f.name: (f.before, f.after) for f in key_figures(known)}
    assert figures["Blocks"] == ("16", "15")
    assert figures["Attention layers"] == ("16", "14") and figures["FFN layers"] == ("16", "13")
    alone = searched_plan(16, [one_set("a", [Unit(5, "ffn")], 2.5)])
    assert headline(Evidence("T", plan=alone)).startswith("1 FFN layer removed: ")


def test_units_are_written_blocks_first():
    assert units_text([Unit(7, "ffn"), Unit(3), Unit(4), Unit(1, "attention")]) == "3, 4; attention 1; FFN 7"
    assert units_text([Unit(7, "ffn"), Unit(7, "attention")]) == "7" and units_text([]) == "none"


def test_the_card_lists_sublayers():
    cut = manifest()
    cut.steps[-1].plan.removed_sublayers = [Unit(3, "ffn")]
    text = model_card(Evidence("t", manifest=cut))
    assert "| Removed sublayers | FFN 3 |" in text and "4 of 12 Transformer blocks and 1 attention or FFN layer" in text
