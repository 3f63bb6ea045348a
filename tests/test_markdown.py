"""The tables of the model card and of report.md, whatever is known and left out."""

from __future__ import annotations

import pytest
from made_by_hand import card, cut_plan, data, facts, manifest, measurement, measurements, origin
from markdown_tables import tables
from test_measured_report import benchmark, tasked

from shortlm.artifacts import Healing, LogEntry, Phase
from shortlm.report import Evidence, model_card, write_markdown


def healing(**settings) -> Healing:
    entry = LogEntry(step=9, tokens=900, targets=890, loss=2.0, rate=1e-4, grad_norm=1.0, seconds=3.0)
    phase = Phase(
        method="cpt", settings=settings, data=data("a | b"), validation_data={}, trainable=10, parameters=10, steps=9,
        processes=1, precision="float32", log=[entry], validations=[], kept_step=9, peak_bytes=10**6, seconds=4.0,
    )  # fmt: skip
    return Healing(model=facts(), phases=[phase, phase.model_copy(update={"log": []})], provenance=origin())


@pytest.mark.parametrize("cached", [3.4e-6, None])
def test_the_equivalence_check_is_a_table_with_and_without_the_cache(cached):
    cut = manifest()
    cut.equivalence.max_abs_difference_cached = cached
    text = model_card(Evidence("t", manifest=cut, measurements=measurements()))
    (check,) = [table for table in tables(text) if "Measured" in table[0]]
    titles = [row[0] for row in check[1:]]
    assert titles == ["Whole text at once", "Token by token, with the KV cache"][: 2 if cached else 1]
    assert check[1][1:] == ["2.1 × 10⁻⁶", "1.0 × 10⁻⁴"]


def test_every_table_of_a_card_has_whole_rows():
    found = [tasked("dense", 1, 0.8), tasked("cut", 2, 0.6)]
    _, body = card(measured=found, benchmark=benchmark(), healing=healing())
    assert len(tables(body)) == 8
    _, body = card(measured=[measurement("cut")])
    assert len(tables(body)) == 3


@pytest.mark.parametrize("with_plan", [True, False])
def test_every_table_of_report_md_has_whole_rows(with_plan, tmp_path):
    found = [tasked("a|b", 1, 0.8), tasked("cut", 2, 0.6), measurement("other")]
    bench = benchmark(roles=("a|b", "cut"))
    plan = cut_plan() if with_plan else None
    path = write_markdown(tmp_path / "r.md", Evidence("T", plan=plan, measurements=found, benchmark=bench))
    assert len(tables(path.read_text(encoding="utf-8"))) == 6
