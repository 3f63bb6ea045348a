"""The report: drawn from artifacts made by hand, so that every number on the page can be checked."""

from __future__ import annotations

import json
import math
import random
import re

import pytest
import yaml
from made_by_hand import (
    SCRIPT,
    N,
    Page,
    block_scores,
    browser,
    card,
    criterion,
    evidence,
    facts,
    manifest,
    measurement,
    measurements,
    page,
)  # fmt: skip

from shortlm.artifacts import (
    BlockScores,
    CriterionScores,
    Sample,
)
from shortlm.errors import OutputError
from shortlm.report import Evidence, model_card, numbers, write_page
from shortlm.report.card import is_hub_id
from shortlm.report.headline import headline
from shortlm.report.quality import difference


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> str:
    return page(tmp_path_factory.mktemp("report"))


def test_the_page_parses_and_holds_every_chart(whole):
    parsed = Page(whole)
    assert parsed.open == []
    charts = [a["id"] for tag, a in parsed.elements if tag == "svg"]
    assert charts == [
        "perplexity",
        "parameters",
        "by-size",
        *(f"scores-{i}" for i in range(5)),
        "agreement-chart",
        "runs-3",
    ]
    sections = [a["id"] for tag, a in parsed.elements if tag == "section"]
    middle = ["plan", "scores", "agreement", "runs", "samples", "equivalence"]
    expected = ["quality", "tradeoff", *middle, "provenance", "settings"]
    assert sections == expected


def test_charts_are_labelled_and_their_ids_are_unique(whole):
    parsed = Page(whole)
    assert len(parsed.ids()) == len(set(parsed.ids()))
    labels = [a["aria-label"] for tag, a in parsed.elements if tag == "svg"]
    assert all(labels)
    assert "removed blocks: 5–8" in labels[3]
    used = re.findall(r"url\(#([^)]+)\)", whole) + re.findall(r'href="#([^"]+)"', whole)
    assert set(used) <= set(parsed.ids())


def test_charts_take_their_colours_and_fonts_from_the_page(whole):
    for svg in re.findall(r"<svg.*?</svg>", whole, re.DOTALL):
        assert not re.search(r"#[0-9a-fA-F]{6}", svg)
        assert "font-family" not in svg and "DejaVu" not in svg
        assert "<text" in svg and "var(--soft)" in svg


def test_nothing_is_loaded_from_outside(whole):
    parsed = Page(whole)
    for tag, attributes in parsed.elements:
        for name in ("src", "href", "xlink:href", "action", "data"):
            assert not (attributes.get(name) or "").startswith(("http", "//", "file")), (tag, attributes)
    assert "@import" not in whole
    assert not re.search(r"url\((?!#)", whole)
    assert not re.search(r'(?<!xmlns:xlink=")https?://', re.sub(r"<script.*?</script>", "", whole, flags=re.DOTALL))


def test_the_headline_says_what_the_artifacts_say(whole):
    dense, cut = measurement("dense").perplexities[0], measurement("cut").perplexities[0]
    text = headline(evidence()).replace("\u00a0", " ")
    expected = "4 of 12 blocks removed: 1.84 M → 1.25 M parameters (−32 %), "
    assert text == f"{expected}perplexity {dense.perplexity:.2f} → {cut.perplexity:.2f} on embedded."
    assert 147_712 * 12 + 65_664 == 1_838_208 and 1_838_208 - 4 * 147_712 == 1_247_360
    assert text in " ".join(Page(whole).words).replace("\u00a0", " ")


def test_untrusted_text_is_shown_and_never_run(tmp_path):
    sample = Sample(prompt=SCRIPT, text="$x_{1$ & </script>")
    evil = [m.model_copy(update={"samples": [sample]}) for m in measurements(SCRIPT)]
    evil[0].perplexities[0].text = evil[1].perplexities[0].text = f"{SCRIPT} $\\frac$ --> 漢字"
    text = page(tmp_path, SCRIPT, measurements=evil, title=SCRIPT, settings=SCRIPT)
    parsed = Page(text)
    assert [a for tag, a in parsed.elements if tag == "script"] == [{"type": "application/json", "id": "artifacts"}]
    assert SCRIPT not in text
    assert SCRIPT in "".join(parsed.words)


