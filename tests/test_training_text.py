"""Rows for training: packed text, records with labels on their answers, mixtures, positions to go on from."""

from __future__ import annotations

import json

import numpy as np
import pytest
from transformers import AutoTokenizer

from shortlm.embedded import documents, model_path
from shortlm.errors import TextError
from shortlm.recipe import PhaseSettings
from shortlm.text.records import IGNORED, rows_of
from shortlm.text.rows import first_rows, open_rows

TEXTS = [text for _, text in zip(range(40), documents(3), strict=False)]


def joined_by_eos(tokenizer):
    return [t for x in TEXTS for t in [*tokenizer(x, add_special_tokens=False).input_ids, tokenizer.eos_token_id]]


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(model_path())


@pytest.fixture()
def files(tmp_path):
    """The same documents in every form."""
    records = [{"text": text, "id": i} for i, text in enumerate(TEXTS)]
    (tmp_path / "t.jsonl").write_text("\n\n".join(json.dumps(r) for r in records), encoding="utf-8")
    (tmp_path / "t.json").write_text(json.dumps(records), encoding="utf-8")
    (tmp_path / "t.txt").write_text("\n\n".join(TEXTS), encoding="utf-8")
    return tmp_path


def opened(tokenizer, *data, **settings):
    return open_rows(PhaseSettings(**({"data": list(data), "length": 32, "held_out": 0} | settings)), tokenizer)


def taken(mixture, count):
    return [mixture.next() for _ in range(count)]


@pytest.mark.parametrize("name", ["t.jsonl", "t.json"])
def test_text_is_packed_without_waste(files, tokenizer, name):
    rows = taken(opened(tokenizer, str(files / name)), 30)
    stream = [
        t for text in TEXTS for t in [*tokenizer(text, add_special_tokens=False).input_ids, tokenizer.eos_token_id]
    ]
    assert all(row.ids[0] == tokenizer.bos_token_id and row.labels == row.ids and len(row.ids) == 32 for row in rows)
    assert [t for row in rows for t in row.ids[1:]] == stream[: 30 * 31]


def test_running_text_has_no_separators(files, tokenizer):
    rows = taken(opened(tokenizer, str(files / "t.txt")), 20)
    whole = tokenizer("\n\n".join(TEXTS), add_special_tokens=False).input_ids
    assert [t for row in rows for t in row.ids[1:]] == whole[: 20 * 31]


def test_separator_may_be_a_text(files, tokenizer):
    rows = taken(opened(tokenizer, str(files / "t.jsonl"), separator="\n\n"), 20)
    joined = tokenizer("\n\n".join(TEXTS), add_special_tokens=False).input_ids
    assert [t for row in rows for t in row.ids[1:]] == joined[: 20 * 31]


