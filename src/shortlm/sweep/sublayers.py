"""What each part of a block takes to what: the residual stream before the attention, the FFN or the block, and behind.

No architecture is known by name. A block without its FFN hands on what stands behind its attention, h_mid. In most
models one branch follows the other, so the FFN takes h_mid to the block's output. In a parallel block (GPT-NeoX, Phi,
Falcon) both branches read the block's input, so the FFN takes that to the output without attention. Which it is, the
FFN itself tells: a block is parallel if the same enters its FFN, bit for bit, whether the attention is there or not.

Shapes: B sequences, T tokens, D hidden.
"""

from __future__ import annotations

import torch

from shortlm.sweep.blocks import Batch, BlockCaller
from shortlm.units import ATTENTION, BLOCK, FFN

PARTIAL_CALLS = 2  # of a block, for its sublayers' states
States = dict[str, tuple[torch.Tensor, torch.Tensor]]  # by part: before it and behind it, both B x T x D


def sublayer_states(caller: BlockCaller, i: int, in_BTD: torch.Tensor, out_BTD: torch.Tensor, batch: Batch) -> States:
    """Of block i of the whole model, which took in_BTD to out_BTD; of those of its parts that it has.

    Takes a call without each sublayer, as many as PARTIAL_CALLS in all. Raises ModelError if a block can't be
    understood so.
    """
    found: States = {BLOCK: (in_BTD, out_BTD)}
    attention, ffn = (bool(caller.branches.names[part][i]) for part in (ATTENTION, FFN))
    if attention and ffn:
        with caller.branches.entering(i, FFN) as entered:
            mid_BTD = caller.without(i, FFN, in_BTD, batch)
            with_attention = entered[-1]
            without_BTD = caller.without(i, ATTENTION, in_BTD, batch)
        is_parallel = torch.equal(with_attention, entered[-1])
        pair = (in_BTD, without_BTD) if is_parallel else (mid_BTD, out_BTD)
        return found | {ATTENTION: (in_BTD, mid_BTD), FFN: pair}
    return found | {part: (in_BTD, out_BTD) for part, there in ((ATTENTION, attention), (FFN, ffn)) if there}
