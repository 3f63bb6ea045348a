"""A real cut of a tiny random model of one type, held to a plain reference that knows nothing of the sweep.

The reference is the original, two of whose blocks return what they are given.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from every_type import removable, tiny_config_of
from torch import nn
from transformers.pytorch_utils import Conv1D

from shortlm.choose import plan_by_hand
from shortlm.cut import cut
from shortlm.errors import ShortLMError, reason
from shortlm.model import find_anatomy, open_files, quiet
from shortlm.model.language import auto_class, is_composite, special_ids
from shortlm.recipe import CutSettings, ModelSettings

TOKENS, PREFIX, TOLERANCE = 24, 8, 1e-4
CACHES = ("cache", "past_key_values", "cache_params", "state")


@dataclass(frozen=True)
class Tried:
    """What became of a type: "exact", "refused" by shortlm, or "not built" since its own code made no such model."""

    model_type: str
    outcome: str
    why: str = ""
    composite: bool = False
    removed: tuple[int, ...] = ()
    moved: float = 0.0  # how far the two blocks move a logit: what a wrong cut could show
    gap: float = 0.0
    gap_cached: float | None = None  # None: the original keeps no cache
    own_gap_cached: float | None = None  # of the original, whole
    generates: bool = False


def tried(model_type: str, folder: Path) -> dict[str, Any]:
    """Build the type, cut it, and compare. What is wrong raises; what shortlm refuses is told."""
    try:
        with quiet():
            model = random_model(tiny_config_of(model_type))
            model.save_pretrained(folder / "whole")
            model = type(model).from_pretrained(folder / "whole")  # with its weights tied as its config says
    except ShortLMError as error:
        return asdict(Tried(model_type, "refused", reason(error)))
    except Exception as error:  # whatever the library's own code raises
        said = str(error).strip().splitlines()[0] if isinstance(error, ImportError) else reason(error)
        return asdict(Tried(model_type, "not built", f"{type(error).__name__}: {said}"))
    settings = ModelSettings(model=str(folder / "whole"))
    removed = removable(model.config)
    try:
        facts = open_files(settings).open(streamed=False).facts
        cut(settings, plan_by_hand(facts, removed), CutSettings(), folder / "cut")
        composite = is_composite(model.config)
    except ShortLMError as error:
        return asdict(Tried(model_type, "refused", reason(error)))
    return asdict(Tried(model_type, "exact", "", composite, tuple(removed), **compared(model, removed, folder / "cut")))


def random_model(config: Any) -> Any:
    """Weights large enough for every block to matter."""
    torch.manual_seed(0)
    model = auto_class(config).from_config(config).eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, (nn.Linear, nn.Embedding, Conv1D)):
                module.weight.normal_(std=0.2)
        for name, weight in model.named_parameters():
            if ("experts" in name and weight.dim() == 3) or (weight.dim() == 2 and not weight.any()):
                weight.normal_(std=0.2)
    return model


def compared(model: Any, removed: list[int], folder: Path) -> dict[str, Any]:
    ids_BT = probe(model.config)
    whole_BTV, own_cached_BTV = logits(model, ids_BT), own_cached_logits(model, ids_BT)
    with returning_their_input(find_anatomy(model).blocks, removed, lambda: logits(model, ids_BT)):
        expected_BTV = logits(model, ids_BT)
    with quiet():
        result, told = type(model).from_pretrained(folder, output_loading_info=True)
    assert not any(told.values()), told
    cached_BTV = None if own_cached_BTV is None else cached_logits(result, ids_BT)
    return {
        "moved": largest(whole_BTV, expected_BTV),
        "gap": largest(logits(result, ids_BT), expected_BTV),
        "gap_cached": None if cached_BTV is None else largest(cached_BTV, expected_BTV),
        "own_gap_cached": None if own_cached_BTV is None else largest(own_cached_BTV, whole_BTV),
        "generates": generates(result, ids_BT),
    }


def probe(config: Any) -> torch.Tensor:
    special = torch.tensor(special_ids(config))
    free = [token for token in range(config.get_text_config().vocab_size) if token not in special]
    picked = torch.randint(len(free), (2, TOKENS), generator=torch.Generator().manual_seed(1))
    return torch.tensor(free)[picked]


@contextmanager
def returning_their_input(blocks: list[nn.Module], removed: list[int], run: Any) -> Iterator[None]:
    kinds: dict[int, Any] = {}
    hooks = [blocks[i].register_forward_hook(lambda m, a, out, i=i: kinds.update({i: out})) for i in removed]
    run()
    for hook in hooks:
        hook.remove()

    def stand_in(i: int) -> Any:
        def forward(*args: Any, **kwargs: Any) -> Any:
            h_BTD = args[0] if args else kwargs["hidden_states"]
            out = kinds[i]
            return (h_BTD, *[None] * (len(out) - 1)) if isinstance(out, (tuple, list)) else h_BTD

        return forward

    originals = {i: blocks[i].forward for i in removed}
    try:
        for i in removed:
            blocks[i].forward = stand_in(i)
        yield
    finally:
        for i, original in originals.items():
            blocks[i].forward = original


@torch.no_grad()
def logits(model: Any, ids_BT: torch.Tensor) -> torch.Tensor:
    return model(input_ids=ids_BT, use_cache=False).logits


@torch.no_grad()
def cached_logits(model: Any, ids_BT: torch.Tensor) -> torch.Tensor | None:
    """A prefix at once, then token by token; None where the model has no cache that works."""
    known = inspect.signature(model.forward).parameters
    name = next((name for name in CACHES if name in known), None)
    if name is None:
        return None
    parts, cache = [], None
    for ids in [ids_BT[:, :PREFIX], *ids_BT[:, PREFIX:].split(1, dim=1)]:
        output = model(input_ids=ids, use_cache=True, **{name: cache})
        if (cache := output.get(name)) is None or output.logits.shape[:2] != ids.shape:
            return None
        parts.append(output.logits)
    return torch.cat(parts, dim=1)


def own_cached_logits(model: Any, ids_BT: torch.Tensor) -> torch.Tensor | None:
    """The same of the whole original, whose cache may fail by itself."""
    try:
        return cached_logits(model, ids_BT)
    except (AttributeError, TypeError, ValueError, IndexError, KeyError, RuntimeError):
        return None


def generates(model: Any, ids_BT: torch.Tensor) -> bool:
    prompt = ids_BT[:1, :PREFIX]
    with quiet():
        out = model.generate(prompt, max_new_tokens=4, min_new_tokens=4, do_sample=False)
    return tuple(out.shape) == (1, PREFIX + 4)


def largest(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().max())
