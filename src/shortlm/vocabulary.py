"""Token ids that a model has no row for: an IndexError of the embeddings, on CUDA an assert that ends the process."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from shortlm.errors import TextError


def refuse_foreign_ids(ids: Any, vocabulary: int, name: str) -> None:
    """Raise TextError if an id (of a list, an array or a tensor) is outside a vocabulary of this size."""
    if not len(ids):
        return
    low, high = (min(ids), max(ids)) if isinstance(ids, list) else (int(ids.min()), int(ids.max()))
    if low < 0 or high >= vocabulary:
        raise TextError(
            f"{name}: token id {low if low < 0 else high} is outside the model's vocabulary (0..{vocabulary - 1}); "
            "the tokenizer in its folder is another model's"
        )


@contextmanager
def only_own_ids(model: Any, name: str) -> Generator[None, None, None]:
    """Inside, every call of the model with an id that is not its own raises TextError before the embeddings see it."""
    embeddings = model.get_input_embeddings()

    def look(module: Any, args: tuple[Any, ...]) -> None:
        refuse_foreign_ids(args[0], len(module.weight), name)

    hook = embeddings.register_forward_pre_hook(look)
    try:
        yield
    finally:
        hook.remove()
