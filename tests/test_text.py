"""Windows: lengths, BOS policies, packing, hashes; ids; errors."""

from __future__ import annotations

import json
from itertools import islice

import numpy
import pytest
import torch

from shortlm.embedded import documents, model_path
from shortlm.errors import TextError
from shortlm.model import open_tokenizer
from shortlm.recipe import TextSettings
from shortlm.text import open_windows, windows_from_ids
from shortlm.text.sources import open_source
from shortlm.text.tokenizing import token_ids

TOKENIZER = open_tokenizer(model_path())
BOS = TOKENIZER.bos_token_id


def windows(**settings):
    return open_windows(TextSettings(**{"text": "embedded", **settings}), TOKENIZER, len(TOKENIZER))


def plain(text: str) -> list[int]:
    return TOKENIZER(text, add_special_tokens=False).input_ids


def test_joined_windows_are_those_of_the_whole_text():
    stream = plain("\n\n".join(islice(documents(7), 400)))
    got = windows(seed=7, sequences=20, length=32, bos="none")
    assert got.ids_BT.flatten().tolist() == stream[: 20 * 32]
    held_out = windows(seed=7, sequences=5, skip=15, length=32, bos="none")
    assert torch.equal(held_out.ids_BT, got.ids_BT[15:])


def test_bos_policies():
    none, first, every = (windows(sequences=3, length=16, bos=bos).ids_BT for bos in ("none", "first", "every"))
    assert every.shape == (3, 17) and every[:, 0].tolist() == [BOS] * 3
    assert torch.equal(every[:, 1:], none)
    assert first.shape == (3, 16) and first[0, 0] == BOS
    assert first.flatten()[1:].tolist() == none.flatten()[:-1].tolist()
    assert windows(sequences=3, length=16).facts.bos == "every"


def test_text_file_and_tail(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("one two three\nfour five\n" * 50, encoding="utf-8")
    stream = plain(path.read_text(encoding="utf-8"))
    got = windows(text=str(path), sequences=0, length=16, bos="none")
    assert got.ids_BT.flatten().tolist() == stream[: len(stream) // 16 * 16]


def test_jsonl_and_documents(tmp_path):
    path = tmp_path / "a.jsonl"
    texts = [" ".join(islice(documents(s), 3)) for s in range(6)] + ["short"]
    path.write_text("\n".join(json.dumps({"body": t}) for t in texts) + "\n", encoding="utf-8")
    joined = windows(text=str(path), field="body", sequences=2, length=20, bos="none")
    assert joined.ids_BT.flatten().tolist() == plain("\n\n".join(texts))[:40]
    rows = windows(text=str(path), field="body", sequences=0, length=20, packing="documents", bos="none").ids_BT
    assert len(rows) == 6
    for row, text in zip(rows.tolist(), texts, strict=False):
        tokens = plain(text)
        assert any(tokens[i : i + 20] == row for i in range(len(tokens)))
    again = windows(text=str(path), field="body", sequences=0, length=20, packing="documents", bos="none")
    assert torch.equal(rows, again.ids_BT)


def test_hash_tells_windows_apart():
    one, same, other = windows(seed=1), windows(seed=1), windows(seed=2)
    assert one.facts.sha256 == same.facts.sha256 != other.facts.sha256


@pytest.mark.parametrize("wrap", [False, True])
def test_ids_from_files(tmp_path, wrap):
    ids = [[1, 2, 3], [4, 5, 6]]
    (tmp_path / "a.json").write_text(json.dumps({"ids": ids} if wrap else ids))
    numpy.save(tmp_path / "a.npy", numpy.array(ids))
    for name in ("a.json", "a.npy"):
        assert windows(ids=str(tmp_path / name)).ids_BT.tolist() == ids


def test_ragged_ids_are_padded_and_masked():
    got = windows_from_ids([[1, 2, 3], [4, 5]], 10)
    assert got.keep_BT.tolist() == [[True] * 3, [True, True, False]]
    assert got.facts.tokens == 5
    assert windows_from_ids(torch.tensor([[1, 2]]), 10).ids_BT.tolist() == [[1, 2]]


def test_streaming_takes_only_what_is_needed(tmp_path):
    """Lines that are never reached may even be broken."""
    path = tmp_path / "a.jsonl"
    good = [json.dumps({"text": t}) for t in islice(documents(0), 300)]
    path.write_text("\n".join([*good, "broken"]), encoding="utf-8")
    assert len(windows(text=str(path), sequences=5, length=16).ids_BT) == 5
    with pytest.raises(TextError, match="line 301: is not valid JSON"):
        windows(text=str(path), sequences=0, length=16)


def write(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("name", "content", "settings", "message"),
    [
        ("a.txt", b"", {}, "gives no window of 128 tokens (the text is empty or too short); give more text"),
        ("a.txt", b"a few words", {}, "windows of 128, and 10 are needed; give more text, or fewer --sequences"),
        ("a.txt", b"\xff\xfe bad", {}, "is not UTF-8 text"),
        ("a.jsonl", b'{"body": "x"}\n', {}, "line 1: has no text field 'text' (fields: body); choose one with --field"),
        ("a.jsonl", b'"x"\n', {}, "line 1: has no text field 'text' (fields: none)"),
        ("a.jsonl", b"{\n", {}, "line 1: is not valid JSON"),
    ],
)
def test_bad_text(tmp_path, name, content, settings, message):
    with pytest.raises(TextError) as error:
        windows(text=str(write(tmp_path, name, content)), **settings)
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_a_list_of_records_reads_as_lines_of_them_do(tmp_path, name, mark):
    records = [{"text": text} for text in islice(documents(3), 40)]
    lines = write(tmp_path, name, mark + "\n".join(map(json.dumps, records)).encode())
    expected = windows(text=str(lines), sequences=4).ids_BT
    listed = write(tmp_path, name, mark + b"\n " + json.dumps(records, indent=1).encode())
    assert torch.equal(windows(text=str(listed), sequences=4).ids_BT, expected)
    write(tmp_path, name, b'[{"text": "a"}, {"body": "x"}]')
    with pytest.raises(TextError, match=r"record 2: has no text field 'text' \(fields: body\)"):
        windows(text=str(listed))
    write(tmp_path, name, b'[{"text": "a"},')
    with pytest.raises(TextError, match="is not valid JSON"):
        windows(text=str(listed))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[[1, 2], [3, 9999]]", "token id 9999 is outside the vocabulary"),
        (b"[[1, 2], [3, 0.5]]", "token id 0.5 is outside the vocabulary"),
        (b"[1, 2]", "token ids must be sequences x tokens"),
        (b"[[1]]", "with at least 2 tokens in each"),
        (b"[]", "token ids must be"),
        (b"[[", "a.json: is not valid JSON"),
    ],
)
def test_bad_ids(tmp_path, content, message):
    with pytest.raises(TextError) as error:
        windows(ids=str(write(tmp_path, "a.json", content)))
    assert message in str(error.value)


