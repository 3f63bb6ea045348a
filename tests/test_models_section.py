"""The table of several models, and the sentence that says which one to take."""

from __future__ import annotations

import pytest
from made_by_hand import measurement, narrowed

from shortlm.artifacts import Measurement
from shortlm.report import Evidence, History
from shortlm.report.advice import advice
from shortlm.report.sections.models import SECTION


def model(role: str, worse: float, mebibytes: int) -> Measurement:
    """Its loss is the dense model's, `worse` nats more on average, with noise of 0.01 that differs by window."""
    dense = measurement("dense")
    first = dense.perplexities[0]
    noise = [0.01 if i % 2 else -0.01 for i in range(len(first.per_sequence_nats))]
    nats = [
        n + t * (worse + (e if role != "dense" else 0))
        for n, t, e in zip(first.per_sequence_nats, first.tokens_per_sequence, noise, strict=True)
    ]
    mean = sum(nats) / sum(first.tokens_per_sequence)
    changed = first.model_copy(
        update={"per_sequence_nats": nats, "nats_per_token": mean, "perplexity": 2.718281828**mean}
    )
    return dense.model_copy(update={"role": role, "bytes": mebibytes * 2**20, "perplexities": [changed]})


def told(*others: Measurement) -> str | None:
    return advice(Evidence(measurements=[model("dense", 0, 100), *others]))


def test_the_smallest_of_those_that_are_as_good_is_taken():
    said = told(model("a", 0.0, 60), model("b", 0.0, 40), model("c", 0.5, 10))
    assert said.startswith("Take b: it takes 40.0 MiB on disk instead of 100 MiB, and its perplexity, embedded")
    assert "can't be told apart from dense's" in said


def test_where_all_are_worse_the_nearest_is_named():
    assert "All are worse than dense" in told(model("a", 0.3, 60), model("b", 0.2, 40))
    assert "the nearest is b" in told(model("a", 0.3, 60), model("b", 0.2, 40))


def test_what_is_as_good_but_no_smaller_is_not_taken():
    assert told(model("a", 0.0, 100), model("b", 0.4, 40)).startswith("Take dense: those that are as good in")


def test_two_models_and_models_without_errors_get_no_advice():
    assert told(model("a", 0.0, 60)) is None
    lone = [_of_one_window(model(role, 0.0, 60)) for role in ("dense", "a", "b")]
    assert advice(Evidence(measurements=lone)).startswith("Nothing can be told: without standard errors")


def _of_one_window(measured: Measurement) -> Measurement:
    one = {"per_sequence_nats": [1.0], "tokens_per_sequence": [10]}
    return measured.model_copy(update={"perplexities": [measured.perplexities[0].model_copy(update=one)]})


@pytest.mark.parametrize("hostile", ["<b>a</b>"])
def test_the_table_says_what_was_done_and_how_large_it_is(hostile):
    known = {"b": History(narrowed())}
    drawn = SECTION.body(Evidence(
        measurements=[model("dense", 0, 100), model(hostile, 0.1, 60), model("b", 0.0, 50)], histories=known,
    ))  # fmt: skip
    assert "Loads in transformers after import shortlm." in drawn
    assert "Narrowed by" in drawn and "<b>a</b>" not in drawn and "&lt;b&gt;a" in drawn
    assert "60.0\xa0MiB" in drawn and drawn.count("<tr") == 5  # the head, three models, and what was done to one
    assert not SECTION.needs(Evidence(measurements=[model("dense", 0, 100), model("a", 0.1, 60)]))
