"""Rows for training: packed text, records with labels on their answers, mixtures, positions to go on from."""

from __future__ import annotations

import json

import numpy as np
import pytest
from transformers import AutoTokenizer

from shortlm.embedded import documents, model_path
from shortlm.errors import TextError
from shortlm.recipe import PhaseSettings
from shortlm.text.mixture import open_rows
from shortlm.text.readers import LONGEST_PIECE, Reader
from shortlm.text.records import IGNORED, PackedRows, Row, rows_of

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
    return open_rows(PhaseSettings(**({"data": list(data), "length": 32, "held_out": 0} | settings)), tokenizer, 1024)


def made(items, kind, tokenizer, length, vocabulary=1024):
    """Rows of records that stand in no file."""
    numbered = [(item, number) for number, item in enumerate(items, start=1)]
    reader = Reader("x", lambda at: iter(numbered), lambda at: f"record {(at or 0) + 1}", lambda at: True)
    return rows_of(reader, kind, tokenizer, length, vocabulary)


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
    assert mixture.state()["sources"][0]["pass"] == 1


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
    ahead = mixture.first(10)
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
def test_only_answers_have_labels(tokenizer, kind, record, answer, prompt):
    (row,) = made([record], kind, tokenizer, 400)
    plain = tokenizer.decode(row.ids)
    labelled = [i for i, label in enumerate(row.labels) if label != IGNORED]
    assert answer_of(row, tokenizer).split() == answer.split() and labelled == list(range(labelled[0], len(row.ids)))
    shown = tokenizer.decode(tokenizer(prompt, add_special_tokens=False).input_ids)
    assert tokenizer.decode(row.ids[: labelled[0]]).endswith(shown.rstrip("\n")[-20:].rstrip()) or shown in plain
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
    with pytest.raises(TextError, match="x: record 1 has chat messages and the tokenizer has no chat template"):
        made([{"messages": messages}], "chat", tokenizer, 400)
    tokenizer.chat_template = TEMPLATE
    with pytest.raises(TextError, match="x: record 1 has no list of messages"):
        made([{"messages": None}], "chat", tokenizer, 400)
    (row,) = made([{"messages": messages}], "chat", tokenizer, 400)
    whole = tokenizer.apply_chat_template(messages, tokenize=False)
    assert row.ids == tokenizer(whole, add_special_tokens=False).input_ids
    assert answer_of(row, tokenizer).split() == ["Tobin.</s>", "Ivy", "has", "the", "kite.</s>"]
    tokenizer.chat_template = TEMPLATE.replace("m.content", "(m.content if loop.last else '...')")
    with pytest.raises(TextError, match="rewrites earlier turns"):
        made([{"messages": messages}], "chat", tokenizer, 400)


def test_records_are_cut_off_and_those_without_an_answer_left_out(tokenizer, tmp_path):
    short = {"prompt": "Who? ", "completion": "Rosa."}
    long = {"prompt": "Who has the rope? " * 10, "completion": "Rosa."}
    assert [row.targets for row in made([short, long], "completion", tokenizer, 16)] == [3, 0]
    (tmp_path / "r.json").write_text(json.dumps([short, long] * 5), encoding="utf-8")
    mixture = opened(tokenizer, str(tmp_path / "r.json"), length=16, held_out=4)
    order = np.random.default_rng(42).permutation(10)  # drawn before any is left out
    assert len(mixture.held_out[str(tmp_path / "r.json")]) == sum(i % 2 == 0 for i in order[:4])
    assert mixture.records() == sum(i % 2 == 0 for i in order[4:])
    with pytest.raises(TextError, match="x: no record has an answer within 16 tokens; give a larger --length"):
        made([long], "completion", tokenizer, 16)


def test_records_are_held_out_as_datasets_does_and_shuffled_anew(tmp_path, tokenizer):
    datasets = pytest.importorskip("datasets")
    path = tmp_path / "alpaca.json"
    path.write_text(json.dumps(ALPACA), encoding="utf-8")
    mixture = opened(tokenizer, str(path), length=400, held_out=6)
    split = datasets.Dataset.from_list(ALPACA).train_test_split(test_size=6, seed=42, shuffle=True)
    rows = dict(zip(range(20), made(ALPACA, "alpaca", tokenizer, 400), strict=True))
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
        made(ALPACA, "alpaca", Slow(), 100)


def test_a_share_of_the_records_can_be_held_out(tmp_path, tokenizer):
    path = tmp_path / "alpaca.json"
    path.write_text(json.dumps(ALPACA), encoding="utf-8")
    assert len(opened(tokenizer, str(path), length=400, held_out=0.25).held_out[str(path)]) == 5


