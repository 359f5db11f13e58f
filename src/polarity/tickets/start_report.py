"""Report from what every survivor of a mask starts."""

from dataclasses import dataclass

from polarity._reports import CountedReport, ShapedRow, table
from polarity._tables import Table, format_shape

__all__ = ["LayerStart", "StartReport"]


@dataclass(frozen=True)
class LayerStart(ShapedRow):
    """From what the survivors of one weight start.

    Attributes:
        name: plain name of the weight.
        shape: its shape.
        survivors: entries that the mask keeps.
        missing: survivors for which nothing was given: without a sign they keep that of the
            initialisation, without a magnitude they start at 0.
        zeros: survivors that start at exactly 0.
    """

    name: str
    shape: tuple[int, ...]
    survivors: int
    missing: int
    zeros: int


@dataclass(frozen=True)
class StartReport(CountedReport[LayerStart]):
    """From what the survivors of every weight start; ``print`` shows a table.

    Attributes:
        what: ``"signs"``, ``"magnitudes"`` or ``"mask"``: what was given.
        layers: one :class:`~polarity.tickets.start_report.LayerStart` per masked weight, in model
            order.

    Example:
        >>> rows = (LayerStart("fc.weight", (10, 4), survivors=8, missing=2, zeros=0),)
        >>> print(StartReport("signs", rows))
        weight     shape  survivors  missing  zero
        ------------------------------------------
        fc.weight   10x4          8        2     0
        total         40          8        2     0
        started from signs; 2 of 8 survivors had none
    """

    what: str
    layers: tuple[LayerStart, ...]

    @property
    def missing(self) -> int:
        """Survivors for which nothing was given, over all layers."""
        return self._sum("missing")

    @property
    def zeros(self) -> int:
        """Survivors that start at exactly 0, over all layers."""
        return self._sum("zeros")

    def _table(self) -> Table:
        def cells(row: LayerStart) -> tuple[str, ...]:
            counts = row.survivors, row.missing, row.zeros
            return format_shape(row.shape), *map(str, counts)

        total = LayerStart("total", (self.total,), self.survivors, self.missing, self.zeros)
        header = ("weight", "shape", "survivors", "missing", "zero")
        had = f"{self.what}; {self.missing} of {self.survivors} survivors had none"
        below = (f"started from {'the mask' if self.what == 'mask' else had}",)
        return table(header, (*self.layers, total), cells, below=below)
