"""The dense model beside the cut one: whether they belong together, and which block is which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from shortlm.artifacts import Manifest, manifest_of
from shortlm.errors import ModelError, PlanError
from shortlm.model import ModelFiles, block_count, facts_from_config, find_anatomy, meta_model, text_config
from shortlm.units import Unit


@dataclass(frozen=True)
class Pairing:
    """The dense model's index of every block of the cut one, and sublayers that these lack or blocks whose widths are
    smaller, by the cut one's index.
    """

    blocks: list[int]
    left_out: list[Unit]
    n_dense: int
    narrower: frozenset[int] = frozenset()

    def next_place(self, j: int) -> int:
        """The dense block at whose entry the state behind the cut model's block j belongs."""
        return self.blocks[j + 1] if j + 1 < len(self.blocks) else self.n_dense

    def is_before_gap(self, j: int) -> bool:
        """Whether blocks are missing behind block j, or a sublayer in it; missing first blocks count for block 0."""
        missing = self.next_place(j) != self.blocks[j] + 1 or (j == 0 and self.blocks[0] > 0)
        return missing or any(unit.block == j for unit in self.left_out)

    @property
    def gaps(self) -> list[int]:
        """The blocks before one."""
        return [j for j in range(len(self.blocks)) if self.is_before_gap(j)]

    @property
    def first(self) -> int:
        """The first block before a gap, or of smaller widths. Raises PlanError if nothing is missing."""
        found = next((j for j in range(len(self.blocks)) if self.is_before_gap(j) or j in self.narrower), None)
        if found is None:
            raise PlanError("nothing is missing in this model, so nothing can be repaired; is --against the right one?")
        return found


def paired(cut: ModelFiles, dense: ModelFiles, given: Sequence[int] | None = None) -> Pairing:
    """By the cut model's manifest, or as `given`. Raises ModelError if they don't fit together, PlanError for a map of
    blocks that can't be.
    """
    name, count, dense_count = cut.settings.model, block_count(cut.config), block_count(dense.config)
    for what, of in (("vocab_size", "vocabulary"), ("hidden_size", "width")):
        ours, theirs = (getattr(text_config(files.config), what) for files in (cut, dense))
        if ours != theirs:
            raise ModelError(
                f"{dense.settings.model}: has a {of} of {theirs}, {name} of {ours}; --against must be the model that "
                "was cut"
            )
    if cut.tokenizer and dense.tokenizer and cut.tokenizer.get_vocab() != dense.tokenizer.get_vocab():
        raise ModelError(f"{dense.settings.model}: its tokenizer is not that of {name}; --against must be the same")
    for files in (cut, dense):
        if getattr(files.config, "quantization_config", None):
            raise ModelError(f"{files.settings.model}: is quantised; repair before you quantise")
    manifest = _since(dense, manifest_of(cut.checkpoint.folder))
    blocks = list(given) if given else manifest.blocks if manifest else list(range(count))
    if len(blocks) != count or sorted(set(blocks)) != blocks or blocks[-1] >= dense_count or blocks[0] < 0:
        raise PlanError(
            f"--blocks: {_listed(blocks)} can't be the {count} blocks of {name} among the {dense_count} of "
            f"{dense.settings.model}; give their indices there, in order, as 0-3,8-15"
        )
    left_out = manifest.left_out if manifest else []
    here = [Unit(blocks.index(unit.block), unit.part) for unit in left_out if unit.block in blocks]
    return Pairing(blocks, here, dense_count, _narrower(cut, dense, blocks))


def _narrower(cut: ModelFiles, dense: ModelFiles, blocks: Sequence[int]) -> frozenset[int]:
    """The blocks whose parameters are fewer than the dense model's in modules that both have."""
    ours, theirs = (
        find_anatomy(meta_model(files.config, files.settings.trust_remote_code)).blocks for files in (cut, dense)
    )
    shapes = [{name: p.shape for name, p in block.named_parameters()} for block in theirs]
    found = {
        j
        for j, block in enumerate(ours)
        for name, p in block.named_parameters()
        if shapes[blocks[j]].get(name, p.shape) != p.shape
    }
    return frozenset(found)


def _since(dense: ModelFiles, manifest: Manifest | None) -> Manifest | None:
    """What was done to the cut model after the dense one, which may itself have a manifest."""
    before = manifest_of(dense.checkpoint.folder)
    if manifest is None or before is None or manifest.steps[: len(before.steps)] != before.steps:
        return manifest
    rest = manifest.steps[len(before.steps) :]
    return Manifest(base=facts_from_config(dense.settings), steps=rest) if rest else None


def _listed(blocks: Sequence[int]) -> str:
    return ",".join(map(str, blocks[:12])) + (",..." if len(blocks) > 12 else "")
