"""What each criterion measures, in a sentence, for readers of the page who don't know the papers."""

from __future__ import annotations

from typing import NamedTuple


class Explanation(NamedTuple):
    """A readable name, what is measured, and the symbol-free meaning of a low score."""

    name: str
    measures: str


EXPLANATIONS = {
    "ppl": Explanation(
        "Perplexity without the block",
        "Each block is skipped in turn and the perplexity of what remains is measured. It asks the very "
        "question of pruning, one block at a time.",
    ),
    "taylor": Explanation(
        "Taylor importance",
        "Weight times gradient of the loss, absolute values summed over the block: a first-order estimate of "
        "how much the loss depends on its weights.",
    ),
    "bi": Explanation(
        "Block Influence",
        "One minus the cosine between the hidden state before and after the block, averaged over tokens. A "
        "block that hardly turns the state scores low.",
    ),
    "angular": Explanation(
        "Angular distance",
        "The angle between the states before and after the block at the last token, in units of pi; also "
        "measured across whole runs of blocks.",
    ),
    "relative_magnitude": Explanation(
        "Relative magnitude",
        "The length of what the block adds, relative to the length of the resulting state.",
    ),
    "mse": Explanation(
        "Squared difference",
        "The squared distance between the states before and after the block, so large states weigh more.",
    ),
    "magnitude": Explanation(
        "Weight magnitude",
        "The absolute weights of the block, summed. It needs no text, and says nothing about what the block does.",
    ),
    "first_order": Explanation(
        "First-order loss increase",
        "How much the loss would rise if the block were skipped, predicted from one backward pass. A negative "
        "score predicts a gain.",
    ),
    "none": Explanation("chosen by hand", ""),
    "random": Explanation("Random", "A random number per block: the baseline that every other criterion has to beat."),
    "depth": Explanation("Depth", "The number of blocks above it, so the deepest block goes first."),
}


def explanation(spec: str) -> Explanation:
    """Of a criterion as it was asked for (`bi:shortgpt`); an unknown one keeps its own name."""
    name, _, variant = spec.partition(":")
    known = EXPLANATIONS.get(name, Explanation(name, ""))
    return known._replace(name=f"{known.name} ({variant})") if variant else known
