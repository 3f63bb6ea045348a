"""Five multiple-choice tasks on the village: facts, counting, order, agreement, possession.

`questions(task, n, seed)` makes them with the corpus's own gaps; `accuracy` lets a model choose the answer it finds
most likely. No torch is needed to make questions.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from shortlm.embedded import gaps, paragraphs
from shortlm.embedded.choices import Chooser
from shortlm.embedded.gaps import Gap
from shortlm.embedded.world import COUNTED, NUMBERS, PEOPLE, noun


@dataclass(frozen=True)
class Question:
    """`choices` continue `prompt` and open with the space between; `answer` is the position of the right one."""

    prompt: str
    choices: tuple[str, ...]
    answer: int


def _story(ch: Chooser) -> Gap:
    person, pair, count = ch.pick(PEOPLE), ch.pick(COUNTED), ch.pick(range(1, 10))
    event, after = paragraphs.change(ch, person, count)
    return gaps.number(after, f"{person.name} has {NUMBERS[count]} {noun(pair, count)}. {event}")


def _counting(ch: Chooser) -> Gap:
    return ch.pick((_story, gaps.addition))(ch)


def _line(ch: Chooser) -> Gap:
    names = paragraphs.line_names(ch)
    return _after(paragraphs.line_told(names), gaps.place_in_line(ch, names))


def _order(ch: Chooser) -> Gap:
    return ch.pick((_line, gaps.neighbour))(ch)


def _agreement(ch: Chooser) -> Gap:
    return ch.pick((gaps.verb, gaps.owner))(ch)


def _possession(ch: Chooser) -> Gap:
    told, holds, names = paragraphs.exchange(ch)
    return _after(told, gaps.holder(ch, holds, names))


def _after(told: str, gap: Gap) -> Gap:
    return Gap(f"{told} {gap.prompt}", gap.answer, gap.wrong)


_MAKERS: dict[str, tuple[Callable[[Chooser], Gap], int]] = {
    "facts": (gaps.fact, 4),
    "counting": (_counting, 4),
    "order": (_order, 3),
    "agreement": (_agreement, 2),
    "possession": (_possession, 3),
}

TASKS = tuple(_MAKERS)


def chance(task: str) -> float:
    """Accuracy of guessing."""
    return 1 / _MAKERS[task][1]


def questions(task: str, n: int, seed: int) -> list[Question]:
    """`n` questions, always the same for the same seed; the right answer takes each position equally often."""
    make, width = _MAKERS[task]
    ch = Chooser(random.Random(f"{task} {seed}"))
    return [_question(ch, make(ch), width, i % width) for i in range(n)]


def _question(ch: Chooser, gap: Gap, width: int, position: int) -> Question:
    choices = ch.ordered(gap.wrong, width - 1)
    choices.insert(position, gap.answer)
    return Question(gap.prompt, tuple(f" {choice}" for choice in choices), position)


def accuracy(model, tokenizer, asked: Sequence[Question]) -> float:
    """Share of questions whose right choice has the highest summed log-likelihood after the prompt."""
    right = 0
    for question in asked:
        scores = log_likelihoods(model, tokenizer, question)
        right += max(range(len(scores)), key=scores.__getitem__) == question.answer
    return right / len(asked)


def log_likelihoods(model, tokenizer, question: Question) -> list[float]:
    """log p(choice | prompt) of each choice in nats, summed over its tokens.

    Padding stands at the right, where causal attention keeps it from being seen.
    """
    import torch

    prompt = tokenizer(question.prompt).input_ids
    endings = [tokenizer(choice, add_special_tokens=False).input_ids for choice in question.choices]
    longest = max(map(len, endings))
    rows = [prompt + ending + [tokenizer.pad_token_id] * (longest - len(ending)) for ending in endings]
    with torch.inference_mode():
        ids_BT = torch.tensor(rows, device=model.device)
        logp_BTV = model(input_ids=ids_BT).logits.float().log_softmax(-1)
    return [
        sum(logp_BTV[row, len(prompt) - 1 + i, token].item() for i, token in enumerate(ending))
        for row, ending in enumerate(endings)
    ]
