"""Sections of the page: each is one file and a place in a list."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from jinja2 import UndefinedError
from made_by_hand import SCRIPT, Page, evidence, narrowed
from searches_by_hand import searched_plan
from test_markdown import healing
from test_measured_report import benchmark, tasked

from shortlm.report import SECTIONS, Evidence, Section, sections, write_page

WORDS = Section(
    id="words", heading="How much they say",
    needs=lambda known: any(m.samples for m in known.measurements),
    compute=lambda known: {"counts": [(m.role, len(m.samples[0].text.split())) for m in known.measurements]},
    template="{% for role, count in counts %}<p>{{ role }}: {{ count | whole }} words</p>{% endfor %}",
)  # fmt: skip


def drawn(folder: Path, known: Evidence, *listed: Section) -> Page:
    return Page(write_page(folder / "report.html", known, True, listed).read_text(encoding="utf-8"))


def ids(page: Page) -> list[str | None]:
    return [a["id"] for tag, a in page.elements if tag == "section"]


def test_a_section_is_a_definition_and_a_place_in_the_list(tmp_path):
    found = drawn(tmp_path, evidence(), WORDS, *SECTIONS)
    assert found.open == [] and ids(found)[:2] == ["words", "quality"]
    assert "How much they say" in found.words and "dense: 11 words" in found.words
    assert ids(drawn(tmp_path, evidence(), *SECTIONS, WORDS))[-1] == "words"


def test_a_section_without_data_is_left_out(tmp_path):
    assert ids(drawn(tmp_path, evidence(measurements=[]), WORDS)) == []


def test_what_a_section_shows_is_escaped_and_known(tmp_path):
    wild = Section("wild", "Wild", lambda known: True, lambda known: {"title": known.title}, "<p>{{ title }}</p>")
    assert SCRIPT in "".join(drawn(tmp_path, Evidence(SCRIPT), wild).words)
    with pytest.raises(UndefinedError, match="'nothing' is undefined"):
        drawn(tmp_path, Evidence(), Section("wild", "Wild", lambda known: True, lambda known: {}, "{{ nothing }}"))


def test_every_file_of_the_folder_is_in_the_list():
    files = {p.stem for p in Path(sections.__file__).parent.glob("*.py")} - {"__init__"}
    assert {section.id for section in SECTIONS} == files and len(SECTIONS) == len(files)


def test_every_section_is_drawn_of_a_whole_run(tmp_path):
    found = [tasked("dense", 1, 0.8), tasked("healed", 2, 0.6)]
    bench = benchmark(roles=("dense", "healed"))
    known = evidence(measurements=found, benchmark=bench, healing=healing(), plan=searched_plan(), manifest=narrowed())
    page = drawn(tmp_path, known, *SECTIONS)
    assert ids(page) == [section.id for section in SECTIONS if section.id != "models"]  # of three models or more
    assert len(page.ids()) == len(set(page.ids()))


def test_a_model_has_one_colour_on_the_whole_page(tmp_path):
    """Also where it was measured alone and benched beside another, which is the reference."""
    known = Evidence(measurements=[tasked("cut", 1, 0.8)], benchmark=benchmark())
    text = write_page(tmp_path / "r.html", known).read_text(encoding="utf-8")
    parameters = re.findall(r'<svg class="chart" id="parameters".*?</svg>', text, re.DOTALL)[0]
    assert known.palette["cut"] != known.palette["dense"] and "fill: var(--kept)" in parameters


def test_evidence_puts_the_reference_first_and_knows_the_manifests_plan():
    known = evidence(plan=None)
    assert [m.role for m in known.measurements] == ["dense", "cut"] == known.roles
    assert known.plan == known.manifest.plan and known.equivalence == known.manifest.equivalence
    assert [a.kind for a in known.artifacts] == ["BlockScores", "CutPlan", "Manifest", "Measurement", "Measurement"]
