"""Tables for the reports, as plain text and as HTML."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

__all__ = ["Table", "format_shape", "format_table"]


@dataclass(frozen=True)
class Table:
    """Rows of text under a header, with lines above and below them.

    Example:
        >>> table = Table(("weight", "entries"), [("0.weight", "24")], below=("1 weight",))
        >>> print(table)
        weight    entries
        -----------------
        0.weight       24
        1 weight
        >>> "<td>0.weight</td>" in table.html()
        True
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    above: Sequence[str] = ()
    below: Sequence[str] = ()

    def __str__(self) -> str:
        return "\n".join([*self.above, format_table(self.header, self.rows), *self.below])

    def html(self) -> str:
        """Return the same as HTML, with every character of the text escaped."""
        cells = [[f"<th>{_escaped(cell)}</th>" for cell in self.header]]
        cells += [[f"<td>{_escaped(cell)}</td>" for cell in row] for row in self.rows]
        head, *body = [f"<tr>{''.join(row)}</tr>" for row in cells]
        return "\n".join(
            [
                *(f"<p>{_escaped(line)}</p>" for line in self.above),
                "<table>",
                f"<thead>{head}</thead>",
                "<tbody>",
                *body,
                "</tbody>",
                "</table>",
                *(f"<p>{_escaped(line)}</p>" for line in self.below),
            ]
        )


def _escaped(text: str) -> str:
    return escape(text.strip())  # columns of text are padded


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
