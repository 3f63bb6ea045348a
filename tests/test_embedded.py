"""The embedded model: its corpus knows its own entropy, its questions are right, and its committed weights are good."""

from __future__ import annotations

import json
import math
import random
import re
import subprocess
import sys
from itertools import islice

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from shortlm.embedded import documents, gaps, measure, model_path, paragraphs, stream, tasks, train
from shortlm.embedded.choices import Chooser
from shortlm.embedded.corpus import KINDS, SEPARATOR, sample, scored_documents
from shortlm.embedded.stream import WINDOW, encoded_documents, held_out, windows
from shortlm.embedded.train import drawn_blocks, drop_at, rate_at
from shortlm.embedded.world import DAYS, NUMBERS, PEOPLE, SEASONS

pytestmark = pytest.mark.filterwarnings("error")

FIRST_PARAGRAPH_OF_SEED_3 = (
    "Rosa has six coins. She buys one more. Now she has seven coins. She buys two more. Now she has nine coins."
)


class Scripted(Chooser):
    """Takes prescribed positions, then the first; `widths` says how many positions there were at each draw."""

    def __init__(self, script: list[int], width: int) -> None:
        super().__init__(random.Random(0))
        self.script, self.width, self.taken, self.widths = script, width, [], []

    def index(self, weights) -> int:
        at = len(self.taken)
        self.taken.append(self.script[at] if at < len(self.script) else 0)
        self.widths.append(min(self.width, len(weights)))
        return self.taken[-1]


def every_outcome(make, width: int = 10**9):
    """(text, nats) of every series of choices, or of those among the first `width` options of each choice."""
    script: list[int] | None = []
    while script is not None:
        ch = Scripted(script, width)
        made = make(ch)
        yield getattr(made, "text", made), ch.nats
        script = following(ch)


def following(ch: Scripted) -> list[int] | None:
    for at in reversed(range(len(ch.taken))):
        if ch.taken[at] + 1 < ch.widths[at]:
            return [*ch.taken[:at], ch.taken[at] + 1]
    return None


# The corpus


def test_the_same_seed_gives_the_same_documents():
    assert list(islice(documents(3), 50)) == list(islice(documents(3), 50))
    assert next(documents(3)) != next(documents(4))


def test_the_text_of_a_seed_stays_what_it_was():
    assert next(documents(3)).split("\n")[0] == FIRST_PARAGRAPH_OF_SEED_3


@pytest.mark.parametrize(
    "make",
    [
        *(gaps.fact, gaps.addition, gaps.neighbour, gaps.verb, gaps.owner),
        *(paragraphs.portrait, paragraphs.sums, paragraphs.calendar),
    ],
    ids=lambda make: make.__name__,
)
def test_small_kinds_enumerate_to_probability_one_without_a_text_twice(make):
    texts, nats = zip(*every_outcome(make), strict=True)
    assert len(set(texts)) == len(texts)
    assert math.fsum(math.exp(-n) for n in nats) == pytest.approx(1, abs=1e-9)


def test_no_two_series_of_choices_write_the_same_paragraph():
    widths = {"quiz": 4, "story": 2, "line": 3, "agreement": 2, "possession": 2}
    texts = [text for kind, _ in KINDS for text, _ in every_outcome(kind, widths.get(kind.__name__, 3))]
    assert len(texts) > 10_000
    assert len(set(texts)) == len(texts)


def test_the_same_text_always_has_the_same_surprisal():
    seen: dict[str, float] = {}
    repeats = 0
    for kind, _ in KINDS:
        rng = random.Random(11)
        for _ in range(2000):
            ch = Chooser(rng)
            text = kind(ch)
            repeats += text in seen
            assert seen.setdefault(text, ch.nats) == pytest.approx(ch.nats, abs=1e-9)
    assert repeats > 2000


def test_surprisal_counts_paragraph_kinds_and_the_end():
    weights = dict(KINDS)
    document = next(d for d in scored_documents(5) if "\n" not in d.text and d.text.startswith("How many"))
    expected = math.log(sum(weights.values()) / weights[paragraphs.sums]) + 2 * math.log(110) + math.log(4)
    assert document.nats == pytest.approx(expected)


