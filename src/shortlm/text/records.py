"""Instruction records as token ids with labels on the answers only.

Three forms: alpaca (instruction, input, output; in Alpaca's prompt), completion (prompt, completion) and chat
(messages, in the tokenizer's own template; every answer of the assistant counts). A record is laid out as one
text with the character spans of its answers and tokenized at once. A token is a label if any of it lies in a span: the
space before an answer is often part of its first token.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from shortlm.errors import TextError, reason
from shortlm.paths import is_text
from shortlm.text.readers import HALF, Reader, fields_of, json_name
from shortlm.vocabulary import refuse_foreign_ids

IGNORED = -100
"""Label of tokens that don't count in the loss, as in transformers."""

# Stanford Alpaca's prompts (github.com/tatsu-lab/stanford_alpaca), which the published recipes use.
WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n"
)
WITHOUT_INPUT = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Response:\n"
)
FIELDS = {"chat": ("messages",), "completion": ("prompt", "completion"), "alpaca": ("instruction", "output")}


class Row(NamedTuple):
    """Token ids with labels, not shifted; `starts`: where documents begin, if they are to be kept apart."""

    ids: list[int]
    labels: list[int]
    starts: tuple[int, ...] = ()

    def next_labels(self) -> list[int]:
        """Labels moved to where they are predicted; the first token, of a document kept apart too, never is."""
        labels = [*self.labels[1:], IGNORED]
        for start in self.starts:
            if start:
                labels[start - 1] = IGNORED
        return labels

    @property
    def targets(self) -> int:
        """Tokens that have a label."""
        return sum(label != IGNORED for label in self.next_labels())


class PackedRows(Sequence[Row]):
    """Rows of records in 5 bytes per token (lists of numbers take some 40), each made when it is asked for."""

    def __init__(self, rows: Iterable[Row]):
        self._ids, self._labelled, self._ends = array("i"), bytearray(), array("q", [0])
        for row in rows:
            self._ids.extend(row.ids)
            self._labelled.extend(label != IGNORED for label in row.labels)
            self._ends.append(len(self._ids))

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, i: Any) -> Any:
        if not 0 <= i < len(self):
            raise IndexError(i)
        part = slice(self._ends[i], self._ends[i + 1])
        ids = self._ids[part].tolist()
        return Row(ids, [t if labelled else IGNORED for t, labelled in zip(ids, self._labelled[part], strict=True)])


class Laid(NamedTuple):
    """A record as one text, and the spans of its answers."""

    text: str
    answers: list[tuple[int, int]]
    finished: bool  # the end of the text has its own mark (a chat template writes it)


class MisfitError(ValueError):
    """What is wrong with a record, behind its place: 'line 3 ...'."""


def kind_of(item: Any) -> str:
    """The form of a record by its fields; 'text' for all others."""
    fields = set(item) if isinstance(item, dict) else set()
    return next((kind for kind, needed in FIELDS.items() if fields.issuperset(needed)), "text")


def rows_of(reader: Reader, kind: str, tokenizer: Any, length: int, vocabulary: int) -> PackedRows:
    """All records as rows of at most `length` tokens. Raises TextError if no answer is left in any of them."""
    if not getattr(tokenizer, "is_fast", False):
        raise TextError(
            f"{reader.name}: the tokenizer tells no character positions, so answers can't be found in records; "
            "use plain text, or a model with a fast tokenizer"
        )
    rows = PackedRows(_rows(reader, kind, tokenizer, length, vocabulary))
    if not any(row.targets for row in rows):
        raise TextError(f"{reader.name}: no record has an answer within {length} tokens; give a larger --length")
    return rows


def _rows(reader: Reader, kind: str, tokenizer: Any, length: int, vocabulary: int) -> Iterator[Row]:
    before = None
    for item, behind in reader.read(None):
        try:
            row = encoded(_laid_out(item, kind, tokenizer), tokenizer, length)
        except MisfitError as error:
            raise TextError(f"{reader.name}: {reader.place(before)} {error}") from error
        refuse_foreign_ids(row.ids, vocabulary, reader.name)
        before = behind
        yield row


