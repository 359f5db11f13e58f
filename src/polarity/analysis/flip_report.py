"""Reports of sign flips: of one layer, of a model, and over many steps."""

from dataclasses import dataclass
from typing import Any

from polarity._reports import Report, Tabular, table
from polarity._tables import Table

__all__ = ["FlipReport", "FlipSeries", "LayerFlips"]


@dataclass(frozen=True)
class LayerFlips:
    """The signs of one weight at two moments.

    Attributes:
        name: plain name of the weight.
        flipped: survivors whose sign changed from + to − or from − to +.
        counted: survivors that have a sign, + or −, at both moments.
        survivors: live entries, including those that are exactly zero at one of the moments.
    """

    name: str
    flipped: int
    counted: int
    survivors: int

    @property
    def fraction(self) -> float:
        """``flipped / counted``; 0 where nothing was counted."""
        return self.flipped / self.counted if self.counted else 0.0


@dataclass(frozen=True)
class FlipReport(Report[LayerFlips]):
    """Sign flips between two moments; ``print`` shows them as a table.

    Counts of the whole model are sums over its layers; its fraction is a mean over entries, not
    over layers.

    Attributes:
        layers: one :class:`~polarity.analysis.LayerFlips` per weight, in the model's order.

    Example:
        >>> one, two = LayerFlips("0.weight", 5, 30, 30), LayerFlips("1.weight", 5, 10, 12)
        >>> report = FlipReport((one, two))
        >>> report.flipped, report.counted, report.survivors, report.fraction
        (10, 40, 42, 0.25)
        >>> report["1.weight"].fraction
        0.5
    """

    layers: tuple[LayerFlips, ...]

    @property
    def flipped(self) -> int:
        """Signs that flipped, over all layers."""
        return self._sum("flipped")

    @property
    def counted(self) -> int:
        """Survivors that have a sign at both moments, over all layers."""
        return self._sum("counted")

    @property
    def survivors(self) -> int:
        """Live entries, over all layers."""
        return self._sum("survivors")

    @property
    def fraction(self) -> float:
        """``flipped / counted`` of the whole model; 0 where nothing was counted."""
        return self.flipped / self.counted if self.counted else 0.0

    def _table(self) -> Table:
        total = LayerFlips("total", self.flipped, self.counted, self.survivors)

        def cells(row: LayerFlips) -> tuple[str, ...]:
            counts = (row.survivors, row.counted, row.flipped)
            return *(f"{count}" for count in counts), f"{row.fraction:.4f}"

        header = ("weight", "survivors", "counted", "flipped", "fraction")
        return table(header, (*self.layers, total), cells)


@dataclass(frozen=True)
class FlipSeries(Tabular):
    """Sign flips step by step; ``print`` shows them as a table.

    Attributes:
        steps: one :class:`~polarity.FlipReport` per recorded step: what flipped since the last one.

    Example:
        >>> steps = [FlipReport((LayerFlips("weight", n, 10, 10),)) for n in (4, 1, 2)]
        >>> series = FlipSeries(tuple(steps))
        >>> series.flipped, series.cumulative, series.per_survivor
        ((4, 1, 2), (4, 5, 7), (0.4, 0.5, 0.7))
    """

    steps: tuple[FlipReport, ...]

    @property
    def flipped(self) -> tuple[int, ...]:
        """Flips at each step, over the whole model."""
        return tuple(step.flipped for step in self.steps)

    @property
    def cumulative(self) -> tuple[int, ...]:
        """Flips up to and including each step."""
        return tuple(sum(self.flipped[: end + 1]) for end in range(len(self.steps)))

    @property
    def per_survivor(self) -> tuple[float, ...]:
        """``cumulative`` divided by the survivors of each step; it can exceed 1."""
        pairs = zip(self.cumulative, self.steps, strict=True)
        return tuple(total / step.survivors if step.survivors else 0.0 for total, step in pairs)

    def layer(self, name: str) -> "FlipSeries":
        """Return the series of one weight.

        Raises:
            KeyError: if it was not tracked.
        """
        return FlipSeries(tuple(FlipReport((step[name],)) for step in self.steps))

    def __len__(self) -> int:
        return len(self.steps)

    def _records(self) -> list[dict[str, Any]]:
        numbers = zip(self.steps, self.cumulative, self.per_survivor, strict=True)
        return [
            {
                "step": place,
                "survivors": step.survivors,
                "flipped": step.flipped,
                "cumulative": total,
                "per_survivor": share,
            }
            for place, (step, total, share) in enumerate(numbers, 1)
        ]

    def _table(self) -> Table:
        header = ("step", "survivors", "flipped", "cumulative", "per survivor")
        rows = [
            (*(f"{count}" for count in counts), f"{share:.4f}")
            for *counts, share in (each.values() for each in self._records())
        ]
        return Table(header, rows)