def test_paragraphs_are_short_lines():
    for document in islice(documents(8), 300):
        for line in document.split("\n"):
            assert 8 <= len(line.split()) <= 45
    assert SEPARATOR not in document


def test_sampling_follows_the_stated_surprisal():
    """The mean surprisal of the first event must match its frequency, or the entropy bound would be wrong."""
    counts = {kind.__name__: 0 for kind, _ in KINDS}
    rng = random.Random(2)
    for _ in range(11_000):
        counts[Chooser(rng).pick([k for k, _ in KINDS], [w for _, w in KINDS]).__name__] += 1
    for kind, weight in KINDS:
        assert counts[kind.__name__] == pytest.approx(500 * weight, rel=0.12)
    assert sample(random.Random(4)).nats > 0


# The questions


def right_fact(prompt: str) -> str:
    by_name, by_trade, by_home = ({getattr(p, k): p for p in PEOPLE} for k in ("name", "trade", "home"))
    if m := re.fullmatch(r"Where does (?:the )?(\w+) live\?", prompt):
        return "by the " + (by_name | by_trade)[m[1]].home
    if m := re.fullmatch(r"What does (?:the )?(\w+) (keep|like)\?", prompt):
        person = (by_name | by_trade)[m[1]]
        return f"a {person.pet}" if m[2] == "keep" else person.food
    if m := re.fullmatch(r"What is the trade of (\w+)\?", prompt):
        return f"the {by_name[m[1]].trade}"
    if m := re.fullmatch(r"Who is the (\w+)\?", prompt):
        return by_trade[m[1]].name
    return by_home[re.fullmatch(r"Who lives by the (\w+)\?", prompt)[1]].name


def right_count(prompt: str) -> str:
    number = NUMBERS.index
    if m := re.fullmatch(r"How many are (\w+) and (\w+)\?", prompt):
        return NUMBERS[number(m[1]) + number(m[2])]
    start, verb, by = re.fullmatch(r"\w+ has (\w+) \w+\. \w+ (\w+) (\w+)(?: more)?\. Now \w+ has", prompt).groups()
    return NUMBERS[number(start) + (1 if verb in ("finds", "buys") else -1) * number(by)]


def right_order(prompt: str) -> str:
    if m := re.fullmatch(r"Which (\w+) comes (two after|after|before) (\w+)\?", prompt):
        row = {"day": DAYS, "season": SEASONS, "number": NUMBERS}[m[1]]
        return row[(row.index(m[3]) + {"after": 1, "before": -1, "two after": 2}[m[2]]) % len(row)]
    told, asked = prompt.split(". ")
    names = [w.strip(",") for w in told.split()[4:] if w != "and"]
    words = asked.rstrip("?").split()
    at = {"first": 0, "last": len(names) - 1}.get(words[-1])
    return names[at] if at is not None else names[names.index(words[-1]) + (1 if words[2] == "after" else -1)]


def right_agreement(prompt: str) -> set[str]:
    if prompt.startswith("The "):
        return {"are", "were", "look", "seem"} if prompt.split()[1].endswith("s") else {"is", "was", "looks", "seems"}
    if " and " in prompt:
        return {"their"}
    return {"her" if next(p for p in PEOPLE if p.name == prompt.split()[0]).she else "his"}


def right_holder(prompt: str) -> str:
    holds = {}
    for sentence in prompt.split(". ")[:-1]:
        if m := re.fullmatch(r"(\w+) has the (\w+)", sentence):
            holds[m[2]] = m[1]
        elif m := re.fullmatch(r"(\w+) gives the (\w+) to (\w+)", sentence):
            assert holds[m[2]] == m[1]
            holds[m[2]] = m[3]
        elif m := re.fullmatch(r"(\w+) takes the (\w+) from (\w+)", sentence):
            assert holds[m[2]] == m[3]
            holds[m[2]] = m[1]
    return holds[prompt.rstrip("?").split()[-1]]


