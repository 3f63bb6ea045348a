"""Checkpoints on disk: found, read and written as files. No torch, no transformers, no idea of architectures.

Reading: `folder` (where a checkpoint is, fetched by `hub`), `headers` (which tensor lies at which bytes). Writing:
`pieces` (a tensor is a copy, a slice, zeros or computed), `shards`, `carrying`, `checksums`; `editing` joins them.
"""

from shortlm.checkpoint.carrying import carry_files
from shortlm.checkpoint.checksums import write_checksums
from shortlm.checkpoint.editing import Draft, earlier_steps, refuse_target, with_step, written
from shortlm.checkpoint.folder import Checkpoint, block_prefix, locate, open_checkpoint, short_names
from shortlm.checkpoint.headers import TensorEntry, read_header
from shortlm.checkpoint.pieces import Computed, Copy, Piece, Slice, Zeros
from shortlm.checkpoint.shards import add_shard, write_shards

__all__ = [
    "Checkpoint", "Computed", "Copy", "Draft", "Piece", "Slice", "TensorEntry", "Zeros", "add_shard", "block_prefix",
    "carry_files", "earlier_steps", "locate", "open_checkpoint", "read_header", "refuse_target", "short_names",
    "with_step", "write_checksums", "write_shards", "written",
]  # fmt: skip
