"""A visitor's question, answered by all models in turns, token by token."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from shortlm.demo.contestant import Contestant
from shortlm.demo.writer import Writer, options_of
from shortlm.errors import ModelError
from shortlm.recipe import DemoSettings

MOST_CHARACTERS = 32  # for each token that is allowed: longer prompts are not tokenized
EVERY = 0.1  # seconds between two pictures of a text that grows


@dataclass(frozen=True)
class Question:
    """What a visitor asks."""

    prompt: str
    new_tokens: int = 64
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    as_chat: bool = False


def answered(models: Sequence[Contestant], question: Question, settings: DemoSettings) -> Iterator[list[Writer]]:
    """All writers again and again while they write, at last when all have ended. Closing it stops them.

    Raises ModelError for a prompt that is empty or too long, before any model computes.
    """
    writers = _writers(models, question, settings)
    seen = time.perf_counter()
    try:
        while not all(writer.finished for writer in writers):
            for writer in writers:
                writer.step()
            if time.perf_counter() - seen > EVERY:
                yield writers
                seen = time.perf_counter()  # drawing takes its time too
        yield writers
    finally:
        for writer in writers:
            writer.stop()


def _writers(models: Sequence[Contestant], question: Question, settings: DemoSettings) -> list[Writer]:
    if not question.prompt.strip():
        raise ModelError("the prompt is empty; write the beginning of a text")
    if not 1 <= question.new_tokens <= settings.new_tokens:
        raise ModelError(f"{question.new_tokens} new tokens: 1 to {settings.new_tokens} can be asked for here")
    if len(question.prompt) > MOST_CHARACTERS * settings.prompt_tokens:
        raise ModelError(
            f"the prompt has {len(question.prompt):,} characters, and {settings.prompt_tokens} tokens are allowed "
            "here; shorten it"
        )
    asked = []
    for model in models:
        ids = prompt_ids(model, question)
        if len(ids) > settings.prompt_tokens:
            raise ModelError(
                f"the prompt has {len(ids)} tokens, and {settings.prompt_tokens} are allowed here; shorten it"
            )
        asked.append(
            (ids, options_of(model.opened, question.new_tokens, question.temperature, question.top_p, len(ids)))
        )
    return [
        Writer(model.opened, ids, options, question.seed) for model, (ids, options) in zip(models, asked, strict=True)
    ]


def prompt_ids(model: Contestant, question: Question) -> list[int]:
    """By the tokenizer alone, or within its chat template. Raises ModelError for a template that fails."""
    tokenizer = model.opened.tokenizer
    if not question.as_chat:
        return list(tokenizer(question.prompt).input_ids)
    try:
        messages = [{"role": "user", "content": question.prompt}]
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    except Exception as error:
        raise ModelError(f"{model.name}: its chat template can't be used; untick it") from error
    return list(tokenizer(text, add_special_tokens=False).input_ids)


def has_template(models: Sequence[Contestant]) -> bool:
    """Whether all of them know what a chat looks like."""
    return all(getattr(model.opened.tokenizer, "chat_template", None) for model in models)
