"""The first sentence of a page where nothing can be compared: what was measured, and why no more is said."""

from __future__ import annotations

from made_by_hand import block_scores, measurement
from test_measured_report import benchmark, tasked

from shortlm.artifacts import Measurement
from shortlm.report import Evidence
from shortlm.report.headline import headline


def of_other_tokens(role: str) -> Measurement:
    found = measurement(role)
    for p in found.perplexities:
        p.data.sha256 = "0" * 64
    return found


def shown(measurements, bench=None) -> str:
    return headline(Evidence(measurements=measurements, benchmark=bench)).replace("\u00a0", " ")


def test_other_tokens_are_the_reason():
    text = shown([measurement("a"), of_other_tokens("b")])
    assert text == "a and b were measured; perplexity can't be compared (other tokens or windows of embedded)."


def test_other_texts_are_the_reason():
    other = measurement("b")
    other.perplexities = [p.model_copy(update={"text": "c4"}) for p in other.perplexities[:1]]
    assert shown([measurement("a"), other]).endswith("perplexity can't be compared (no text was read by both).")


def test_one_text_in_common_is_compared():
    other = of_other_tokens("b")
    other.perplexities[1] = measurement("b").perplexities[1]
    assert shown([measurement("a"), other]).startswith("Perplexity 1")


def test_tasks_and_speed_are_told_too():
    found = [tasked("a", 1, 0.8), of_other_tokens("b")]
    text = shown(found, benchmark(noise=0.8, roles=("a", "b")))
    assert text.startswith("a and b were measured; perplexity can't be compared (other")
    assert text.endswith("), no task was asked of both, their speed could not be told apart.")
    bare = [m.model_copy(update={"perplexities": []}) for m in (measurement("a"), measurement("b"))]
    assert shown(bare) == "a and b were measured."


def test_several_models_say_which_one_can_not_be_compared():
    text = shown([measurement("a"), measurement("b"), of_other_tokens("c")])
    assert "b: perplexity × " in text
    assert text.endswith("; c: perplexity not comparable (other tokens or windows of embedded).")


def test_one_model_has_its_figures():
    one = tasked("a", 1, 0.8)
    text = shown([one], benchmark(roles=("a",)))
    assert text.startswith(f"a: perplexity {one.perplexities[0].perplexity:.2f} on embedded, perplexity ")
    assert f"both {100 * one.task_means[0].value:.1f} %, " in text and text.endswith("at batch 1, 64 + 32 tokens.")


def test_nothing_is_nothing():
    assert headline(Evidence()) == "Nothing was measured."
    assert headline(Evidence(scores=block_scores())) == "12 blocks of embedded scored by 5 criteria."