def encoded(laid: Laid, tokenizer: Any, length: int) -> Row:
    """Tokens and labels. The answer of an unfinished text ends in EOS, which is a label too."""
    coded = tokenizer(laid.text, add_special_tokens=not laid.finished, return_offsets_mapping=True, verbose=False)
    ids, spans = list(coded.input_ids), coded.offset_mapping
    labelled = [any(start < b and end > a and end > start for a, b in laid.answers) for start, end in spans]
    if not laid.finished and tokenizer.eos_token_id is not None:
        if ids[-1:] == [tokenizer.eos_token_id]:  # the tokenizer has added it
            labelled[-1] = True
        else:
            ids, labelled = [*ids, tokenizer.eos_token_id], [*labelled, True]
    labels = [token if good else IGNORED for token, good in zip(ids, labelled, strict=True)]
    return Row(ids[:length], labels[:length])


def _laid_out(item: Any, kind: str, tokenizer: Any) -> Laid:
    missing = [field for field in FIELDS[kind] if not isinstance(item, dict) or field not in item]
    if missing:
        raise MisfitError(f"has no field '{missing[0]}', which {kind} needs ({fields_of(item)})")
    if kind == "chat":
        return _chat(item["messages"], tokenizer)
    if kind == "completion":
        return _answered(_text(item, "prompt"), _text(item, "completion"))
    asked = {"instruction": _text(item, "instruction"), "input": ""}
    if item.get("input") not in (None, ""):
        asked["input"] = _text(item, "input")
    return _answered((WITH_INPUT if asked["input"] else WITHOUT_INPUT).format(**asked), _text(item, "output"))


def _text(item: dict[str, Any], field: str) -> str:
    """A field of a record; numbers are taken as they are written."""
    value = item.get(field)
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise MisfitError(f"has {json_name(value)} in its field '{field}'; a text is needed")
    return _whole(str(value))


def _whole(text: str) -> str:
    if not is_text(text):
        raise MisfitError(HALF)
    return text


def _answered(prompt: str, answer: str) -> Laid:
    return Laid(prompt + answer, [(len(prompt), len(prompt) + len(answer))], finished=False)


def _chat(messages: Any, tokenizer: Any) -> Laid:
    """The conversation in the template; an answer is what the template adds behind its generation prompt."""
    if not getattr(tokenizer, "chat_template", None):
        raise MisfitError("has chat messages and the tokenizer has no chat template; use prompt and completion")
    if not isinstance(messages, list) or not all(isinstance(m, dict) for m in messages):
        raise MisfitError("has no list of messages (role, content) in its field 'messages'")
    text, answers = _templated(tokenizer, [_message(m) for m in messages]), []
    for i, message in enumerate(messages):
        if message.get("role") != "assistant":
            continue
        before = _templated(tokenizer, messages[:i], add_generation_prompt=True)
        after = _templated(tokenizer, messages[: i + 1])
        if not (after.startswith(before) and text.startswith(after)):
            raise MisfitError(
                "can't be trained on: the tokenizer's chat template rewrites earlier turns, so that answers can't be "
                "told apart; give single turns, or prompt and completion"
            )
        answers.append((len(before), len(after)))
    return Laid(_whole(text), answers, finished=True)


def _message(message: dict[str, Any]) -> dict[str, Any]:
    """The same. Calls of tools, and contents in parts, are the template's to judge."""
    content = message.get("content")
    parts = isinstance(content, list) and all(isinstance(part, dict) for part in content)
    if not parts and not (content is None and message.get("tool_calls")):
        _text(message, "content")
    return message


def _templated(tokenizer: Any, messages: Any, **options: Any) -> str:
    from jinja2 import TemplateError

    try:
        return tokenizer.apply_chat_template(messages, tokenize=False, **options) if messages else ""
    except (TemplateError, TypeError, KeyError, AttributeError, ValueError) as error:
        raise MisfitError(f"does not fit the chat template ({reason(error)})") from error
