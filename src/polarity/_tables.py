"""Plain-text tables for the reports."""

from collections.abc import Sequence


def format_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return the rows under the header, first column left-aligned and the others right-aligned."""
    lines = [header, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]

    def align(line: Sequence[str]) -> str:
        first, *rest = line
        cells = [first.ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)]
        return "  ".join(cells).rstrip()

    return "\n".join(
        [align(header), "-" * (sum(widths) + 2 * (len(widths) - 1))] + [align(row) for row in rows]
    )


def format_shape(shape: Sequence[int]) -> str:
    """Return a shape as ``64x3x7x7``."""
    return "x".join(str(size) for size in shape) or "scalar"
