"""Which tokens weights are fitted on.

Shapes: B sequences, T tokens, D hidden.
"""

from __future__ import annotations

import torch

from shortlm.sweep import Batch

SINK = 10.0  # a token counts if its dense state is no longer than so many times its window's median


def counting(dense_BTD: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Which tokens sums are over, B x T: no padding, not the first of a window, no sinks (states of huge norm)."""
    norm_BT = dense_BTD.float().norm(dim=-1)
    keep_BT = batch.keep_BT.clone()
    keep_BT[:, 0] = False
    median_B = torch.where(keep_BT, norm_BT, norm_BT.new_tensor(float("nan"))).nanmedian(dim=1).values
    return keep_BT & (norm_BT <= SINK * median_B[:, None])
