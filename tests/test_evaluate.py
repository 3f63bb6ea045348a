"""Perplexity against a plain loop; BOS modes; blocks on disk; samples."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from shortlm.errors import ModelError
from shortlm.evaluate import evaluate, perplexity
from shortlm.model import open_for_scoring, open_model, quiet
from shortlm.recipe import EvalSettings, ModelSettings, TextSettings
from shortlm.text import open_windows, windows_from_ids


@pytest.fixture(scope="module")
def opened():
    return open_model(ModelSettings())


@pytest.mark.parametrize(("bos", "length"), [("first", 128), ("every", 128), ("none", 64), ("every", 300)])
def test_perplexity_is_that_of_a_plain_loop(opened, bos, length):
    text = TextSettings(text="embedded", seed=5, sequences=6, length=length, bos=bos)
    windows = open_windows(text, opened.tokenizer, opened.model.config.vocab_size)
    nats, tokens = [], 0
    for row in windows.ids_BT:
        with torch.no_grad():
            logits_TV = opened.model(input_ids=row[None]).logits[0]
        nats.append(float(F.cross_entropy(logits_TV[:-1], row[1:], reduction="sum")))
        tokens += len(row) - 1
    measured = perplexity(opened, windows, batch_size=4)
    assert measured.perplexity == pytest.approx(math.exp(sum(nats) / tokens), rel=1e-6)
    assert sum(measured.tokens_per_sequence) == tokens == 6 * (length if bos == "every" else length - 1)
    means = torch.tensor(nats) / (tokens / 6)
    assert measured.stderr_nats == pytest.approx(float(means.std() / 6**0.5), rel=1e-4)


def test_blocks_on_disk_give_the_same(opened):
    windows = windows_from_ids([[5, 6, 7, 8, 9]] * 2, 100)
    streamed = open_for_scoring(ModelSettings(stream="on"))
    assert perplexity(streamed, windows).perplexity == pytest.approx(perplexity(opened, windows).perplexity, rel=1e-6)


def test_one_window_has_no_standard_error(opened):
    assert perplexity(opened, windows_from_ids([[5, 6, 7]], 100)).stderr_nats is None


def test_samples_are_repeatable_and_begin_with_the_prompt():
    text = TextSettings(text="embedded", sequences=1, length=32)
    settings = EvalSettings(texts=[text], prompts=["Mira has"], new_tokens=8)
    first, second = (evaluate(ModelSettings(), settings).samples for _ in range(2))
    assert first == second and first[0].prompt == "Mira has" and first[0].text
    assert evaluate(ModelSettings(), settings.model_copy(update={"new_tokens": 0})).samples == []


def test_an_infinite_perplexity_is_an_error(tmp_path):
    opened = open_model(ModelSettings())
    opened.model.get_output_embeddings().weight.data = opened.model.get_output_embeddings().weight.data * 1e6
    with quiet(), pytest.raises(ModelError, match="perplexity on ids is inf; try --dtype float32"):
        perplexity(opened, windows_from_ids([[5, 6, 7, 8]], 100))
