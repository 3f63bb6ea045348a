"""What the page, report.md and the tables say of a search; searches are made by hand."""

from __future__ import annotations

import json
import math
import re

import pytest
from made_by_hand import SCRIPT, Page, block_scores, page
from markdown_tables import tables
from pydantic import ValidationError
from searches_by_hand import (
    BASE,
    HELD_OUT_BASE,
    drawn,
    greedy,
    one_set,
    search,
    searched_plan,
    sections,
    sized,
    trails,
    words,
)  # fmt: skip

from shortlm.artifacts import CutPlan, Found, Trail
from shortlm.report import Evidence, write_markdown, write_page
from shortlm.report.results import result_rows
from shortlm.report.search import finer_gain, ways
from shortlm.report.search_charts import cost_chart, path_chart, size_chart
from shortlm.report.search_words import sentences
from shortlm.report.units import units_text
from shortlm.units import Unit

NAMES = ["one-shot bi", "one-shot ppl", "evolution", "greedy over attention and FFN", "greedy", "beam:width=4"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> str:
    return drawn(tmp_path_factory.mktemp("search"), plan=searched_plan(16), scores=block_scores(blocks=16))


def test_the_sections_are_there_and_their_charts_name_every_way(whole):
    assert sections(whole) == ["plan", "search", "choices", "path", "scores", "agreement", "runs", "provenance"]
    labels = {a["id"]: a["aria-label"] for tag, a in Page(whole).elements if tag == "svg"}
    for chart in ("by-removed", "by-forwards", "choices-map"):
        assert all(name in labels[chart] for name in NAMES)
    assert len(Page(whole).ids()) == len(set(Page(whole).ids()))


def test_a_plan_of_scores_has_none_of_them(tmp_path):
    assert not {"search", "choices", "path"} & set(sections(page(tmp_path)))


@pytest.mark.parametrize("blocks", [16, 32])
def test_pages_stay_small(blocks, tmp_path):
    text = drawn(tmp_path, plan=searched_plan(blocks))
    assert len(text) < 250_000 and "NaN" not in text and "None" not in words(text)


def test_the_chosen_set_stands_beside_the_whole_model(whole):
    last = searched_plan(16).search.trails[-1].found[-1]
    rise, said = last.held_out_nats - HELD_OUT_BASE, words(whole)
    assert f"the loss is {last.held_out_nats:.3f} nats per token without the chosen set and 2.455 with the" in said
    assert f"with the whole model: +{rise:.4f} ± {last.held_out_stderr:.4f}." in said


def test_how_sure_the_choice_is(whole):
    said = words(whole)
    assert (
        "is the best one in 63 % of 1,000 resamples of the text, among 240 sets; on average it is 0.0042 nats" in said
    )
    assert "above the best set of a resample (at most 0.013 in 95 % of them), and 88 % of its units are in that" in said


def test_what_is_sure_is_told_without_ways_too(tmp_path):
    text = drawn(tmp_path, plan=searched_plan(16).model_copy(update={"search": search(16, [])}))
    assert (
        sections(text) == ["plan", "search", "agreement", "provenance"] and "<table" not in text.split("agreement")[0]
    )
    assert "63 % of 1,000 resamples" in words(text)


def test_every_way_has_a_row(whole):
    said = words(whole)
    for trail in trails(16):
        last, rise = trail.found[-1], trail.found[-1].held_out_nats - HELD_OUT_BASE
        share = 100 * sum(map(sized(16).parameters_of, last.units)) / sized(16).parameters
        found = f"{share:.1f} % {last.nats:.3f} {last.held_out_nats:.3f} +{rise:.4f} ± {last.held_out_stderr:.4f} "
        assert f"{found}{trail.block_forwards:,}" in said
    assert said.count("beam:width=4 the plan") == 1


def test_what_finer_units_gain_is_the_difference_on_held_out_text():
    plan = searched_plan(32)
    chosen, fine = plan.search.trails[-1].found[-1], plan.search.trails[3].found[-1]
    gain, error = chosen.held_out_nats - fine.held_out_nats, math.hypot(chosen.held_out_stderr, fine.held_out_stderr)
    found = finer_gain(ways(plan))
    assert found.rise.nats == pytest.approx(gain) and found.rise.stderr == pytest.approx(error)
    verb, text = "gain" if gain >= 0 else "lose", sentences(plan)[-1].replace("\u00a0", " ")
    assert (
        f" alone, would {verb} {abs(gain):.4f} ± {error:.4f} nats per token on held-out text, which is within" in text
    )
    share = 100 * sum(map(sized(32).parameters_of, fine.units)) / sized(32).parameters
    assert f"greedy over attention and FFN leaves out {units_text(fine.units)} ({share:.1f} % of the param" in text


def test_a_finer_plan_is_compared_with_the_largest_set_of_whole_blocks():
    listed = trails(16)
    plan = searched_plan(16, [*listed[4:], listed[3]])
    chosen, whole = listed[3].found[-1], min((t.found[-1] for t in listed[4:]), key=lambda f: f.nats)
    gain, text = finer_gain(ways(plan)), sentences(plan)[-1].replace("\u00a0", " ")
    assert gain.planned and gain.rise.nats == pytest.approx(whole.held_out_nats - chosen.held_out_nats)
    verb = "gain" if gain.rise.nats >= 0 else "lose"
    assert f"alone, {verb} {abs(gain.rise.nats):.4f} ± " in text and "beside whole blocks" in text
    assert f"beam:width=4 leaves out {units_text(whole.units)} (23.4 % of the parameters; the plan 25.3 %)." in text


def test_a_clear_gain_is_not_called_noise_and_larger_models_are_no_rivals():
    block, fine = [Unit(5)], [Unit(4, "ffn"), Unit(5, "ffn")]
    listed = [
        one_set("f", fine, BASE + 0.01, 2.5),
        one_set("cheap", fine[:1], BASE, 2.4),
        one_set("b", block, 2.5, 2.6),
    ]
    plan = searched_plan(16, listed)
    gain = finer_gain(ways(plan))
    assert (gain.way, gain.rise.nats) == ("f", pytest.approx(0.1))
    assert "noise" not in sentences(plan)[-1]
    assert finer_gain(ways(searched_plan(16, listed[1:]))) is None  # it keeps more


def test_without_held_out_text_the_search_text_is_told(tmp_path):
    listed = [one_set("f", [Unit(4, "ffn"), Unit(5, "ffn")], 2.41), one_set("b", [Unit(5)], 2.5)]
    plan = searched_plan(16, listed, held_out=None, held_out_base_nats=None, certainty=None, estimate=None)
    text = drawn(tmp_path, plan=plan)
    assert sections(text) == ["plan", "search", "choices", "provenance"]
    assert "would gain 0.0900 ± 0.0028 nats per token on the text of the search: f leaves out FFN 4, 5 (7.8 %" in words(
        text
    )
    assert "Held-out" not in words(text) and "resamples" not in words(text)


def test_ways_of_one_size_have_one_point_and_growing_ones_a_line():
    found = {way.name: way for way in ways(searched_plan(16))}
    assert len(found["greedy"].by_size()) == len(found["greedy"].steps) == 4
    steps = found["evolution"].steps
    assert len(steps) > 1 and found["evolution"].by_size() == [min(steps, key=lambda s: s.seen.nats)]
    assert found["evolution"].final_size() == steps and len(found["greedy"].final_size()) == 1


def test_the_path_tells_what_changes_and_both_losses(whole):
    said, last = words(whole), searched_plan(16).search.trails[-1]
    before: set[Unit] = set()
    for number, found in enumerate(last.found, start=1):
        (new,) = set(found.units) - before
        rises = [(found.nats - BASE, found.stderr), (found.held_out_nats - HELD_OUT_BASE, found.held_out_stderr)]
        row = " ".join(f"+{rise:.4f} ± {error:.4f}" for rise, error in rises)
        assert f" {number} + {new} {row} {found.block_forwards:,} " in said
        before |= {new}


def test_long_paths_keep_their_table_short_and_say_what_is_put_back(tmp_path):
    sets = [[Unit(2 + n % 9)] for n in range(40)]
    found = [Found(units=u, nats=3 - n / 100, block_forwards=n) for n, u in enumerate(sets)]
    plan = searched_plan(16, [Trail(name="e", found=found, block_forwards=99)], held_out_base_nats=None)
    said = words(drawn(tmp_path, plan=plan))
    assert "The first 16 steps are in the chart only." in said and " 40 + 5, - 4 +0.2090 " in said
    assert "Nothing was held out" in said


def test_the_map_has_a_row_per_way_and_two_for_sublayers(whole):
    svg = re.findall(r'<svg class="chart" id="choices-map".*?</svg>', whole, re.DOTALL)[0]
    assert len(re.findall(r'<g id="choices-map-patch_', svg)) == 7 * 16 + 2  # six ways, one of two rows; backgrounds
    assert svg.count(">attention<") == 1 and "the plan: beam:width=4" in svg
    assert "FFN alone left out" in whole and "attention alone left out" not in whole


def test_texts_are_shown_and_never_run(tmp_path):
    listed = [one_set(SCRIPT, [Unit(4)], 2.5, 2.6), one_set(f"$x_{{1$ {SCRIPT}", [Unit(5)], 2.45, 2.5)]
    listed[0].found.append(listed[0].found[0])
    plan = searched_plan(16, listed, notes=[SCRIPT], objective=SCRIPT)
    text = drawn(tmp_path, plan=plan)
    parsed = Page(text)
    assert [a["id"] for tag, a in parsed.elements if tag == "script"] == ["artifacts"]
    assert SCRIPT not in text and SCRIPT in "".join(parsed.words)
    path = write_markdown(tmp_path / "r.md", Evidence("T", plan=plan))
    assert not re.search(r"(?<!\\)<", path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("value", [0.0, 5e-324, -1e100, 1e100, 1e308])
@pytest.mark.parametrize("fields", [("nats",), ("held_out_nats",), ("stderr", "held_out_stderr"), ("nats", "stderr")])
def test_odd_numbers_are_drawn(value, fields, tmp_path):
    listed = trails(16)
    for trail in listed[::2]:
        trail.found[-1] = trail.found[-1].model_copy(
            update=dict.fromkeys(fields, abs(value) if "err" in fields[0] else value)
        )
    known = Evidence("T", plan=searched_plan(16, listed))
    write_page(tmp_path / "r.html", known)
    write_markdown(tmp_path / "r.md", known)
    json.dumps(result_rows(known), allow_nan=False)


def test_ways_that_cost_nothing_or_all_there_is_are_drawn():
    plan = searched_plan(16, [one_set("a", [Unit(4)], BASE, forwards=0), one_set("b", [Unit(5)], BASE, forwards=2**62)])
    found = ways(plan)
    assert cost_chart("c", found, "loss").startswith("<svg") and size_chart("s", found, plan.model, "loss")
    assert path_chart("p", found[0].steps, "loss").startswith("<svg")


def test_a_bad_way_does_not_flatten_the_others():
    listed = [*trails(16)[:1], one_set("awful", [Unit(2)], 9.0, 9.0), *trails(16)[4:]]
    svg = size_chart("s", ways(searched_plan(16, listed)), sized(16), "loss")
    assert "awful: 6.5450" in svg and re.search(r">0\.\d</text>", svg)  # an axis up to 6.5 has no such numbers


def test_sublayers_that_cannot_be_told_apart_have_no_share(tmp_path):
    plan = searched_plan(16)
    bare = plan.model.model_copy(update={"attention_parameters": None, "ffn_parameters": None})
    plan = plan.model_copy(update={"model": bare})
    assert [way.last.share is None for way in ways(plan)] == [name == NAMES[3] for name in NAMES]
    assert "search" in sections(drawn(tmp_path, plan=plan))
    alone = plan.model_copy(update={"search": search(16, plan.search.trails[3:4])})
    text = drawn(tmp_path, plan=alone)
    assert "search" in sections(text) and "by-removed" not in text


def test_a_search_of_blocks_that_are_not_there_is_refused():
    plan = searched_plan(16)
    wrong = plan.model_dump() | {"search": search(16, [one_set("a", [Unit(16)], 2.5)]).model_dump()}
    with pytest.raises(ValidationError, match=r"the search names 16, a model has blocks 0\.\.15"):
        CutPlan.model_validate(wrong)


def test_a_plan_that_is_no_set_of_the_search_is_not_marked(tmp_path):
    plan = searched_plan(16).model_copy(update={"removed": [3]})
    assert not any(way.chose for way in ways(plan))
    said = words(drawn(tmp_path, plan=plan))
    assert "the chosen set" not in said.lower().replace("the chosen set is the best one", "")


def test_kl_divergence_counts_from_nothing(tmp_path):
    plan = searched_plan(16, [one_set("a", [Unit(4)], 0.05)], objective="KL divergence")
    assert ways(plan)[0].last.seen.nats == 0.05
    assert "Search KL divergence" in words(drawn(tmp_path, plan=plan))


def test_report_md_has_the_ways_as_a_table(tmp_path):
    plan = searched_plan(16)
    text = write_markdown(tmp_path / "r.md", Evidence("T", plan=plan)).read_text(encoding="utf-8")
    (table,) = [table for table in tables(text) if table[0][0] == "Way"]
    assert [row[0].replace("\\", "") for row in table[1:]] == [*NAMES[:-1], "beam:width=4 (the plan)"]
    last = plan.search.trails[0].found[-1]
    assert table[1][1:4] == [units_text(last.units), f"{last.nats:.3f}", f"{last.held_out_nats:.3f}"]
    assert "63 % of 1,000 resamples" in text
    fine = searched_plan(16, trails(16)[:4])
    text = write_markdown(tmp_path / "f.md", Evidence("T", plan=fine)).read_text(encoding="utf-8")
    assert f"sublayers: {units_text(fine.removed_sublayers)} (original" in text


def test_results_have_rows_of_every_way():
    plan = searched_plan(16)
    rows = [r for r in result_rows(Evidence("T", plan=plan)) if r["kind"] == "search"]
    assert [r["model"] for r in rows[::4]] == NAMES and len(rows) == 24
    last = plan.search.trails[-1].found[-1]
    found = next(r for r in rows if r["model"] == "beam:width=4" and r["of"] == "held-out text")
    assert found["value"] == pytest.approx(last.held_out_nats - HELD_OUT_BASE) and found["n"] == 10
    assert found["stderr"] == last.held_out_stderr


def test_greedy_by_hand_meets_the_budget():
    fine = [Unit(i, part) for i in range(2, 15) for part in ("attention", "ffn")]
    last = greedy("g", 16, fine, 4).found[-1]
    assert sum(map(sized(16).parameters_of, last.units)) >= 4 * 90_000
