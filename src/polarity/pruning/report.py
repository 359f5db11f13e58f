"""Report the result of a pruning call, layer by layer."""

from dataclasses import dataclass, field

from polarity._reports import CountedReport, ShapedRow, table
from polarity._tables import Table, format_shape
from polarity.selection.ties import Ties
from polarity.targets.reach import Reach

__all__ = ["LayerReport", "PruneReport", "note_on_ties"]

# Ties that decided more than this share of the survivors are worth a note.
_WORTH_A_NOTE = 0.01


@dataclass(frozen=True)
class LayerReport(ShapedRow):
    """What pruning did to one weight.

    Attributes:
        name: plain name of the weight.
        shape: its shape.
        before: entries that were live before.
        after: entries that are live now.
    """

    name: str
    shape: tuple[int, ...]
    before: int
    after: int

    @property
    def density(self) -> float:
        """Fraction of the entries that are live now; 1 for an empty weight."""
        return self.after / self.total if self.total else 1.0


@dataclass(frozen=True)
class PruneReport(CountedReport[LayerReport]):
    """What one call pruned, layer by layer; ``print`` shows it as a table.

    Attributes:
        layers: one :class:`~polarity.pruning.report.LayerReport` per weight, in the model's order.
        notes: how many survivors were chosen among equal scores, if more than 1 % of them; and
            what else was done to the model, optimizer and scheduler, or left undone.
        reach: how many of the model's matrix entries the layers are, and the largest others.

    Example:
        >>> report = PruneReport((LayerReport("fc.weight", (10, 4), before=40, after=32),))
        >>> report.density
        0.8
        >>> print(report)
        weight     shape  before  after  density
        ----------------------------------------
        fc.weight   10x4      40     32   0.8000
        total         40      40     32   0.8000
    """

    layers: tuple[LayerReport, ...]
    notes: tuple[str, ...] = ()
    reach: Reach | None = field(default=None, compare=False)

    @property
    def before(self) -> int:
        """Entries that were live before, over all layers."""
        return self._sum("before")

    @property
    def survivors(self) -> int:
        """Entries that are live now, over all layers."""
        return self._sum("after")

    def _table(self) -> Table:
        total = LayerReport("total", (self.total,), self.before, self.survivors)

        def cells(row: LayerReport) -> tuple[str, ...]:
            return format_shape(row.shape), f"{row.before}", f"{row.after}", f"{row.density:.4f}"

        header = ("weight", "shape", "before", "after", "density")
        reach = () if self.reach is None else (str(self.reach),)
        return table(header, (*self.layers, total), cells, below=(*self.notes, *reach))


def note_on_ties(by_ties: int, survivors: int, ties: Ties) -> tuple[str, ...]:
    """Return a note on how many survivors were chosen among equal entries; none if they are few."""
    if by_ties <= _WORTH_A_NOTE * survivors:
        return ()
    how = 'by index: ties="random" draws them' if ties == "index" else "at random"
    return (f"ties: {by_ties:,} of {survivors:,} survivors were chosen among equal scores {how}",)
