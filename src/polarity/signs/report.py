"""Report the new signs of a model, layer by layer."""

import math
from dataclasses import dataclass, field

from polarity._reports import Report, table
from polarity._tables import Table
from polarity.targets.reach import Reach

__all__ = ["LayerSigns", "SignReport"]


@dataclass(frozen=True)
class LayerSigns:
    """The new signs of one weight, counted over its survivors.

    Attributes:
        name: plain name of the weight.
        survivors: number of signs that were set.
        sigma: their new magnitude, the standard deviation of the initial tensor.
        positive: fraction of the new signs that are +.
        agree_init: fraction that equals the sign of the initial weight.
        agree_trained: fraction that equals the sign of the trained weight.
        flipped: new signs that differ from the sign (against zero) of the strategy's reference.
        revived: pruned entries that came back with a value other than 0 (strategy ``standard``).
    """

    name: str
    survivors: int
    sigma: float
    positive: float
    agree_init: float
    agree_trained: float
    flipped: int
    revived: int = 0


@dataclass(frozen=True)
class SignReport(Report[LayerSigns]):
    """The new signs of a model, layer by layer; ``print`` shows them as a table.

    Fractions of the whole model are means over its survivors, not over its layers.

    Attributes:
        layers: one :class:`~polarity.signs.report.LayerSigns` per masked weight, in model order.
        strategy: the reference strategy, under the papers' name.
        reach: how many of a model's matrix entries the layers are, and the largest others.

    Example:
        >>> one = LayerSigns("0.weight", 30, 0.1, 0.5, agree_init=1.0, agree_trained=0.9, flipped=0)
        >>> two = LayerSigns("1.weight", 10, 0.2, 0.5, agree_init=0.6, agree_trained=1.0, flipped=4)
        >>> report = SignReport((one, two), "mask1")
        >>> report.survivors, report.agree_init, report.flipped
        (40, 0.9, 4)
    """

    layers: tuple[LayerSigns, ...]
    strategy: str
    reach: Reach | None = field(default=None, compare=False)

    @property
    def survivors(self) -> int:
        """Signs that were set, over all layers."""
        return self._sum("survivors")

    @property
    def flipped(self) -> int:
        """Signs that the perturbations changed, over all layers."""
        return self._sum("flipped")

    @property
    def revived(self) -> int:
        """Pruned entries that came back, over all layers."""
        return self._sum("revived")

    @property
    def positive(self) -> float:
        """Fraction of all new signs that are +."""
        return self._mean("positive")

    @property
    def agree_init(self) -> float:
        """Fraction of all new signs that equals the initial one."""
        return self._mean("agree_init")

    @property
    def agree_trained(self) -> float:
        """Fraction of all new signs that equals the trained one."""
        return self._mean("agree_trained")

    def _mean(self, attribute: str) -> float:
        """Average a fraction of the layers over their survivors."""
        total = sum(layer.survivors * getattr(layer, attribute) for layer in self.layers)
        return total / self.survivors if self.survivors else 0.0

    def _table(self) -> Table:
        agree = self.positive, self.agree_init, self.agree_trained
        total = LayerSigns("total", self.survivors, math.nan, *agree, self.flipped, self.revived)

        def cells(row: LayerSigns) -> tuple[str, ...]:
            sigma = "" if row is total else f"{row.sigma:.4g}"  # every layer has its own
            fractions = (row.positive, row.agree_init, row.agree_trained)
            shares = [f"{each:.3f}" for each in fractions]
            return f"{row.survivors}", sigma, *shares, f"{row.flipped}", f"{row.revived}"

        header = ("weight", "survivors", "sigma", "+", "= init", "= trained", "flipped", "revived")
        above = (f"strategy {self.strategy}",)
        below = () if self.reach is None else (str(self.reach),)
        return table(header, (*self.layers, total), cells, above=above, below=below)