def test_the_artifacts_are_inside_the_page(whole):
    found = json.loads(re.findall(r'id="artifacts">(.*?)</script>', whole, re.DOTALL)[0])
    assert [a["kind"] for a in found] == ["BlockScores", "CutPlan", "Manifest", "Measurement", "Measurement"]
    assert BlockScores.model_validate(found[0]) == block_scores()


@pytest.mark.parametrize(
    ("changes", "sections"),
    [
        ({"scores": None}, ["quality", "tradeoff", "plan", "samples", "equivalence", "provenance", "settings"]),
        (
            {"plan": None, "manifest": None, "measurements": []},
            ["scores", "agreement", "runs", "provenance", "settings"],
        ),
        ({"plan": None, "scores": None, "measurements": []}, ["plan", "equivalence", "provenance", "settings"]),
        (
            {"plan": None, "scores": None, "manifest": None},
            ["quality", "tradeoff", "samples", "provenance", "settings"],
        ),
        ({"plan": None, "scores": None, "manifest": None, "measurements": [], "settings": ""}, []),
    ],
)
def test_what_is_missing_is_left_out(tmp_path, changes, sections):
    parsed = Page(page(tmp_path, **changes))
    assert [a["id"] for tag, a in parsed.elements if tag == "section"] == sections
    assert "None" not in "".join(parsed.words)


def test_the_page_has_the_same_bytes_every_time(tmp_path, whole):
    assert page(tmp_path) == whole


def test_an_existing_page_is_kept_unless_forced(tmp_path):
    path = tmp_path / "report.html"
    path.write_text("mine")
    with pytest.raises(OutputError, match=r"exists.*--force"):
        write_page(path, Evidence())
    assert path.read_text() == "mine"


def test_scores_of_any_shape_can_be_drawn(tmp_path):
    rng = random.Random(3)
    odd = {
        "wide": [10.0**i for i in range(-6, 6)], "mixed": [(-1) ** i * i for i in range(N)], "flat": [0.0] * N,
        "huge": [1e30 + i for i in range(N)], "tiny": [1e-30] * N,
    }  # fmt: skip
    criteria = {name: criterion([float(v) for v in values], "unit", 0.1, rng) for name, values in odd.items()}
    scores = block_scores().model_copy(update={"criteria": criteria})
    assert page(tmp_path, scores=scores).count("<svg") == 4 + len(odd)


def test_a_bar_that_would_dwarf_the_others_is_cut_off_and_says_so(tmp_path):
    scores = block_scores()
    assert "cut off" not in page(tmp_path)
    scores.criteria["ppl"].scores[0] = 2345.6
    text = page(tmp_path, scores=scores)
    assert "Bars too tall for their chart are cut off" in text
    assert len(re.findall(r"<text[^>]*>2,346</text>", text)) == 1 and "highest 2,346 at block 0" in text


def test_one_block_and_a_hundred_can_be_drawn(tmp_path):
    one = CriterionScores(scores=[1.0], unit="u", table=[[0.3]])
    small = block_scores().model_copy(update={"model": facts(blocks=1), "criteria": {"angular": one}})
    assert page(tmp_path, scores=small, plan=None, manifest=None).count("<svg") == 5
    text = page(tmp_path, scores=block_scores(blocks=100), plan=None, manifest=None)
    assert text.count("<svg") == 10 and len(text) < 2_500_000


def test_paired_difference_equals_the_plain_formula():
    before, after = measurement("dense").perplexities[0], measurement("cut").perplexities[0]
    found = difference(before, after)
    deltas = [(b - a) / 128 for a, b in zip(before.per_sequence_nats, after.per_sequence_nats, strict=True)]
    mean = sum(deltas) / 8
    assert found.paired and found.nats == pytest.approx(mean)
    assert found.stderr == pytest.approx(math.sqrt(sum((d - mean) ** 2 for d in deltas) / 7 / 8))
    assert found.stderr < before.stderr_nats