RIGHT = {
    "facts": right_fact,
    "counting": right_count,
    "order": right_order,
    "agreement": right_agreement,
    "possession": right_holder,
}


@pytest.mark.parametrize("task", tasks.TASKS)
def test_only_the_marked_choice_is_right(task):
    for question in tasks.questions(task, 300, seed=9):
        right = RIGHT[task](question.prompt)
        right = {right} if isinstance(right, str) else right
        assert [choice[1:] in right for choice in question.choices].index(True) == question.answer
        assert sum(choice[1:] in right for choice in question.choices) == 1
        assert len(set(question.choices)) == len(question.choices) and 2 <= len(question.choices) <= 4


@pytest.mark.parametrize("task", tasks.TASKS)
def test_questions_are_seeded_and_balanced(task):
    asked = tasks.questions(task, 120, seed=1)
    assert asked == tasks.questions(task, 120, seed=1) != tasks.questions(task, 120, seed=2)
    width = round(1 / tasks.chance(task))
    assert {p: sum(q.answer == p for q in asked) for p in range(width)} == dict.fromkeys(range(width), 120 // width)


# The committed checkpoint


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(model_path())


@pytest.fixture(scope="module")
def model():
    return AutoModelForCausalLM.from_pretrained(model_path(), dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def text(tokenizer):
    return held_out(tokenizer, measure.HELD_OUT_SEED, 40)


@pytest.fixture(scope="module")
def record():
    return json.loads((model_path() / "training.json").read_text())


@pytest.mark.parametrize(
    "words", ["", " ", "naïve Mira\n\n\t x", "雪と☃ 🦊‍🔥", "İ\u0000\u200b<s>-ish", "a" * 300, "Mira ,  he .  "]
)
def test_tokenizer_gives_any_text_back(tokenizer, words):
    ids = tokenizer(words, add_special_tokens=False).input_ids
    assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == words


def test_tokenizer_puts_bos_first_and_words_are_single_tokens(tokenizer):
    assert tokenizer("Mira has the lamp.").input_ids[0] == tokenizer.bos_token_id
    assert tokenizer.tokenize("Mira has the lamp.") == ["Mira", "Ġhas", "Ġthe", "Ġlamp", "."]
    specials = {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}
    assert len(specials) == 3 and len(tokenizer) <= 1024


def test_stream_of_documents_tokenizes_as_the_joined_text(tokenizer):
    told = list(islice(encoded_documents(tokenizer, 6), 30))
    joined = SEPARATOR.join(document.text for document, _ in told)
    whole = tokenizer.backend_tokenizer.encode(joined, add_special_tokens=False).ids
    assert [i for _, ids in told for i in ids] == whole
    first = next(windows(tokenizer, 6))
    assert first == [tokenizer.bos_token_id, *whole[: WINDOW - 1]]


def test_held_out_windows_cover_their_text_exactly(tokenizer, text):
    labels = text.labels_BT[text.labels_BT >= 0]
    assert len(labels) == text.tokens and len(text.ids_BT) in (40, 41)
    told = tokenizer.decode(labels.tolist())
    nats = 0.0
    for document in islice(scored_documents(measure.HELD_OUT_SEED), told.count(SEPARATOR) + 1):
        nats += document.nats
    assert told.endswith(document.text)
    assert text.nats_per_token == pytest.approx(nats / text.tokens)


def test_model_is_small_and_deep(model):
    assert sum(path.stat().st_size for path in model_path().iterdir()) <= 8_000_000
    assert model.config.model_type == "llama" and 12 <= model.config.num_hidden_layers <= 16
    assert model.config.tie_word_embeddings and model.dtype == torch.float32


def test_held_out_perplexity_is_close_to_the_entropy_of_the_corpus(model, text, record):
    language = measure.language(model, text)
    assert language["perplexity_ratio"] <= 1.25
    assert language["perplexity_ratio"] == pytest.approx(record["held_out"]["perplexity_ratio"], abs=0.03)
    assert language["nats_per_token"] == pytest.approx(record["held_out"]["nats_per_token"], abs=0.03)


def test_every_task_is_well_above_chance(model, tokenizer, record):
    for task, found in measure.task_accuracies(model, tokenizer, 60).items():
        assert found["accuracy"] >= (1 + found["chance"]) / 2, task
        assert found["accuracy"] == pytest.approx(record["tasks"][task]["accuracy"], abs=0.12), task


def test_dropping_four_blocks_hurts_and_does_not_destroy(model, text, record):
    whole, cut = measure.language(model, text)["perplexity"], measure.pruned(model, text)
    assert len(cut["dropped"]) == 4 and min(cut["dropped"]) >= 4 and max(cut["dropped"]) <= 9
    assert 1.02 * whole < cut["perplexity"] < 8 * whole
    recorded = measure.loss_without(model, text, record["without_4_blocks"]["dropped"])
    assert recorded == pytest.approx(record["without_4_blocks"]["nats_per_token"], abs=0.06)
    assert len(model.model.layers) == model.config.num_hidden_layers


def test_record_says_how_the_model_was_made(record):
    assert record["training"]["seconds"] > 60 and record["training"]["tokens"] >= record["settings"]["tokens"]
    assert record["held_out"]["seed"] != record["settings"]["seed"]
    assert {"cpu", "cores", "torch", "transformers", "python"} <= record["machine"].keys()
    assert record["held_out"]["perplexity_ratio"] <= 1.25


# The training script


def test_drawn_blocks_keep_both_ends():
    rng = random.Random(0)
    drawn = [drawn_blocks(rng, 12, 0.5) for _ in range(200)]
    assert all(kept[0] == 0 and kept[-1] == 11 for kept in drawn)
    assert sum(map(len, drawn)) / 200 == pytest.approx(7, abs=0.5)
    assert drawn_blocks(rng, 12, 0.0) == list(range(12))


def test_rate_warms_up_and_cools_down():
    assert rate_at(0.0, 1.0) < 0.05 and rate_at(0.03, 1.0) == pytest.approx(1)
    assert rate_at(0.02, 1.0) > rate_at(0.01, 1.0) and rate_at(0.5, 1.0) > rate_at(0.9, 1.0)
    assert rate_at(1.0, 1.0) == pytest.approx(0.02)


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="training needs the Muon of torch 2.9")
def test_training_repeats_itself_and_leaves_all_blocks_in_place(tokenizer):
    settings = train.Settings(seed=3, tokens=2000, batch=2, short=0.0, drop=0.5, bfloat16=False, compiled=False)
    runs = []
    for _ in range(2):
        model = train.build(tokenizer, settings.seed)
        before = model.model.embed_tokens.weight.detach().clone()
        spent = train.train(model, tokenizer, settings)
        assert len(model.model.layers) == 12 and spent["steps"] == 4 and spent["tokens"] == 4 * 2 * (WINDOW - 1)
        assert not torch.equal(before, model.model.embed_tokens.weight)
        runs.append(model.state_dict())
    assert all(torch.equal(runs[0][name], runs[1][name]) for name in runs[0])


def test_short_windows_are_the_long_ones_cut(tokenizer):
    ids_BT = next(stream.batches(tokenizer, 5, 2))
    cut_BT = train.shortened(ids_BT, tokenizer.bos_token_id)
    assert cut_BT.shape == (8, WINDOW // 4) and (cut_BT[:, 0] == tokenizer.bos_token_id).all()
    assert torch.equal(cut_BT[:, 1:], ids_BT.reshape(8, -1)[:, 1:])


def test_blocks_are_dropped_only_after_copying_is_learnt():
    assert drop_at(0.1, 0.12) == 0 and drop_at(0.35, 0.12) == pytest.approx(0.06) and drop_at(0.8, 0.12) == 0.12


def test_corpus_needs_no_torch():
    code = "import sys, shortlm.embedded.tasks; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"
