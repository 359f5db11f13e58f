"""The decisions of ``compact``, weight by weight."""

from dataclasses import dataclass

from polarity._reports import Report
from polarity._tables import Table
from polarity.deploy.report import LayerDecision, decision_table

__all__ = ["CompactReport", "WeightDecision"]


@dataclass(frozen=True)
class WeightDecision(LayerDecision):
    """The decision about one masked weight, and its reason.

    Attributes:
        name: plain name of the weight.
        shape: its shape.
        density: fraction of its entries that survive.
        rows: number of input vectors in each call with the example inputs; empty without them.
        swapped: whether the layer now computes with the survivors alone (sparse products).
        reason: why, or why not.
        dense_seconds: measured time, forward and backward, of all its calls as a masked weight;
            None if not measured.
        sparse_seconds: the same with sparse products.
        compact: whether only the survivors are stored and trained now.
    """

    compact: bool = False

    @property
    def form(self) -> str:
        """What the weight is now.

        ``"sparse"`` (compact, with sparse products), ``"scattered"`` (compact, and made dense
        where it is used) or ``"masked"``.
        """
        if self.compact:
            return "sparse" if self.swapped else "scattered"
        return "masked"


@dataclass(frozen=True)
class CompactReport(Report[WeightDecision]):
    """The decisions of :func:`polarity.compact`; ``print`` shows them as a table.

    Attributes:
        layers: one :class:`~polarity.survivors.WeightDecision` per masked weight, in model order.
        machine: device and threads of the measurement, for which the decisions hold; empty if
            nothing was measured.

    Example:
        >>> times = (4e-4, 2e-4)
        >>> row = WeightDecision("fc.weight", (512, 256), 0.05, (8,), True, "faster", *times, True)
        >>> report = CompactReport((row,), "cpu, 1 thread")
        >>> report.compact, report.swapped, report["fc.weight"].form
        (('fc.weight',), ('fc.weight',), 'sparse')
        >>> print(report)
        weight       shape  density  rows  masked ms  sparse ms  speed-up  decision
        ---------------------------------------------------------------------------------
        fc.weight  512x256   0.0500     8     0.4000     0.2000     2.00x  sparse: faster
        forward and backward, measured on cpu, 1 thread
    """

    layers: tuple[WeightDecision, ...]
    machine: str = ""

    @property
    def compact(self) -> tuple[str, ...]:
        """Names of the weights that are stored as their survivors now."""
        return tuple(layer.name for layer in self.layers if layer.compact)

    @property
    def swapped(self) -> tuple[str, ...]:
        """Names of the weights with sparse products now."""
        return tuple(layer.name for layer in self.layers if layer.swapped)

    def _table(self) -> Table:
        measured = "not measured: no example_inputs"
        if self.machine:
            measured = f"forward and backward, measured on {self.machine}"
        times = ("masked ms", "sparse ms")
        return decision_table(self.layers, times, lambda r: f"{r.form}: {r.reason}", measured)
