"""Report the soft thresholds of a model and the densities that they lead to."""

import math
from dataclasses import dataclass

from polarity._reports import CountedReport, CountedRow, table
from polarity._tables import Table, format_shape

__all__ = ["LayerThreshold", "ThresholdReport"]


@dataclass(frozen=True)
class LayerThreshold(CountedRow):
    """The soft threshold of one weight.

    Attributes:
        name: plain name of the weight.
        shape: its shape.
        s: the trained number, None for a weight without a threshold.
        survivors: entries that are live and above the threshold.
    """

    name: str
    shape: tuple[int, ...]
    s: float | None
    survivors: int

    @property
    def threshold(self) -> float | None:
        """The logistic function of s, below which magnitudes are 0."""
        if self.s is None:
            return None
        return 1 / (1 + math.exp(-self.s)) if self.s > -700 else 0.0


@dataclass(frozen=True)
class ThresholdReport(CountedReport[LayerThreshold]):
    """The soft threshold and the density of every masked weight; ``print`` shows a table.

    Attributes:
        layers: one :class:`LayerThreshold` per weight, in the model's order.

    Example:
        >>> print(ThresholdReport((LayerThreshold("fc.weight", (10, 4), s=-4.0, survivors=10),)))
        weight     shape   s  threshold  live  density
        ----------------------------------------------
        fc.weight   10x4  -4    0.01799    10   0.2500
        total         40                   10   0.2500
    """

    layers: tuple[LayerThreshold, ...]

    def _table(self) -> Table:
        def cells(row: LayerThreshold) -> tuple[str, ...]:
            s = "" if row.s is None else f"{row.s:.4g}"
            threshold = "" if row.threshold is None else f"{row.threshold:.4g}"
            counts = str(row.survivors), f"{row.density:.4f}"
            return format_shape(row.shape), s, threshold, *counts

        total = LayerThreshold("total", (self.total,), None, self.survivors)
        header = ("weight", "shape", "s", "threshold", "live", "density")
        return table(header, (*self.layers, total), cells)
