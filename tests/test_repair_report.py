"""Repair without training in the report: its section, report.md, the card, the headline, the steps of a manifest."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from made_by_hand import (
    SCRIPT,
    Page,
    card,
    cut_plan,
    evidence,
    facts,
    manifest,
    measurement,
    origin,
    page,
    repair_step,
    repaired,
)
from markdown_tables import tables
from test_markdown import healing
from test_measured_report import tasked

from shortlm.artifacts import CutPlan, CutStep, Depth, Fold, Manifest, ValidationLoss
from shortlm.report import Evidence, model_card, write_markdown
from shortlm.report.headline import headline, key_figures
from shortlm.report.repair import won_back
from shortlm.report.repair_chart import colours_of, lines
from shortlm.report.results import result_rows
from shortlm.report.steps import commands, step_rows
from shortlm.units import Unit

HOSTILE = f"{SCRIPT} | `x` $(rm -rf ~) '\n# a"
WORSE = {"delivered": False, "loss": ValidationLoss(dense=1.1, cut=1.3, repaired=1.4, stderr=None, tokens=512)}
SCALED = [Fold(block=4, part="block", factor=1.0823, tokens=768, error_before=0.2, error_after=0.1)]


def words(text: str) -> str:
    return " ".join(" ".join(Page(text).words).split()).replace("\u00a0", " ")


def drawn(folder: Path, **changes) -> str:
    """The page without scores, whose charts take time."""
    return page(folder, scores=None, **changes)


def section(text: str, name: str = "repair") -> str:
    return re.findall(rf'<section id="{name}">.*?</section>', text, re.DOTALL)[0]


def four() -> list:
    return [measurement(role) for role in ("dense", "cut", "repaired", "healed")]


def rounds() -> Manifest:
    """Cut, repaired, cut again: the second cut leaves 7 blocks."""
    model = facts("first/repaired", 8)
    plan = CutPlan(
        model=model, removed=[5], method="by hand", criterion="none", budget="1 block", provenance=origin(),
        parameters_after=model.parameters - 147_712,
    )  # fmt: skip
    step = CutStep(plan=plan, bytes_before=4_989_440, bytes_after=4_398_592, provenance=origin())
    return repaired().followed_by(step)


def test_the_section_has_both_charts_and_a_row_for_every_weight(tmp_path):
    text = drawn(tmp_path, manifest=repaired())
    parsed, found = Page(text), section(text)
    assert parsed.open == [] and len(parsed.ids()) == len(set(parsed.ids()))
    assert re.findall(r'<svg class="chart" id="([^"]+)"', found) == ["repair-depth", "repair-loss"]
    assert "cut 0.0457 behind block 11; repaired 0.00163 behind block 11; missing blocks: 5–8" in found
    assert "nats per token: dense 1.100, cut 1.300, repaired 1.150" in found
    assert "−0.150 ± 0.012 nats per token (75 % of the lost nats won back)" in words(found)
    assert [row.count("<td") for row in re.findall(r"<tr>(<td.*?)</tr>", found, re.DOTALL)] == [7] * 4
    shown = words(found)
    assert "9 attention 0.01 64 768 0.0450 0.0360" in shown and "4 attention unchanged 64 768 0 0" in shown
    assert "<details>" not in found and "Not taken" not in found


def test_it_stands_before_healing(tmp_path):
    text = drawn(tmp_path, manifest=repaired(), healing=healing())
    order = [a["id"] for tag, a in Page(text).elements if tag == "section"]
    assert order.index("repair") + 1 == order.index("healing") < order.index("plan")


def test_many_weights_are_folded_away(tmp_path):
    many = [fold for _ in range(10) for fold in repair_step().folds]
    found = section(drawn(tmp_path, manifest=repaired(folds=many)))
    assert "<details><summary>40 weights, 30 of them changed</summary>" in found
    assert "<summary>40 weights, not taken</summary>" in drawn(tmp_path, manifest=repaired(folds=many, delivered=False))
    path = write_markdown(tmp_path / "r.md", evidence(manifest=repaired(folds=many)))
    text = path.read_text(encoding="utf-8")
    assert "16 more are in `manifest.json`" in text and len(tables(text)[-1]) == 25


def test_a_repair_that_was_not_taken_says_so_everywhere(tmp_path):
    known = evidence(manifest=repaired(**WORSE))
    found = words(section(drawn(tmp_path, manifest=known.manifest)))
    assert "The repair made the loss worse, so the weights are the cut model's." in found and "won back" not in found
    text = write_markdown(tmp_path / "r.md", known).read_text(encoding="utf-8")
    assert "The repair made the loss worse, so the weights are the cut model's." in text
    _, body = card(manifest=known.manifest)
    assert "was not taken: the weights are the cut model's" in body and "remaining blocks are unchanged" in body
    assert "shortlm repair" not in body and "repaired" not in headline(known)


@pytest.mark.parametrize(
    "changes",
    [
        {"folds": [], "depths": []},
        {"depths": [Depth(block=0, cut=0.0, repaired=0.0)]},
        {"depths": [Depth(block=i, cut=1e99 * i, repaired=1e-99) for i in range(8)]},
        {"loss": ValidationLoss(dense=-1e99, cut=1e99, repaired=0.0, stderr=1e99, tokens=1)},
        {"loss": ValidationLoss(dense=2.0, cut=2.0, repaired=2.0, stderr=0.0, tokens=1)},
        {"folds": SCALED, "method": "scale:prune-and-comp", "validation": 10**9},
    ],
)
def test_any_repair_can_be_drawn(tmp_path, changes):
    known = evidence(manifest=repaired(**changes))
    text = drawn(tmp_path, manifest=known.manifest)
    assert Page(text).open == [] and "None" not in words(section(text))
    tables(write_markdown(tmp_path / "r.md", known).read_text(encoding="utf-8"))
    tables(card(manifest=known.manifest)[1])


def test_errors_that_are_nothing_have_no_dot():
    found = lines(repair_step())
    assert [x for x, _ in found["cut"]] == [4, 9, 10, 11] and found["repaired"][0] == (4, 0.005)


@pytest.mark.parametrize(
    ("dense", "cut", "after", "share"),
    [
        (1.0, 2.0, 1.25, "75 %"),
        (1.0, 2.0, 0.8, "120 %"),
        (1.0, 2.0, 2.0, "0 %"),
        (1.0, 2.0, 2.1, ""),
        (2.0, 2.0, 1.9, ""),
    ],
)
def test_the_share_won_back(dense, cut, after, share):
    assert won_back(ValidationLoss(dense=dense, cut=cut, repaired=after, stderr=None, tokens=1)) == share


def test_untrusted_text_is_shown_and_never_run(tmp_path):
    evil = repaired(HOSTILE, method=HOSTILE)
    text = drawn(tmp_path, manifest=evil)
    assert SCRIPT not in text and SCRIPT in "".join(Page(text).words)
    path = write_markdown(tmp_path / "r.md", evidence(manifest=evil))
    _, body = card(manifest=evil, base_model=HOSTILE)
    for markdown in (path.read_text(encoding="utf-8"), body):
        tables(markdown)
        assert "\n# a" not in markdown
        outside = re.sub(r"```bash.*?```|(`+) .*? \1", "", markdown, flags=re.DOTALL)
        assert SCRIPT not in outside and "<script>" not in re.sub(r"\\<", "", outside)


def test_the_commands_are_words_of_a_shell():
    first, second = commands(repaired("/home/me/a model", method="refit:attention=false"), "a 'model'; rm")
    assert shlex.split(first)[:4] == ["shortlm", "cut", "--model", "a 'model'; rm"]
    assert shlex.split(second) == [
        "shortlm", "repair", "shorter", "--against", "a 'model'; rm", "--method", "refit:attention=false",
        "--text", "a model", "--calibration", "6", "--validation", "4", "--out", "repaired",
    ]  # fmt: skip
    other = repaired().followed_by(repair_step("/home/me/x y"))
    assert "--against 'x y'" in commands(other, "base")[-1]


def test_the_card_tells_which_weights_are_no_copies():
    _, body = card(manifest=repaired())
    for expected in (
        "the output projections of attention in block 9 and of the FFN in blocks 4, 9 (original indices) are no copies",
        "computed by `auto` against `embedded`, on 768 tokens of embedded",
        "On 512 validation tokens, in nats per token: dense 1.100, cut 1.300, repaired 1.150 (75 % of the lost",
        "All other weights are unchanged.",
        "shortlm cut --model owner/name --plan manifest.json --out shorter\nshortlm repair shorter "
        "--against owner/name --method auto --text embedded --calibration 6 --validation 4 --out repaired\n",
        "| Removed blocks | 5–8 (original indices, from 0) |", "before the repair", "- repair: embedded, 10 windows",
    ):  # fmt: skip
        assert expected in body
    assert "remaining blocks are unchanged" not in body
    _, healed = card(manifest=repaired(), healing=healing())
    assert "are no copies" in healed and "Then it was healed" in healed and "unchanged." not in healed
    _, scaled = card(manifest=repaired(folds=SCALED))
    assert "all that writes the residual stream up to the end of block 4 (original indices) are no copies" in scaled


def test_the_card_tells_of_every_step():
    _, body = card(manifest=rounds())
    assert "5 of 12 Transformer blocks" in body and "| Remaining blocks | 0–4, 10, 11 |" in body
    assert (
        "1. Removed 4 of 12 blocks: 5–8 (ppl, one-shot)." in body and "3. Removed 1 of 8 blocks: 9 (by hand)." in body
    )
    assert r"2. Repaired by auto against embedded: the output projections" in body
    assert "indices in the model that was cut last" in body and "7.01 MiB → 4.19 MiB" in body
    block = re.findall(r"```bash\n(.*?)```", body, re.DOTALL)[0].splitlines()
    assert [line.split(" --")[0] for line in block] == ["shortlm cut", "shortlm repair shorter-1", "shortlm cut"]
    assert "--remove 5,6,7,8 --out shorter-1" in block[0] and block[2].endswith("--plan manifest.json --out shorter-3")
    _, single = card()
    assert "Step by step" not in single and "remaining blocks are unchanged" in single


def test_the_steps_are_a_table_of_the_provenance(tmp_path):
    found = words(section(drawn(tmp_path, manifest=rounds()), "provenance"))
    assert "1 Removed 4 of 12 blocks: 5–8 (ppl, one-shot) 7.01 MiB 4.76 MiB 2026-11-22 03:00:00" in found
    assert "1.300 → 1.150 nats per token (dense 1.100) 4.76 MiB 4.76 MiB" in found and "13.8 s" in found
    fine = manifest()
    fine.last_cut.plan.removed_sublayers = [Unit(9, "ffn")]
    assert step_rows(fine)[0].what.startswith(
        "Removed 4 of 12 blocks and 1 attention or FFN layers of others: 5–8; FFN 9"
    )
    assert "--remove 5,6,7,8,9.ffn" in commands(fine.followed_by(rounds().steps[-1]), "base")[0]
    assert [row.number for row in step_rows(rounds())] == [1, 2, 3] and step_rows(None) == []
    assert "repair embedded 10 1,280" in found


def test_a_repair_without_a_cut_has_its_page(tmp_path):
    alone = Manifest(base=facts("foreign", 8), steps=[repair_step()])
    text = drawn(tmp_path, manifest=alone, plan=None, measurements=[])
    assert [a["id"] for tag, a in Page(text).elements if tag == "section"] == ["repair", "provenance", "settings"]


def test_the_headline_and_the_key_figure_tell_what_was_won_back():
    alone = headline(Evidence(manifest=repaired())).replace("\u00a0", " ")
    assert alone.endswith("(−32 %), repaired without training (75 % of the lost nats won back in validation).")
    three = evidence(manifest=repaired(), measurements=four()[:3])
    text = headline(three).replace("\u00a0", " ")
    share = re.findall(r"repaired without training \((\d+ %) of the lost nats won back\), perplexity", text)
    note = key_figures(three)[-1].note.replace("\u00a0", " ")
    assert len(share) == 1 and note.endswith(f"after the cut, {share[0]} of the lost nats won back by repair")
    both = key_figures(evidence(manifest=repaired(), measurements=four()))[-1].note
    assert both.endswith("won back by repair and healing")


def test_one_healed_model_alone_won_nothing_back():
    note = key_figures(evidence(measurements=[measurement("dense"), measurement("healed")]))[-1].note
    assert "won back" not in note


def test_four_models_have_their_colour_and_name_in_every_chart(tmp_path):
    known = evidence(manifest=repaired(), measurements=four())
    assert known.roles == ["dense", "cut", "repaired", "healed"] and len(set(known.palette.values())) == 4
    text = drawn(tmp_path, manifest=repaired(), measurements=[*four()[:3], tasked("healed", 1, 0.8)])
    for chart in ("perplexity", "parameters", "by-size"):
        svg = re.findall(rf'<svg class="chart" id="{chart}".*?</svg>', text, re.DOTALL)[0]
        for role, colour in (("dense", "soft"), ("cut", "kept"), ("repaired", "teal"), ("healed", "violet")):
            assert f"var(--{colour})" in svg and role in svg
    assert {row["model"] for row in result_rows(known)} >= set(known.roles)
    assert colours_of({"healed": known.palette["cut"]})["cut"] != known.palette["cut"]


def test_the_results_have_the_losses_of_the_repair():
    rows = [row for row in result_rows(Evidence(manifest=repaired())) if row["kind"] == "repair"]
    assert [(row["model"], row["value"]) for row in rows[:3]] == [("dense", 1.1), ("cut", 1.3), ("repaired", 1.15)]
    assert rows[3]["stderr"] == 0.012 and rows[3]["value"] == pytest.approx(-0.15)


def test_a_card_of_a_plain_cut_is_as_it_was():
    text = model_card(Evidence("t", manifest=manifest(), plan=cut_plan()))
    assert "repair" not in text and "The written model was loaded again and its logits" in text