@pytest.mark.parametrize(
    ("content", "name", "settings", "message"),
    [
        ("[]", "a.json", {}, "a.json: is empty"),
        ("{", "a.json", {}, "a.json: line 1 is not valid JSON"),
        ("[{}", "a.json", {}, "a.json: is not valid JSON"),
        ("[{}", "a.jsonl", {}, "a.jsonl: is not valid JSON"),
        ('{"a": 1}', "a.json", {}, "a.json: line 1 has no text field 'text' (fields: a); choose one as"),
        ('\n{"text": "x"}\n\n{"te', "a.jsonl", {}, "a.jsonl: line 4 is not valid JSON"),
        ('{"text": "x"}\n\n{"body": "x"}', "a.jsonl", {}, "a.jsonl: line 3 has no text field 'text' (fields: body)"),
        ('[{"text": "x"}, null]', "a.json", {}, "a.json: record 2 has no text field 'text' (it is null)"),
        ('[{"text": "x"}, ["y"]]', "a.json", {}, "a.json: record 2 has no text field 'text' (it is a list)"),
        ('{"text": 5}', "a.jsonl", {}, "a.jsonl: line 1 has no text field 'text' (fields: text)"),
        ('{"text": "a \\ud800 b"}', "a.jsonl", {}, "a.jsonl: line 1 holds half of a surrogate pair"),
        ("[" * 100_000, "a.json", {}, "a.json: is nested too deeply"),
        ('{"text": ' + "[" * 100_000, "a.jsonl", {}, "a.jsonl: line 1 is nested too deeply; one object per line"),
        ('{"text": ' + "7" * 5000 + "}", "a.jsonl", {}, "a.jsonl: line 1 is not valid JSON (Exceeds the limit"),
        (b"\x93\xfa", "a.txt", {}, "a.txt: is not UTF-8 text (byte 0); convert it first"),
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
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(TextError) as error:
        taken(opened(tokenizer, str(tmp_path / name), **settings), 3)
    assert message in str(error.value) and len(str(error.value)) < 600 and "\n" not in str(error.value)


ALPACAS, ASKED = {"instruction": "a", "output": "b"}, {"prompt": "a", "completion": "b"}


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (ALPACAS | {"output": None}, "record 2 has null in its field 'output'; a text is needed"),
        (ALPACAS | {"instruction": ["a"]}, "record 2 has a list in its field 'instruction'; a text is needed"),
        (ALPACAS | {"input": {}}, "record 2 has an object in its field 'input'; a text is needed"),
        (ALPACAS | {"input": False}, "record 2 has true or false in its field 'input'; a text is needed"),
        (ALPACAS | {"output": "\ud800"}, "record 2 holds half of a surrogate pair"),
        ({"instruction": "a"}, "record 2 has no field 'output', which alpaca needs (fields: instruction)"),
        ([1, 2], "record 2 has no field 'instruction', which alpaca needs (it is a list)"),
        (None, "record 2 has no field 'instruction', which alpaca needs (it is null)"),
        (dict.fromkeys((f"field {i}" for i in range(10**6)), 1), "field 9 and 999,990 more)"),
        ({"x" * 10**6: 1}, "which alpaca needs (fields: xxxxxx"),
    ],
)
def test_records_that_do_not_fit_are_named_by_their_place(tmp_path, tokenizer, record, message):
    (tmp_path / "a.json").write_text(json.dumps([ALPACAS, record, ALPACAS]), encoding="utf-8")
    with pytest.raises(TextError) as error:
        opened(tokenizer, str(tmp_path / "a.json"))
    assert message in str(error.value) and len(str(error.value)) < 600
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, [ALPACAS, record])), encoding="utf-8")
    with pytest.raises(TextError, match=r"a\.jsonl: line 2 h"):
        opened(tokenizer, str(tmp_path / "a.jsonl"))


def test_numbers_in_records_are_taken_as_text(tokenizer):
    rows = made([{"prompt": 2, "completion": 4.5}, {"prompt": "2", "completion": "4.5"}], "completion", tokenizer, 40)
    assert rows[0] == rows[1]
    none, empty = made([ALPACAS | {"input": None}, ALPACAS | {"input": ""}], "alpaca", tokenizer, 400)
    assert none == empty


@pytest.mark.parametrize("content", [None, True, {"a": 1}, [1]])
def test_messages_without_text_are_refused(content):
    tokenizer = AutoTokenizer.from_pretrained(model_path())
    tokenizer.chat_template = TEMPLATE
    messages = [{"role": "user", "content": content}, {"role": "assistant", "content": "Rosa."}]
    with pytest.raises(TextError, match=r"x: record 1 has .* in its field 'content'; a text is needed"):
        made([{"messages": messages}], "chat", tokenizer, 400)


