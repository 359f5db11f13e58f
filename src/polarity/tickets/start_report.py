"""Report from what every survivor of a mask starts."""

from dataclasses import dataclass

import torch

from polarity._reports import Report, table
from polarity._tables import format_shape

__all__ = ["LayerStart", "StartReport"]


@dataclass(frozen=True)
class LayerStart:
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

    @property
    def total(self) -> int:
        """Number of entries."""
        return torch.Size(self.shape).numel()


@dataclass(frozen=True)
class StartReport(Report[LayerStart]):
    """From what the survivors of every weight start; ``print`` shows a table.

    Attributes:
        what: ``"signs"``, ``"magnitudes"`` or ``"mask"``: what was given.
        layers: one :class:`LayerStart` per masked weight, in the model's order.

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
    def survivors(self) -> int:
        """Entries that the masks keep, over all layers."""
        return self._sum("survivors")

    @property
    def missing(self) -> int:
        """Survivors for which nothing was given, over all layers."""
        return self._sum("missing")

    @property
    def zeros(self) -> int:
        """Survivors that start at exactly 0, over all layers."""
        return self._sum("zeros")

    @property
    def total(self) -> int:
        """Number of entries, over all layers."""
        return self._sum("total")

    @property
    def density(self) -> float:
        """Fraction of all entries that survive."""
        return self.survivors / self.total if self.total else 1.0

    def __str__(self) -> str:
        def cells(row: LayerStart) -> tuple[str, ...]:
            counts = row.survivors, row.missing, row.zeros
            return format_shape(row.shape), *map(str, counts)

        total = LayerStart("total", (self.total,), self.survivors, self.missing, self.zeros)
        rows = table(
            ("weight", "shape", "survivors", "missing", "zero"), (*self.layers, total), cells
        )
        had = (
            ""
            if self.what == "mask"
            else f"; {self.missing} of {self.survivors} survivors had none"
        )
        return f"{rows}\nstarted from {'the mask' if self.what == 'mask' else self.what}{had}"
