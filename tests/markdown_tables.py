"""The tables of a Markdown text, and complaints about rows that don't fit their header."""

from __future__ import annotations

import re

RULE = re.compile(r":?-+:?")
PIPE = re.compile(r"(?<!\\)\|")


def tables(text: str) -> list[list[list[str]]]:
    """Every table as rows of cells, without its rule. What looks like a row has to belong to a whole table."""
    found: list[list[str]] = []
    inside = False
    for line in text.split("\n"):
        is_row = line.startswith("|")
        if is_row and not inside:
            found.append([])
        if is_row:
            found[-1].append(line)
        else:
            assert "| |" not in line and not line.rstrip().endswith(" |"), f"half a row: {line}"
        inside = is_row
    return [_checked(lines) for lines in found]


def _checked(lines: list[str]) -> list[list[str]]:
    rows = [_cells(line) for line in lines]
    assert len(rows) > 2 and all(RULE.fullmatch(cell) for cell in rows[1]), f"no header and rule: {lines[:2]}"
    for row, line in zip(rows, lines, strict=True):
        assert len(row) == len(rows[0]), f"{len(row)} cells below {len(rows[0])} titles: {line}"
    return [rows[0], *rows[2:]]


def _cells(line: str) -> list[str]:
    assert line.endswith("|"), f"a row without an end: {line}"
    return [cell.strip() for cell in PIPE.split(line[1:-1])]