def test_missing_files_and_sources(tmp_path):
    with pytest.raises(TextError, match="no such text file"):
        windows(text=str(tmp_path / "no.txt"))
    with pytest.raises(TextError, match="no such file of token ids"):
        windows(ids=str(tmp_path / "no.json"))
    with pytest.raises(TextError, match="this text is endless; say how many windows"):
        windows(sequences=0)
    with pytest.raises(TextError, match=r"can't be streamed from the hub|need an extra"):
        windows(text="nobody/nothing")


def test_no_tokenizer_and_no_bos():
    with pytest.raises(TextError, match="the model has no tokenizer; put its tokenizer files into the folder"):
        open_windows(TextSettings(text="embedded"), None, 10)

    class Bare:
        bos_token_id = None

        def __call__(self, text, **kwargs):
            return type("E", (), {"input_ids": [1] * len(text)})()

    with pytest.raises(TextError, match="--bos every: this tokenizer has no BOS token; use --bos none"):
        open_windows(TextSettings(text="embedded", bos="every"), Bare(), 10)
    assert open_windows(TextSettings(text="embedded", sequences=2), Bare(), 10).facts.bos == "none"


def tokenizer_of(kind: str):
    """Tokenizers of every common build, trained on the made-up world: with and without splitting into words."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    texts = list(islice(documents(1), 200))
    if kind == "bytes":  # GPT-2, Llama 3, Qwen
        made, trainer = Tokenizer(models.BPE()), trainers.BpeTrainer
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        made.decoder = decoders.ByteLevel()
    elif kind == "metaspace":  # Llama 1 and 2: a space is put before the text, nothing splits it into words
        made, trainer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>")), trainers.BpeTrainer
        made.pre_tokenizer = pre_tokenizers.Metaspace()  # in training alone
    else:  # T5, Gemma 1's ancestors
        made, trainer = Tokenizer(models.Unigram()), trainers.UnigramTrainer
        made.pre_tokenizer = pre_tokenizers.Metaspace()
    extra = {"unk_token": "<unk>"} if kind == "unigram" else {}
    special = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256))] if kind == "metaspace" else ["<unk>"]
    made.train_from_iterator(texts, trainer(vocab_size=700, special_tokens=special, show_progress=False, **extra))
    if kind == "metaspace":
        made.pre_tokenizer = None
        made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return PreTrainedTokenizerFast(tokenizer_object=made)


@pytest.mark.parametrize("kind", ["own", "bytes", "metaspace", "unigram"])
def test_long_text_is_tokenised_in_pieces_as_it_is_as_a_whole(kind, monkeypatch):
    tokenizer = TOKENIZER if kind == "own" else tokenizer_of(kind)
    text = "\n\n".join(islice(documents(5), 60)) + "  Größe 日本語 🙂\t\n\n" * 40 + " ".join(islice(documents(6), 40))
    whole = tokenizer(text, add_special_tokens=False).input_ids
    longest, call = [], tokenizer.__class__.__call__
    monkeypatch.setattr(
        tokenizer.__class__, "__call__", lambda self, t, **options: longest.append(len(t)) or call(self, t, **options)
    )
    for piece in (1500, 2000, 5001):
        monkeypatch.setattr("shortlm.text.tokenizing.PIECE", piece)
        monkeypatch.setattr("shortlm.text.tokenizing.OVERLAP", 200)
        longest.clear()
        assert token_ids(tokenizer, text, 10**6, "t").tolist() == whole
        assert max(longest) <= piece and len(longest) > 3


def test_a_text_of_one_line_is_read_in_pieces(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    path.write_text("one two three four " * 20_000, encoding="utf-8")
    expected = windows(text=str(path), sequences=0, length=64)
    monkeypatch.setattr("shortlm.text.sources.LONGEST_PIECE", 1000)
    monkeypatch.setattr("shortlm.text.tokenizing.PIECE", 10_000)
    assert torch.equal(windows(text=str(path), sequences=0, length=64).ids_BT, expected.ids_BT)
    few = windows(text=str(path), sequences=3, length=64)
    assert torch.equal(few.ids_BT, expected.ids_BT[:3])


def test_ids_of_another_models_tokenizer_are_refused():
    """Read from disk row by row they would be rows of the next tensor."""
    settings = TextSettings(text="embedded", sequences=3, length=16)
    with pytest.raises(
        TextError, match=r"embedded: token id \d+ is outside the model's vocabulary \(0..99\); the tokenizer in"
    ):
        open_windows(settings, TOKENIZER, 100)


@pytest.mark.parametrize("settings", [{"sequences": 10**7}, {"skip": 10**7}])
def test_an_endless_text_has_an_end(settings):
    with pytest.raises(TextError, match="embedded: at most 33,554,432 tokens are made of it"):
        windows(**settings)


def test_surrogates_are_no_text(tmp_path):
    path = write(tmp_path, "a.jsonl", b'{"text": "a \\ud800 b"}\n')
    with pytest.raises(TextError, match=r"a\.jsonl: holds characters that are no valid text"):
        windows(text=str(path))


@pytest.mark.parametrize("separator", ["\u2028", "\u0085", "\x0b"])
def test_a_jsonl_line_ends_at_a_newline_alone(tmp_path, separator):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"text": f"one{separator}two " * 40}, ensure_ascii=False) + "\n", encoding="utf-8")
    expected = plain(f"one{separator}two " * 40)
    assert windows(text=str(path), sequences=1, length=16, bos="none").ids_BT.flatten().tolist() == expected[:16]


@pytest.mark.parametrize("name", ["a.npy", "b.npy"])
def test_bad_npy(tmp_path, name):
    path = tmp_path / name
    if name == "a.npy":
        path.write_bytes(b"")
    else:
        numpy.savez(tmp_path / "b.npz", ids=numpy.ones((2, 3), dtype=int))
        (tmp_path / "b.npz").rename(path)
    with pytest.raises(TextError, match=f"{name}: (can't be read as token ids|is an archive)"):
        windows(ids=str(path))


def test_a_letter_repeated_for_pages_is_no_text(monkeypatch):
    """Nothing tells where its tokens begin; as a whole it would take memory without bound."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    monkeypatch.setattr("shortlm.text.tokenizing.PIECE", 2000)
    monkeypatch.setattr("shortlm.text.tokenizing.OVERLAP", 100)
    made = Tokenizer(models.BPE(vocab={"a": 0, "aa": 1, "b": 2}, merges=[("a", "a")]))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made)
    assert token_ids(tokenizer, "aab" * 3000, 3, "t").tolist() == [1, 2] * 3000
    with pytest.raises(TextError, match="t: 800 characters from character 1,200 on hold nothing"):
        token_ids(tokenizer, "b" + "a" * 9000, 3, "t")


def test_an_alignment_that_fits_by_chance_is_that_of_the_whole(monkeypatch):
    """Pieces may agree within a run of letters only if they split it alike, and then they are right."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    monkeypatch.setattr("shortlm.text.tokenizing.PIECE", 2000)
    monkeypatch.setattr("shortlm.text.tokenizing.OVERLAP", 100)
    made = Tokenizer(models.BPE(vocab={"a": 0, "aa": 1}, merges=[("a", "a")]))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made)
    assert token_ids(tokenizer, "a" * 9000, 2, "t").tolist() == [1] * 4500


def test_documents_are_shuffled_as_datasets_does_and_counted(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text("".join(f'{{"text": "document {i}"}}\n' for i in range(20)))
    settings = TextSettings(text=str(path), shuffle=True, documents=5, seed=3)
    expected = [f"document {i}" for i in numpy.random.default_rng(3).permutation(20)[:5]]
    assert list(open_source(settings).pieces) == expected
    assert list(open_source(settings.model_copy(update={"shuffle": False})).pieces) == [
        f"document {i}" for i in range(5)
    ]
    with pytest.raises(TextError, match="embedded: this text is endless, so it can't be shuffled; leave out --shuffle"):
        open_source(TextSettings(text="embedded", shuffle=True))
