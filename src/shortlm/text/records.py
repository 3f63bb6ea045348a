"""Instruction records as token ids with labels on the answers only.

Three forms: alpaca (instruction, input, output; in Alpaca's prompt), completion (prompt, completion) and chat
(messages, in the tokenizer's own template; every answer of the assistant counts). A record is laid out as one
text with the character spans of its answers and tokenized at once. A token is learnt if any of it lies in a span: the
space before an answer is often part of its first token.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from shortlm.errors import TextError

IGNORED = -100
"""Label of tokens that are not learnt, as in transformers."""

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
        """Tokens that are learnt."""
        return sum(label != IGNORED for label in self.next_labels())


class Laid(NamedTuple):
    """A record as one text, and the spans of its answers."""

    text: str
    answers: list[tuple[int, int]]
    finished: bool  # the end of the text has its own mark (a chat template writes it)


def kind_of(item: Any) -> str:
    """The form of a record by its fields; 'text' for all others."""
    fields = set(item) if isinstance(item, dict) else set()
    return next((kind for kind, needed in FIELDS.items() if fields.issuperset(needed)), "text")


def rows_of(items: Iterable[Any], kind: str, tokenizer: Any, length: int, name: str) -> list[Row]:
    """All records as rows of at most `length` tokens. Raises TextError if no answer is left in any of them."""
    if not getattr(tokenizer, "is_fast", False):
        raise TextError(f"{name}: the tokenizer tells no character positions, so answers can't be found in records; "
                        "use plain text, or a model with a fast tokenizer")  # fmt: skip
    rows = [encoded(_laid_out(item, kind, tokenizer, name), tokenizer, length) for item in items]
    if not any(row.targets for row in rows):
        raise TextError(f"{name}: no record has an answer within {length} tokens; give a larger --length")
    return rows


def encoded(laid: Laid, tokenizer: Any, length: int) -> Row:
    """Tokens and labels. The answer of an unfinished text ends in EOS, which is learnt too."""
    coded = tokenizer(laid.text, add_special_tokens=not laid.finished, return_offsets_mapping=True, verbose=False)
    ids, spans = list(coded.input_ids), coded.offset_mapping
    learnt = [any(start < b and end > a and end > start for a, b in laid.answers) for start, end in spans]
    if not laid.finished and tokenizer.eos_token_id is not None:
        if ids[-1:] == [tokenizer.eos_token_id]:  # the tokenizer has added it
            learnt[-1] = True
        else:
            ids, learnt = [*ids, tokenizer.eos_token_id], [*learnt, True]
    labels = [token if good else IGNORED for token, good in zip(ids, learnt, strict=True)]
    return Row(ids[:length], labels[:length])


def _laid_out(item: Any, kind: str, tokenizer: Any, name: str) -> Laid:
    missing = [field for field in FIELDS[kind] if not isinstance(item, dict) or field not in item]
    if missing:
        raise TextError(f"{name}: a {kind} record has no field '{missing[0]}' (fields: {', '.join(item)})")
    if kind == "chat":
        return _chat(item["messages"], tokenizer, name)
    if kind == "completion":
        return _answered(str(item["prompt"]), str(item["completion"]))
    prompt = WITH_INPUT if item.get("input") else WITHOUT_INPUT
    return _answered(prompt.format(instruction=item["instruction"], input=item.get("input", "")), str(item["output"]))


def _answered(prompt: str, answer: str) -> Laid:
    return Laid(prompt + answer, [(len(prompt), len(prompt) + len(answer))], finished=False)


def _chat(messages: Any, tokenizer: Any, name: str) -> Laid:
    """The conversation in the template; an answer is what the template adds behind its generation prompt."""
    if not getattr(tokenizer, "chat_template", None):
        raise TextError(f"{name}: has chat messages and the tokenizer has no chat template; use prompt and completion")
    if not isinstance(messages, list) or not all(isinstance(m, dict) for m in messages):
        raise TextError(f"{name}: 'messages' of a record is no list of messages (role, content)")
    text, answers = _templated(tokenizer, messages, name), []
    for i, message in enumerate(messages):
        if message.get("role") != "assistant":
            continue
        before = _templated(tokenizer, messages[:i], name, add_generation_prompt=True)
        after = _templated(tokenizer, messages[: i + 1], name)
        if not (after.startswith(before) and text.startswith(after)):
            raise TextError(
                f"{name}: the tokenizer's chat template rewrites earlier turns, so that answers can't be told apart; "
                "give single turns, or prompt and completion"
            )
        answers.append((len(before), len(after)))
    return Laid(text, answers, finished=True)


def _templated(tokenizer: Any, messages: Any, name: str, **options: Any) -> str:
    from jinja2 import TemplateError

    try:
        return tokenizer.apply_chat_template(messages, tokenize=False, **options) if messages else ""
    except (TemplateError, TypeError, KeyError, AttributeError) as error:
        raise TextError(f"{name}: a conversation does not fit the chat template ({error})") from error