def test_a_token_that_the_model_does_not_know_is_refused(tmp_path, tokenizer):
    (tmp_path / "t.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in TEXTS), encoding="utf-8")
    (tmp_path / "a.json").write_text(json.dumps(ALPACA), encoding="utf-8")
    for name in ("t.jsonl", "a.json", "embedded"):
        data = name if name == "embedded" else str(tmp_path / name)
        with pytest.raises(
            TextError, match=r"token id \d+ is outside the model's vocabulary \(0\.\.299\); the tok"
        ) as e:
            open_rows(PhaseSettings(data=[data], length=400), tokenizer, 300)
        assert str(e.value).startswith(f"{data}: ")


@pytest.mark.parametrize("suffix", ["json", "jsonl"])
def test_lists_and_lines_are_told_apart_by_their_content(tmp_path, tokenizer, suffix):
    given = [{"text": text} for text in TEXTS]
    lists, lines = tmp_path / f"list.{suffix}", tmp_path / f"lines.{suffix}"
    lists.write_text("\n " + json.dumps(given, indent=1), encoding="utf-8")
    lines.write_text("\ufeff" + "\n".join(map(json.dumps, given)), encoding="utf-8")
    assert taken(opened(tokenizer, str(lists)), 40) == taken(opened(tokenizer, str(lines)), 40)


def spread(text, size):
    return (text * (size // len(text) + 1))[:size]


@pytest.mark.parametrize(
    ("text", "ends"),
    [
        (spread("Rosa likes honey. ", 700_000), "word"),
        (spread("\u4e16\u754c\U0001f30d", 300_000), "character"),
        (spread("a" * 1000 + "\n", 700_000), "line"),
    ],
)
def test_one_long_line_is_read_in_bounded_pieces(tmp_path, text, ends):
    from shortlm.recipe import SourceSettings
    from shortlm.text.readers import open_reader

    (tmp_path / "t.txt").write_bytes(text.encode())
    reader = open_reader(SourceSettings(data=str(tmp_path / "t.txt")))
    items = list(reader.read(None))
    pieces = [piece for piece, _ in items]
    assert "".join(pieces) == text and max(len(piece.encode()) for piece in pieces) <= LONGEST_PIECE
    assert len(pieces) <= 2 + 2 * len(text.encode()) // LONGEST_PIECE
    if ends == "word":
        assert all(piece.startswith(" ") for piece in pieces[1:])
    if ends == "line":
        assert all(piece.endswith("\n") for piece in pieces[:-1])
    for i, (_, behind) in enumerate(items):
        assert [piece for piece, _ in reader.read(behind)] == pieces[i + 1 :]


def test_packed_rows_are_the_rows_that_were_packed():
    rows = [Row([5, 6, 7], [IGNORED, 6, 7]), Row([], []), Row([70_000], [IGNORED]), Row([1, 2], [1, 2])]
    assert list(PackedRows(rows)) == rows and len(PackedRows(rows)) == 4


def test_a_long_document_is_not_copied_for_every_row(tmp_path, tokenizer):
    (tmp_path / "t.jsonl").write_text(json.dumps({"text": " ".join(TEXTS * 30)}), encoding="utf-8")
    mixture = opened(tokenizer, str(tmp_path / "t.jsonl"))
    mixture.first(200)
    assert len({id(places[0].tokens) for _, (_, places) in mixture._ahead}) == 1
    seen = json.loads(json.dumps(mixture.state()))
    taken(mixture, 3)
    behind = taken(mixture, 300)
    mixture.restore(seen)
    taken(mixture, 3)
    assert taken(mixture, 300) == behind


@pytest.mark.parametrize(
    "change",
    [None, [], {}, {"given": [1]}, {"given": None}, {"given": [-1]}, {"given": [True]}, {"given": [1, 2]},
     {"sources": None}, {"sources": [None]}, {"sources": [[]]}, {"sources": [{}]},
     {"left": None}, {"left": ["a"]}, {"left": [10**6]}, {"at": -1}, {"at": "x"}, {"at": [1]}, {"at": 10**30},
     {"at": 1.5},     {"pass": None}, {"pass": -1}, {"starts": [10**6]}, {"more": 1}],
)  # fmt: skip
def test_what_is_no_position_is_refused(files, tokenizer, change):
    mixture = opened(tokenizer, str(files / "t.jsonl"))
    taken(mixture, 3)
    state = mixture.state()
    good = json.loads(json.dumps(state))
    if not change:
        state = change
    elif "given" in change or "sources" in change:
        state |= change | ({"more": 1} if change == {"given": [1]} else {})
    else:
        state["sources"][0] |= change
    with pytest.raises(ValueError, match="position in"):
        mixture.restore(state)
    mixture.restore(good)


def test_every_document_is_tokenized_once(files, tokenizer):
    class Counting:
        calls: list[str] = []

        def __getattr__(self, name):
            return getattr(tokenizer, name)

        def __call__(self, text, **options):
            self.calls.append(text)
            return tokenizer(text, **options)

    mixture = opened(Counting(), str(files / "t.jsonl"), held_out=2)
    mixture.first(30)
    taken(mixture, 60)
    read = [text for text in Counting.calls if text in TEXTS]
    assert 10 < len(read) == len(set(read))


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
