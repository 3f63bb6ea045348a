"""The one engine: forward over many masks, backward for gradients."""

from shortlm.sweep.backward import PIECE, BlockGradients, backward_sweep
from shortlm.sweep.blocks import Batch, BlockCaller, bypassed, predicted
from shortlm.sweep.forward import Losses, Mask, sweep
from shortlm.sweep.tail import Tail, token_nats

__all__ = [
    "PIECE", "Batch", "BlockCaller", "BlockGradients", "Losses", "Mask", "Tail", "backward_sweep", "bypassed",
    "predicted", "sweep", "token_nats",
]  # fmt: skip
