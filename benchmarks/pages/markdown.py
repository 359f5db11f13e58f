"""Markdown tables whose source is aligned too: it is read in terminals."""

from __future__ import annotations

from collections.abc import Sequence

# What a cell shows where nothing was measured or printed.
NONE = "—"


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Make a Markdown table of a head and its rows."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        padded = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
        return f"| {' | '.join(padded)} |"

    rule = f"|{'|'.join('-' * (width + 2) for width in widths)}|"
    return "\n".join([line(head), rule, *map(line, rows)])
