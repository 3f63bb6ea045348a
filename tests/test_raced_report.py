"""What reports say of a race, whose blocks are scored on more sequences or fewer."""

from __future__ import annotations

import re

import pytest
from made_by_hand import N, Page, block_scores, page

from shortlm import console
from shortlm.artifacts import BlockScores, Race

SEEN = [2] * 4 + [32] * 5 + [30] + [2] * 2


def raced(seen: list[int] | None = None) -> BlockScores:
    scores = block_scores()
    found = Race(selected=[4, 6], protected=[0, 1, 2, 3, 10, 11], sequences=seen or SEEN, block_forwards_full=1000)
    ppl = scores.criteria["ppl"].model_copy(update={"race": found, "stderr": None, "rank_agreement": None})
    return scores.model_copy(update={"criteria": {"ppl": ppl}})


def shown(scores: BlockScores, capsys: pytest.CaptureFixture[str]) -> list[str]:
    console.show_scores(scores)
    return capsys.readouterr().out.splitlines()


def test_who_left_early_is_known():
    race = raced().criteria["ppl"].race
    assert race.longest == 32 and race.early == [0, 1, 2, 3, 9, 10, 11]
    assert raced([8] * N).criteria["ppl"].race.early == []


def test_the_chart_marks_bars_of_other_sequences(tmp_path):
    text = page(tmp_path, scores=raced())
    hatched = set(re.findall(r'<g id="scores-0-block-(\d+)"(?:(?!</g>).)*?fill: url', text, re.DOTALL))
    assert hatched == {"0", "1", "2", "3", "9", "10", "11"}
    assert "left the race early: scored on fewer than 32 windows" in text
    assert re.search(r"<title>block 9: [\d.]+, on 30 windows</title>", text)
    used = re.findall(r"url\(#([^)]+)\)", text)
    assert used and set(used) <= set(Page(text).ids())


def test_the_page_makes_no_order_of_them(tmp_path):
    words = " ".join("".join(Page(page(tmp_path, scores=raced())).words).split()).replace("\u00a0", " ")
    assert "a race, which ended after 32 windows" in words and "hatched: 0–3, 9–11)" in words
    assert "found by the race: 4, 6 (by index; a race has no order)" in words
    assert "lowest" not in page(tmp_path, scores=raced(), measurements=[])


def test_the_table_gives_sequences_instead_of_ranks(capsys):
    lines = shown(raced(), capsys)
    assert lines[0] == "embedded: score of each block, and on how many sequences"
    rows = {line.split()[0]: line.split()[2:] for line in lines[3:] if re.match(r" \d", line)}
    assert rows == {str(i): (["*"] if n < 32 else []) + [str(n)] for i, n in enumerate(SEEN)}
    assert "* left the race early: scores on other sequences can't be compared, so there are no ranks" in lines


def test_scores_of_equal_sequences_have_ranks(capsys, tmp_path):
    scores = raced([8] * N)
    lines = shown(scores, capsys)
    assert lines[0].endswith("rank 0 is the least important and goes first") and "*" not in "".join(lines)
    assert "left the race" not in page(tmp_path, scores=scores)
