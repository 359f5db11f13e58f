"""Report what a schedule did to the masks of a model, layer by layer."""

from dataclasses import dataclass

from polarity._reports import CountedReport, CountedRow, table
from polarity._tables import Table, format_shape

__all__ = ["LayerUpdate", "UpdateReport"]


@dataclass(frozen=True)
class LayerUpdate(CountedRow):
    """What an update did to one weight.

    Attributes:
        name: plain name of the weight.
        shape: its shape.
        survivors: entries that are live now.
        dropped: entries that were live before and are not now.
        grown: entries that are live now and were not before.
    """

    name: str
    shape: tuple[int, ...]
    survivors: int
    dropped: int
    grown: int


@dataclass(frozen=True)
class UpdateReport(CountedReport[LayerUpdate]):
    """What one update of a schedule did, layer by layer; ``print`` shows it as a table.

    Attributes:
        step: how many optimizer steps had been taken.
        what: ``"drop and grow"``, ``"dense"``, ``"sparse"`` or ``"prune"``.
        layers: one :class:`LayerUpdate` per weight, in the model's order.
        notes: what else was done, or left undone.

    Example:
        >>> rows = (LayerUpdate("fc.weight", (10, 4), survivors=8, dropped=2, grown=2),)
        >>> print(UpdateReport(300, "drop and grow", rows))
        weight     shape  live  dropped  grown  density
        -----------------------------------------------
        fc.weight   10x4     8        2      2   0.2000
        total         40     8        2      2   0.2000
        step 300: drop and grow
    """

    step: int
    what: str
    layers: tuple[LayerUpdate, ...]
    notes: tuple[str, ...] = ()

    @property
    def dropped(self) -> int:
        """Entries that were live before and are not now, over all layers."""
        return self._sum("dropped")

    @property
    def grown(self) -> int:
        """Entries that are live now and were not before, over all layers."""
        return self._sum("grown")

    def _table(self) -> Table:
        total = LayerUpdate("total", (self.total,), self.survivors, self.dropped, self.grown)

        def cells(row: LayerUpdate) -> tuple[str, ...]:
            counts = (row.survivors, row.dropped, row.grown)
            return format_shape(row.shape), *map(str, counts), f"{row.density:.4f}"

        header = ("weight", "shape", "live", "dropped", "grown", "density")
        below = (f"step {self.step}: {self.what}", *self.notes)
        return table(header, (*self.layers, total), cells, below=below)
