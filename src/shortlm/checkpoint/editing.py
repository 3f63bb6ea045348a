"""A checkpoint made from another one. Every kind of edit ends here: its tensors, its config, its step in the manifest.

Whatever is edited, the rest is the same: the result appears whole or not at all, small files are carried along, space
is asked for first, and the history of the weights goes on.
"""

from __future__ import annotations

import shutil
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from shortlm.artifacts import AnyStep, Manifest, ModelFacts, manifest_of
from shortlm.checkpoint.carrying import carry_files
from shortlm.checkpoint.checksums import write_checksums
from shortlm.checkpoint.folder import Checkpoint
from shortlm.checkpoint.pieces import Piece
from shortlm.checkpoint.shards import write_shards
from shortlm.errors import ModelError, OutputError
from shortlm.outputs import refuse_existing, whole_folder


@dataclass(frozen=True)
class Draft:
    """What is to be written: all tensors of the result, and the text of its config.json."""

    source: Checkpoint
    pieces: list[Piece]
    config_json: str

    @property
    def nbytes(self) -> int:
        """Of all tensors."""
        return sum(piece.nbytes for piece in self.pieces)


def refuse_target(source: Checkpoint, out: Path, force: bool) -> None:
    """Raise OutputError, before any work, if `out` can't be the result's folder.

    `force` must never replace the input, nor a folder that holds it.
    """
    here, target = source.folder.resolve(), out.resolve()
    if target == here or target in here.parents:
        raise OutputError(f"{out}: the output would replace the model itself; choose another --out")
    refuse_existing(out, force)


@contextmanager
def written(draft: Draft, out: Path, force: bool, shard_size: int, checksums: bool) -> Generator[Path, None, None]:
    """Yield a temporary folder with the draft's files, to be checked and given a manifest; then it becomes `out`.

    Raises OutputError if `out` is in use (and `force` is off) or the disk is full, ModelError as the pieces do. On any
    failure, also inside the `with`, nothing is left.
    """
    with whole_folder(out, force) as part:
        _refuse_full_disk(part, draft.nbytes, out)
        carry_files(draft.source.folder, part)
        (part / "config.json").write_text(draft.config_json, encoding="utf-8")
        write_shards(draft.pieces, part, shard_size)
        if checksums:
            write_checksums(part)
        yield part


def _refuse_full_disk(part: Path, needed: int, out: Path) -> None:
    free = shutil.disk_usage(part).free
    if free < needed:
        raise OutputError(f"{out}: needs {needed:,} bytes and the disk has {free:,} free; free some space")


def earlier_steps(source: Checkpoint, n_blocks: int) -> Manifest | None:
    """What was done to the source before; None: nothing. Raises ModelError for another model's manifest."""
    manifest = manifest_of(source.folder)
    if manifest and len(manifest.blocks) != n_blocks:
        raise ModelError(
            f"{source.folder / 'manifest.json'}: tells of {len(manifest.blocks)} blocks, the model has {n_blocks}; "
            "it is another model's: move it away"
        )
    return manifest


def with_step(earlier: Manifest | None, source: Checkpoint, facts: ModelFacts, step: AnyStep) -> Manifest:
    """The manifest of the result: `step` behind the earlier ones, or as the first one, done to a model of `facts`."""
    if earlier:
        return earlier.followed_by(step)
    local = source.revision is None and source.name != "embedded"
    return Manifest(base=facts, base_path=str(source.folder.resolve()) if local else None, steps=[step])
