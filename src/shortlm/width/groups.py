"""What goes together when a block gets narrower: a KV head with its own query heads, or a channel of the FFN.

Nothing is known by architecture. The output projection tells the branch's width; the other linear layers of the branch
have to make that width, or that of the KV heads, out of the hidden state. What doesn't fit that is refused by name:
fused queries, keys and values, norms over all heads, sinks per head, experts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from shortlm.errors import ModelError
from shortlm.model import Anatomy, output_projection
from shortlm.units import ATTENTION, FFN

PARTS = (ATTENTION, FFN)
WORDS = {ATTENTION: "KV heads", FFN: "channels"}


@dataclass(frozen=True)
class Tensor:
    """One that groups have their share of: group k's are the indices k * each ... (k + 1) * each - 1 along `axis`."""

    name: str  # inside the block: self_attn.q_proj.weight
    axis: int
    each: int

    def indices(self, groups: Sequence[int]) -> list[int]:
        """Of these groups, in their order."""
        return [k * self.each + n for k in groups for n in range(self.each)]


@dataclass(frozen=True)
class Groups:
    """Those of one branch of a block."""

    block: int
    part: str
    count: int
    output: str  # the output projection, inside the block
    tensors: list[Tensor]  # the last one is the output projection's weight
    parameters: int  # of one group
    query_heads: int = 1  # of one group

    @property
    def inputs(self) -> int:
        """Inputs of the output projection that one group has."""
        return self.tensors[-1].each


Kept = dict[tuple[int, str], list[int]]  # block, part -> the groups that stay, ascending


def all_groups(anatomy: Anatomy) -> list[Groups]:
    """Of all branches there are, block by block. Raises ModelError for one that can't be narrowed soundly."""
    found = [_of_branch(anatomy, i, part) for i in range(len(anatomy.blocks)) for part in PARTS]
    return [groups for groups in found if groups]


def _of_branch(anatomy: Anatomy, i: int, part: str) -> Groups | None:
    projection = output_projection(anatomy, i, part)
    if projection is None:
        return None
    block, names = anatomy.blocks[i], {ATTENTION: anatomy.attention, FFN: anatomy.ffn}[part][i]
    if projection.stored_as_applied:
        raise _refused(block, part, f"{projection.path} holds its weight the other way round")
    inside = {path: module for name in names for path, module in _leaves(block, name) if path != projection.path}
    linear = {path: m for path, m in inside.items() if isinstance(m, nn.Linear)}
    width, hidden = projection.width, projection.module.weight.shape[0]
    if wrong := next((p for p, m in linear.items() if m.in_features != hidden), None):
        raise _refused(block, part, f"{wrong} doesn't take the hidden state")
    outs = {path: m.out_features for path, m in linear.items()}
    head = _head_width(block, names, width) if part == ATTENTION else 1
    count = _count(block, part, outs, width, head)
    if other := next((p for p, m in inside.items() if p not in linear and not _is_per_head(m, part, head)), None):
        raise _refused(block, part, f"{other} ({type(inside[other]).__name__}) goes over all of its width")
    tensors = [
        Tensor(f"{path}.{leaf}", 0, outs[path] // count)
        for path, m in linear.items()
        for leaf, _ in m.named_parameters()
    ]
    tensors.append(Tensor(f"{projection.path}.weight", 1, width // count))
    sizes = {name: p.numel() for name, p in block.named_parameters()}
    return Groups(
        i, part, count, projection.path, tensors, sum(sizes[t.name] for t in tensors) // count, width // count // head
    )


def _leaves(block: nn.Module, name: str) -> Iterator[tuple[str, Any]]:
    """The modules of a branch that hold parameters themselves, by their paths in the block."""
    for path, module in block.get_submodule(name).named_modules():
        if any(True for _ in module.parameters(recurse=False)):
            yield f"{name}.{path}".rstrip("."), module


def _head_width(block: nn.Module, names: list[str], width: int) -> int:
    """head_dim, as the attention module has it."""
    for name in names:
        found = getattr(block.get_submodule(name), "head_dim", None)
        if isinstance(found, int) and found > 0 and width % found == 0:
            return found
    raise _refused(block, ATTENTION, "the width of its heads is not told")


def _count(block: nn.Module, part: str, outs: dict[str, int], width: int, head: int) -> int:
    """The number of KV heads, or of channels."""
    counts = set(outs.values())
    if part == FFN and counts == {width}:
        return width
    narrow = min(counts, default=0)
    fits = part == ATTENTION and len(outs) == 3 and counts <= {width, narrow} and width in counts
    pairs = sorted(outs.values())[:2] == [narrow, narrow] and narrow % head == 0
    if not (fits and pairs and narrow and width % narrow == 0):
        shapes = ", ".join(f"{path} gives {out}" for path, out in outs.items()) or "it has no other linear layers"
        raise _refused(block, part, f"{shapes}, where its output takes {width}")
    return narrow // head


def _is_per_head(module: Any, part: str, head: int) -> bool:
    """Whether all that a module holds is for the width of one head, as norms of queries and keys are."""
    return part == ATTENTION and head > 1 and all(tuple(p.shape) == (head,) for p in module.parameters(recurse=False))


def _refused(block: nn.Module, part: str, why: str) -> ModelError:
    return ModelError(
        f"{type(block).__name__}: its {part} can't be narrowed soundly ({why}); drop blocks of this model instead"
    )
