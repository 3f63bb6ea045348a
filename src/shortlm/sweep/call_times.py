"""How long the calls of an open model take on this device, by made-up blocks of its shape."""

from __future__ import annotations

from shortlm.model import OpenModel
from shortlm.sweep.timing import CallTimes, MadeUpModel


def call_times(opened: OpenModel, batch_size: int, tokens: int) -> CallTimes:
    """Of a block and of the head with the cross-entropy, for one batch."""
    trust = getattr(opened.model.config, "trust_remote_code", False)
    return MadeUpModel(opened.model.config, opened.model.dtype, opened.device, trust).times(batch_size, tokens)
