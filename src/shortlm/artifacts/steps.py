"""One edit of a checkpoint, as its manifest tells it.

A new kind of edit takes two files. Its record stands in this folder: a class on Step with a `kind` of its own, and
`blocks_after` where it changes which blocks there are. Its verb makes the pieces and hands them to
`checkpoint.written`. What is left is its name in the list of kinds (`AnyStep` in manifest.py).
"""

from __future__ import annotations

from shortlm.artifacts.base import Count, Provenance, Record


class Step(Record):
    """What all kinds have: the size of the weights before and after, and when and with what it was done."""

    bytes_before: Count
    bytes_after: Count
    provenance: Provenance

    def blocks_after(self, blocks: list[int]) -> list[int]:
        """`blocks`: the original index of every block that the step found. Returns those of the blocks it left.

        Raises ValueError if the step can't have found so many.
        """
        return blocks