def test_other_windows_are_not_paired():
    before, after = measurement("dense").perplexities[0], measurement("cut").perplexities[0]
    after.data.sha256 = "0" * 64
    found = difference(before, after)
    assert not found.paired and found.stderr == pytest.approx(math.hypot(before.stderr_nats, after.stderr_nats))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (numbers.count(1_774_080), "1.77 M"), (numbers.count(6_738_415_616), "6.74 B"),
        (numbers.count(999_999), "1.00 M"), (numbers.count(512), "512"), (numbers.size(3_540_000), "3.38 MiB"),
        (numbers.change(1770, 1180), "-33 %"), (numbers.change(100, 91.7), "-8.3 %"), (numbers.change(0, 1), ""),
        (numbers.significant(3.0214), "3.02"), (numbers.significant(9.9996), "10.0"),
        (numbers.significant(12345.6), "12,346"), (numbers.significant(0), "0"),
        (numbers.significant(2.13e-6, 2), "2.1 × 10⁻⁶"), (numbers.with_error(3.02149, 0.0412), "3.021 ± 0.041"),
        (numbers.with_error(3.02149, None), "3.021"), (numbers.with_error(0.1613, 0.00973), "0.1613 ± 0.0097"),
        (numbers.significant(math.inf), "infinite"), (numbers.duration(250), "4 min 10 s"),
        (numbers.duration(3e5), "3.5 days"), (numbers.duration(7500), "2 h 5 min"),
        (numbers.blocks([9, 3, 4, 5, 7, 8]), "3–5, 7–9"), (numbers.blocks([1, 2, 9]), "1, 2, 9"),
        (numbers.blocks([]), "none"), (numbers.tick(40_000), "40 K"), (numbers.tick(-100), "−100"),
        (numbers.duration(0.01), "10 ms"),
        (numbers.typeset("-33 %"), "−33\u00a0%"),
    ],
)  # fmt: skip
def test_numbers_read_well(text, expected):
    assert text == expected


def test_the_card_has_front_matter_for_a_hub():
    front, _ = card()
    assert front["library_name"] == "transformers" and front["pipeline_tag"] == "text-generation"
    assert front["license"] == "apache-2.0" and front["language"] == "en"
    assert front["base_model"] == "owner/name" and front["base_model_relation"] == "finetune"
    assert {"shortlm", "depth-pruning"} <= set(front["tags"])
    results = front["model-index"][0]["results"]
    assert [r["dataset"]["name"] for r in results] == ["embedded", "wikitext-2"]
    expected = measurement("cut").perplexities[0].perplexity
    assert results[0]["metrics"][0]["value"] == pytest.approx(expected, rel=1e-5)


def test_the_card_says_what_was_done_and_how_to_repeat_it():
    _, body = card()
    for words in (
        "4 of 12 Transformer blocks", "| Removed blocks | 5–8 (original", "1.84 M → 1.25 M parameters (-32 %)",
        "AutoModelForCausalLM.from_pretrained(path)", "shortlm cut --model owner/name --plan manifest.json --out",
        "2.1 × 10⁻⁶", "embedded | dense | ", "[owner/name](https://huggingface.co/owner/name)",
    ):  # fmt: skip
        assert words in body


def test_a_local_base_model_is_no_link():
    front, body = card(base_model="/models/my base")
    assert "base_model" not in front and "huggingface.co" not in body
    assert "shortlm cut --model 'my base' --plan" in body and "/models" not in body
    assert [is_hub_id(name) for name in ("a/b", "./a", "../a", "a", "a/b/c", "", None)] == [True] + [False] * 6


def test_the_card_escapes_yaml_and_markdown():
    front, body = card(title="a: [b\n---\n# c | `d` <script>", base_model="x`\n```\nrm")
    assert front["model-index"][0]["name"] == "a: [b --- # c | `d` <script>"
    assert body.strip().splitlines()[0] == r"# a: \[b --- \# c \| \`d\` \<script\>"
    assert "shortlm cut --model 'x` ``` rm' --plan" in body


def test_the_card_needs_neither_check_nor_measurements():
    plain = manifest()
    plain.last_cut.equivalence = None
    text = model_card(Evidence("t", manifest=plain))
    front = yaml.safe_load(text.split("---\n")[1])
    assert set(front) == {"library_name", "pipeline_tag", "tags"}
    assert "Equivalence" not in text and "Quality" not in text and "None" not in text


@pytest.mark.browser
def test_a_browser_shows_the_charts_without_complaint(tmp_path):
    page(tmp_path)
    done = browser(tmp_path / "report.html", tmp_path)
    assert done.stdout.count('class="chart"') == 10
    assert ":CONSOLE" not in done.stderr
