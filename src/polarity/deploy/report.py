"""The decisions about linear layers, layer by layer, with the times that they rest on."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from polarity._reports import Report, table
from polarity._tables import Table, format_shape

__all__ = ["CompressReport", "LayerDecision", "decision_table"]


@dataclass(frozen=True)
class LayerDecision:
    """The decision about one linear layer, and its reason.

    Attributes:
        name: plain name of its weight.
        shape: features out and in.
        density: fraction of its weights that are not zero.
        rows: number of input vectors in each call with the example inputs.
        swapped: whether the layer now computes a sparse product.
        reason: why, or why not.
        dense_seconds: measured time of all its calls with the dense weight; None if not measured.
        sparse_seconds: the same with the sparse product.
    """

    name: str
    shape: tuple[int, ...]
    density: float
    rows: tuple[int, ...]
    swapped: bool
    reason: str
    dense_seconds: float | None = None
    sparse_seconds: float | None = None

    @property
    def speedup(self) -> float | None:
        """Dense time over sparse time, above 1 where sparse is faster; None if not measured."""
        if self.dense_seconds is None or self.sparse_seconds is None:
            return None
        return self.dense_seconds / max(self.sparse_seconds, 1e-12)


Decision = TypeVar("Decision", bound=LayerDecision)


@dataclass(frozen=True)
class CompressReport(Report[LayerDecision]):
    """The decisions of :func:`polarity.deploy.compress`; ``print`` shows them as a table.

    Attributes:
        layers: one :class:`LayerDecision` per linear layer, in the model's order.
        machine: device and threads of the measurement, for which the decisions hold.
        difference: largest difference between the model's outputs before and after on the example
            inputs, relative to the largest output.

    Example:
        >>> layer = LayerDecision("fc.weight", (512, 256), 0.05, (8,), True, "faster", 3e-4, 1e-4)
        >>> report = CompressReport((layer,), "cpu, 1 thread", difference=1e-7)
        >>> report.swapped
        ('fc.weight',)
        >>> print(report)
        weight       shape  density  rows  dense ms  sparse ms  speed-up  decision
        --------------------------------------------------------------------------------
        fc.weight  512x256   0.0500     8    0.3000     0.1000     3.00x  sparse: faster
        measured on cpu, 1 thread; outputs differ by at most 1.0e-07 of the largest
    """

    layers: tuple[LayerDecision, ...]
    machine: str
    difference: float

    @property
    def swapped(self) -> tuple[str, ...]:
        """Names of the weights that are sparse now."""
        return tuple(layer.name for layer in self.layers if layer.swapped)

    def _table(self) -> Table:
        return decision_table(
            self.layers,
            ("dense ms", "sparse ms"),
            lambda row: f"{'sparse' if row.swapped else 'dense'}: {row.reason}",
            f"measured on {self.machine}; outputs differ by at most {self.difference:.1e} of the "
            "largest",
        )


def decision_table(
    layers: Sequence[Decision],
    times: tuple[str, str],
    decided: Callable[[Decision], str],
    measured: str,
) -> Table:
    """Return decisions as a table.

    Args:
        layers: the decisions.
        times: the headings of the two times.
        decided: what was decided about a layer, in words.
        measured: the line below: on what was measured.
    """
    width = max(map(len, (*map(decided, layers), "decision")))

    def cells(row: Decision) -> tuple[str, ...]:
        return (
            format_shape(row.shape),
            f"{row.density:.4f}",
            _rows(row.rows),
            _milliseconds(row.dense_seconds),
            _milliseconds(row.sparse_seconds),
            "" if row.speedup is None else f"{row.speedup:.2f}x",
            decided(row).ljust(width),  # text is aligned to the left
        )

    header = ("weight", "shape", "density", "rows", *times, "speed-up", "decision".ljust(width))
    return table(header, layers, cells, below=(measured,))


def _rows(rows: tuple[int, ...]) -> str:
    """Return each number once, with the number of calls that had it: ``3 x 65``."""
    return ", ".join(f"{n} x {each}" if n > 1 else f"{each}" for each, n in Counter(rows).items())


def _milliseconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds * 1e3:.4f}"
