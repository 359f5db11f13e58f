"""What one re-signing did, layer by layer."""

from collections.abc import Iterator
from dataclasses import dataclass

from polarity._tables import format_table

__all__ = ["LayerSigns", "SignReport"]


@dataclass(frozen=True)
class LayerSigns:
    """The new signs of one weight, counted over its survivors.

    Attributes:
        name: plain name of the weight.
        survivors: number of signs that were set.
        sigma: the magnitude they got, the standard deviation of the initial tensor.
        positive: fraction of the new signs that are +.
        agree_init: fraction that equals the sign of the initial weight.
        agree_trained: fraction that equals the sign of the trained weight.
        flipped: signs that the perturbations changed from what the strategy refers to, against the
            zero crossing.
        revived: pruned entries that came back with a value (strategy ``standard``).
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
class SignReport:
    """What one call re-signed; ``print`` shows it as a table.

    Fractions of the whole model are means over its survivors, not over its layers.

    Attributes:
        layers: one :class:`LayerSigns` per masked weight, in the model's order.
        strategy: the reference strategy, under the papers' name.

    Example:
        >>> one = LayerSigns("0.weight", 30, 0.1, 0.5, agree_init=1.0, agree_trained=0.9, flipped=0)
        >>> two = LayerSigns("1.weight", 10, 0.2, 0.5, agree_init=0.6, agree_trained=1.0, flipped=4)
        >>> report = SignReport((one, two), "mask1")
        >>> report.survivors, report.agree_init, report.flipped
        (40, 0.9, 4)
    """

    layers: tuple[LayerSigns, ...]
    strategy: str

    @property
    def survivors(self) -> int:
        """Signs that were set, over all layers."""
        return sum(layer.survivors for layer in self.layers)

    @property
    def flipped(self) -> int:
        """Signs that the perturbations changed, over all layers."""
        return sum(layer.flipped for layer in self.layers)

    @property
    def revived(self) -> int:
        """Pruned entries that came back, over all layers."""
        return sum(layer.revived for layer in self.layers)

    @property
    def positive(self) -> float:
        """Fraction of all new signs that are +."""
        return self._mean([layer.positive for layer in self.layers])

    @property
    def agree_init(self) -> float:
        """Fraction of all new signs that equals the initial one."""
        return self._mean([layer.agree_init for layer in self.layers])

    @property
    def agree_trained(self) -> float:
        """Fraction of all new signs that equals the trained one."""
        return self._mean([layer.agree_trained for layer in self.layers])

    def _mean(self, fractions: list[float]) -> float:
        weighted = zip(self.layers, fractions, strict=True)
        total = sum(layer.survivors * fraction for layer, fraction in weighted)
        return total / self.survivors if self.survivors else 0.0

    def __iter__(self) -> Iterator[LayerSigns]:
        return iter(self.layers)

    def __len__(self) -> int:
        return len(self.layers)

    def __str__(self) -> str:
        header = ("weight", "survivors", "sigma", "+", "= init", "= trained", "flipped", "revived")
        rows = [
            (
                each.name,
                f"{each.survivors}",
                f"{each.sigma:.4g}",
                f"{each.positive:.3f}",
                f"{each.agree_init:.3f}",
                f"{each.agree_trained:.3f}",
                f"{each.flipped}",
                f"{each.revived}",
            )
            for each in self.layers
        ]
        rows.append(
            (
                "total",
                f"{self.survivors}",
                "",
                f"{self.positive:.3f}",
                f"{self.agree_init:.3f}",
                f"{self.agree_trained:.3f}",
                f"{self.flipped}",
                f"{self.revived}",
            )
        )
        return f"strategy {self.strategy}\n{format_table(header, rows)}"