def test_a_text_that_ends_begins_again(files, tokenizer):
    mixture = opened(tokenizer, str(files / "t.jsonl"))
    stream = [
        t for text in TEXTS for t in [*tokenizer(text, add_special_tokens=False).input_ids, tokenizer.eos_token_id]
    ]
    rows = taken(mixture, 2 * len(stream) // 31)
    assert [t for row in rows for t in row.ids[1:]] == (stream * 2)[: len(rows) * 31]
    assert mixture.sources[0].state["pass"] == 1


def test_documents_apart_begin_with_bos_and_are_marked(files, tokenizer):
    rows = taken(opened(tokenizer, str(files / "t.jsonl"), attend="document"), 30)
    stream = [t for text in TEXTS for t in [*tokenizer(text).input_ids, tokenizer.eos_token_id]]
    assert [t for row in rows for t in row.ids] == stream[: 30 * 32]
    for row in rows:
        assert set(row.starts) == {i for i, token in enumerate(row.ids) if token == tokenizer.bos_token_id}


def test_held_out_windows_come_first_and_are_not_trained_on(files, tokenizer):
    mixture = opened(tokenizer, str(files / "t.jsonl"), held_out=5)
    held = [t for row in next(iter(mixture.held_out.values())) for t in row.ids[1:]]
    lengths = [len(tokenizer(text, add_special_tokens=False).input_ids) + 1 for text in TEXTS]
    used = next(i for i in range(len(TEXTS)) if sum(lengths[:i]) >= 5 * 31)
    first = tokenizer(TEXTS[used], add_special_tokens=False).input_ids
    assert len(held) == 5 * 31
    assert mixture.next().ids[1 : 1 + len(first)] == first[:31]
    passes = taken(mixture, sum(lengths) // 31 + 5)  # the held-out documents stay out of the second pass too
    assert tokenizer.decode(passes[-1].ids) and held[:31] not in [row.ids[1:] for row in passes]


@pytest.mark.parametrize("name", ["t.jsonl", "t.json", "t.txt", "embedded"])
@pytest.mark.parametrize("before", [0, 1, 7, 33])
def test_goes_on_exactly_where_it_was(files, tokenizer, name, before):
    source = name if name == "embedded" else str(files / name)
    mixture = opened(tokenizer, source, held_out=2)
    taken(mixture, before)
    state = json.loads(json.dumps(mixture.state()))
    expected = taken(mixture, 40)
    assert mixture.state() != state
    other = opened(tokenizer, source, held_out=2)
    other.restore(state)
    assert taken(other, 40) == expected
    mixture.restore(state)
    assert taken(mixture, 40) == expected


def test_looking_ahead_changes_nothing(files, tokenizer):
    mixture = opened(tokenizer, str(files / "t.jsonl"))
    ahead = first_rows(mixture, 10)
    assert taken(mixture, 10) == ahead


def test_weights_are_shares_of_the_tokens(files, tokenizer):
    mixture = opened(tokenizer, f"{files / 't.jsonl'}:weight=3", "embedded")
    rows = taken(mixture, 40)
    embedded = taken(opened(tokenizer, "embedded"), 10)
    assert sum(row in embedded for row in rows) == 10


ALPACA = [
    {"instruction": f"Say {i}.", "input": f"The number is {i}." if i % 2 == 0 else "", "output": "Yes. " * (i % 4 + 1)}
    for i in range(20)
]  # fmt: skip


def answer_of(row, tokenizer):
    return tokenizer.decode([label for label in row.labels if label != IGNORED])


@pytest.mark.parametrize(
    ("kind", "record", "answer", "prompt"),
    [
        ("alpaca", ALPACA[0], "Yes. </s>", "### Input:\nThe number is 0.\n\n### Response:\n"),
        ("alpaca", ALPACA[1], "Yes. Yes. </s>", "Instruction:\nSay 1.\n\n### Response:\n"),
        ("completion", {"prompt": "Who? ", "completion": "Rosa."}, "Rosa.</s>", "Who? "),
    ],
)
def test_only_answers_are_learnt(tokenizer, kind, record, answer, prompt):
    (row,) = rows_of([record], kind, tokenizer, 400, "x")
    plain = tokenizer.decode(row.ids)
    learnt = [i for i, label in enumerate(row.labels) if label != IGNORED]
    assert answer_of(row, tokenizer).split() == answer.split() and learnt == list(range(learnt[0], len(row.ids)))
    shown = tokenizer.decode(tokenizer(prompt, add_special_tokens=False).input_ids)
    assert tokenizer.decode(row.ids[: learnt[0]]).endswith(shown.rstrip("\n")[-20:].rstrip()) or shown in plain
    assert row.ids[0] == tokenizer.bos_token_id and row.ids[-1] == tokenizer.eos_token_id


TEMPLATE = (
    "{% for m in messages %}{{ '[' + m.role + '] ' + m.content + ('</s>' if m.role == 'assistant' else '') }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '[assistant] ' }}{% endif %}"
)


def test_chat_learns_every_answer_in_the_tokenizers_own_template():
    tokenizer = AutoTokenizer.from_pretrained(model_path())
    messages = [
        {"role": "user", "content": "Who has the rope?"},
        {"role": "assistant", "content": "Tobin."},
        {"role": "user", "content": "Who has the kite?"},
        {"role": "assistant", "content": "Ivy has the kite."},
    ]
    with pytest.raises(TextError, match="the tokenizer has no chat template; use prompt and completion"):
        rows_of([{"messages": messages}], "chat", tokenizer, 400, "x")
    tokenizer.chat_template = TEMPLATE
    with pytest.raises(TextError, match="x: 'messages' of a record is no list of messages"):
        rows_of([{"messages": None}], "chat", tokenizer, 400, "x")
    (row,) = rows_of([{"messages": messages}], "chat", tokenizer, 400, "x")
    whole = tokenizer.apply_chat_template(messages, tokenize=False)
    assert row.ids == tokenizer(whole, add_special_tokens=False).input_ids
    assert answer_of(row, tokenizer).split() == ["Tobin.</s>", "Ivy", "has", "the", "kite.</s>"]
    tokenizer.chat_template = TEMPLATE.replace("m.content", "(m.content if loop.last else '...')")
    with pytest.raises(TextError, match="rewrites earlier turns"):
        rows_of([{"messages": messages}], "chat", tokenizer, 400, "x")


def test_records_are_cut_off_and_those_without_an_answer_left_out(tokenizer, tmp_path):
    short = {"prompt": "Who? ", "completion": "Rosa."}
    long = {"prompt": "Who has the rope? " * 10, "completion": "Rosa."}
    assert [row.targets for row in rows_of([short, long], "completion", tokenizer, 16, "x")] == [3, 0]
    (tmp_path / "r.json").write_text(json.dumps([short, long] * 5), encoding="utf-8")
    mixture = opened(tokenizer, str(tmp_path / "r.json"), length=16, held_out=4)
    order = np.random.default_rng(42).permutation(10)  # drawn before any is left out
    assert len(mixture.held_out[str(tmp_path / "r.json")]) == sum(i % 2 == 0 for i in order[:4])
    assert mixture.records() == sum(i % 2 == 0 for i in order[4:])
    with pytest.raises(TextError, match="x: no record has an answer within 16 tokens; give a larger --length"):
        rows_of([long], "completion", tokenizer, 16, "x")


def test_records_are_held_out_as_datasets_does_and_shuffled_anew(tmp_path, tokenizer):
    datasets = pytest.importorskip("datasets")
    path = tmp_path / "alpaca.json"
    path.write_text(json.dumps(ALPACA), encoding="utf-8")
    mixture = opened(tokenizer, str(path), length=400, held_out=6)
    split = datasets.Dataset.from_list(ALPACA).train_test_split(test_size=6, seed=42, shuffle=True)
    rows = dict(zip(range(20), rows_of(ALPACA, "alpaca", tokenizer, 400, "x"), strict=True))
    number = {i: ALPACA.index(record) for i, record in enumerate(split["test"])}
    assert mixture.held_out[str(path)] == [rows[number[i]] for i in range(6)]
    first, second = taken(mixture, 14), taken(mixture, 14)
    key = lambda row: row.ids  # noqa: E731
    assert first != second and sorted(first, key=key) == sorted(second, key=key)
    assert sorted(first, key=key) == sorted((rows[ALPACA.index(r)] for r in split["train"]), key=key)


def test_sources_of_one_name_are_validated_on_apart(tokenizer):
    mixture = opened(tokenizer, "embedded:seed=3", "embedded:seed=4", held_out=2)
    assert list(mixture.held_out) == ["embedded", "embedded (2)"]


def test_tokenizers_without_positions_are_refused():
    class Slow:
        is_fast = False

    with pytest.raises(TextError, match="x: the tokenizer tells no character positions"):
        rows_of(ALPACA, "alpaca", Slow(), 100, "x")


def test_a_share_of_the_records_can_be_held_out(tmp_path, tokenizer):
    path = tmp_path / "alpaca.json"
    path.write_text(json.dumps(ALPACA), encoding="utf-8")
    assert len(opened(tokenizer, str(path), length=400, held_out=0.25).held_out[str(path)]) == 5


@pytest.mark.parametrize(
    ("content", "name", "settings", "message"),
    [
        ("[]", "a.json", {}, "a.json: is empty"),
        ("{", "a.json", {}, "a.json: is not JSON"),
        ('{"a": 1}', "a.json", {}, "a.json: holds a dict, a list of records is needed"),
        ('{"text": "x"}\n{"te', "a.jsonl", {}, "a.jsonl: at byte 14 is no JSON"),
        ('{"body": "x"}', "a.jsonl", {}, "has no text field 'text' (fields: body); choose one as"),
        (
            '[{"instruction": "a", "output": "b"}]',
            "a.json",
            {"held_out": 1, "length": 400},
            "has 1 records and 1 are to be held out",
        ),
        ('{"text": "Rosa likes honey."}', "a.jsonl", {"held_out": 90}, "gives less than the 90 windows of 32"),
        ('{"text": "Rosa likes honey."}', "a.jsonl", {"held_out": 0.5}, "give --held-out 64, not a share"),
        ('{"text": ""}', "a.jsonl", {"separator": ""}, "a.jsonl: there is no text"),
        (
            '{"text": "Rosa has a kite. Rosa has it."}',
            "a.jsonl",
            {"held_out": 1, "length": 8},
            "no document beyond the 1 windows",
        ),
    ],
)
def test_bad_data(tmp_path, tokenizer, content, name, settings, message):
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(TextError) as error:
        taken(opened(tokenizer, str(tmp_path / name), **settings), 3)
    assert message in str(error.value)


def test_missing_data(tokenizer):
    with pytest.raises(TextError, match="no training data; give --data FILE"):
        opened(tokenizer)
    with pytest.raises(TextError, match=r"no such data file; a \.jsonl, \.json or \.txt file or a hub data set"):
        opened(tokenizer, "./nowhere.jsonl")
    with pytest.raises(TextError, match="the model has no tokenizer"):
        opened(None, "embedded")


def test_a_hub_data_set_goes_on_from_its_state(tmp_path, tokenizer, monkeypatch):
    datasets = pytest.importorskip("datasets")
    stream = datasets.Dataset.from_list([{"text": text} for text in TEXTS]).to_iterable_dataset(num_shards=3)
    monkeypatch.setattr(datasets, "load_dataset", lambda *a, **k: stream)
    mixture = opened(tokenizer, "someone/texts")
    taken(mixture, 9)
    state = json.loads(json.dumps(mixture.state()))
    expected = taken(mixture, 20)
    other = opened(tokenizer, "someone/texts")
    other.restore(state)
    assert taken(other, 20) == expected
