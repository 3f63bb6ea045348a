"""How commands print: lines that wrap between words, tables that fit the width, in ASCII where it has to be."""

from __future__ import annotations

import os
import sys
import textwrap

from rich.box import SIMPLE, Box
from rich.console import Console
from rich.table import Table
from rich.text import Text

NARROW = "COLUMNS" in os.environ or (sys.stdout is not None and sys.stdout.isatty())
WIDE = None if NARROW else 140  # a file or a pipe has no width of its own
out = Console(highlight=False, soft_wrap=True, markup=False, width=WIDE)  # names and texts are taken literally
ASCII_SIMPLE = Box("    \n    \n -- \n    \n    \n -- \n    \n    \n", ascii=True)


def tell(text: str | Text) -> None:
    """A line; on a terminal our own words are wrapped between words, so that a path stays whole."""
    if isinstance(text, str) and out.width != WIDE:
        deeper = " " * (len(text) - len(text.lstrip()) + 2)
        text = textwrap.fill(
            text, out.width, subsequent_indent=deeper, break_long_words=False, break_on_hyphens=False
        )  # fmt: skip
    out.print(text)


class Grid:
    """A table. Where it is too wide, its last columns stand below, each time behind the first ones that name the row.

    Columns are set to the right but for these `keys`, and those named in `left`.
    """

    def __init__(self, *titles: str, keys: int = 1, left: tuple[str, ...] = ()):
        self.titles, self.keys, self.left = titles, keys, left
        self.rows: list[tuple[str, ...]] = []

    def add(self, *cells: str) -> None:
        """A row."""
        self.rows.append(cells)

    def show(self) -> None:
        """Print it, in as many parts as it takes."""
        rest = list(range(self.keys, len(self.titles)))
        while rest or not self.titles[self.keys :]:
            count = max((n for n in range(1, len(rest) + 1) if self._fits(rest[:n])), default=1)
            out.print(self._table(rest[:count]))
            rest = rest[count:]
            if not rest:
                return

    def _fits(self, columns: list[int]) -> bool:
        return out.measure(self._table(columns), options=out.options.update(max_width=10_000)).maximum <= out.width

    def _table(self, columns: list[int]) -> Table:
        table = Table(box=ASCII_SIMPLE if out.options.ascii_only else SIMPLE, pad_edge=False)
        for i in (*range(self.keys), *columns):
            key = i < self.keys
            table.add_column(
                self.titles[i], justify="left" if key or self.titles[i] in self.left else "right", no_wrap=not key,
                overflow="fold",
            )  # fmt: skip
        for row in self.rows:
            table.add_row(*(Text(row[i]) for i in (*range(self.keys), *columns)))
        return table
