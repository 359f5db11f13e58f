"""Report a model as it is, weight by weight."""

from collections.abc import Callable
from dataclasses import dataclass

from polarity._reports import CountedReport, CountedRow
from polarity._tables import Table, format_shape
from polarity.targets.reach import Reach

__all__ = ["Summary", "WeightSummary"]


@dataclass(frozen=True)
class WeightSummary(CountedRow):
    """One weight as it is.

    Attributes:
        name: plain name of the weight.
        shape: its shape.
        form: ``"plain"``, or what is attached: ``"masked"``, ``"Sign-In"``,
            ``"norm interpolated"``, ``"torch.nn.utils.prune"``, ``"sparse product"`` (after
            :func:`polarity.deploy.compress`) or the class of another parametrization; then
            ``"compact"``, ``"in step"`` (a mask enforced in the optimizer's step),
            ``"remembered"`` (a mask that is not applied) and ``"soft threshold"``.
        frozen: whether nothing of it requires gradients.
        aliases: its other names, where it is tied.
        survivors: ones of its mask, applied or only remembered, and of these the entries above a
            soft threshold; without a mask, its entries that are not zero.
        plus: survivors whose effective value is positive.
        minus: survivors whose effective value is negative.
        survivor_std: population standard deviation of the survivors' effective values. This is not
            the sigma of :func:`polarity.reinit_signs`, which is that of the whole *initial* tensor:
            the two are equal for a dense weight at its initialisation.
        inner_scaling: mean of :func:`polarity.inner_scaling` over the survivors; None without
            Sign-In.
        left_out: why :func:`polarity.find_targets` does not take it; None if it does, or if it
            carries a mask.
        dense_multiply_adds: multiply-adds for one example of the products that it is a factor of;
            0 if the forward pass does not read it, None if nothing was counted.
        sparse_multiply_adds: those times the fraction of its entries that forward computes with.
    """

    name: str
    shape: tuple[int, ...]
    form: str
    frozen: bool
    aliases: tuple[str, ...]
    survivors: int
    plus: int
    minus: int
    survivor_std: float
    inner_scaling: float | None
    left_out: str | None
    dense_multiply_adds: float | None = None
    sparse_multiply_adds: float | None = None

    @property
    def positive(self) -> float | None:
        """Fraction of + among the survivors that have a sign; None if none has."""
        return _share(self.plus, self.minus)


@dataclass(frozen=True)
class Summary(CountedReport[WeightSummary]):
    """A model as it is, weight by weight; ``print`` shows it as a table.

    Columns without any entry are not printed.

    Attributes:
        layers: one :class:`~polarity.analysis.WeightSummary` for every matrix and every parameter
            with something attached, tied ones once, in the model's order.
        other_entries: entries of all other parameters: biases, norms.
        other_multiply_adds: multiply-adds for one example of products without a weight, as in
            attention; None if nothing was counted.
        reach: how many of the model's matrix entries pruning takes by default.

    Example:
        >>> row = WeightSummary("0.weight", (10, 4), "masked", False, (), 8, 6, 2, 0.5, None, None)
        >>> print(Summary((row,), other_entries=10, other_multiply_adds=None, reach=Reach(40, 40)))
        weight    shape    form  density      +  std of survivors
        ---------------------------------------------------------
        0.weight   10x4  masked   0.2000  0.750               0.5
        total        40           0.2000  0.750
        10 entries in other parameters
        in reach: 40 of 40 matrix entries
    """

    layers: tuple[WeightSummary, ...]
    other_entries: int
    other_multiply_adds: float | None
    reach: Reach

    @property
    def positive(self) -> float | None:
        """Fraction of + among all survivors that have a sign; None if none has."""
        return _share(self._sum("plus"), self._sum("minus"))

    @property
    def dense_multiply_adds(self) -> float | None:
        """Multiply-adds of the model for one example, as if no entry were pruned."""
        return self._multiply_adds("dense_multiply_adds")

    @property
    def sparse_multiply_adds(self) -> float | None:
        """Multiply-adds of the model for one example, with live entries alone."""
        return self._multiply_adds("sparse_multiply_adds")

    def _multiply_adds(self, which: str) -> float | None:
        if self.other_multiply_adds is None:
            return None
        counts: list[float | None] = [getattr(layer, which) for layer in self.layers]
        return self.other_multiply_adds + sum(each for each in counts if each is not None)

    def _table(self) -> Table:
        columns: dict[str, tuple[Callable[[WeightSummary], str], str]] = {
            "weight": (lambda row: row.name, "total"),
            "shape": (lambda row: format_shape(row.shape), f"{self.total}"),
            "form": (lambda row: f"{row.form}{', frozen' if row.frozen else ''}", ""),
            "density": (lambda row: f"{row.density:.4f}", f"{self.density:.4f}"),
            "+": (lambda row: _number(row.positive, ".3f"), _number(self.positive, ".3f")),
            "std of survivors": (lambda row: f"{row.survivor_std:.4g}", ""),
            "mean m²−v²": (lambda row: _number(row.inner_scaling, ".4g"), ""),
            "multiply-adds": (
                lambda row: _number(row.dense_multiply_adds, ",.0f"),
                _number(self.dense_multiply_adds, ",.0f"),
            ),
            "of live entries": (
                lambda row: _number(row.sparse_multiply_adds, ",.0f"),
                _number(self.sparse_multiply_adds, ",.0f"),
            ),
            "left out": (lambda row: row.left_out or "", ""),
        }
        cells = {
            header: [*(cell(row) for row in self.layers), total]
            for header, (cell, total) in columns.items()
        }
        shown = {header: column for header, column in cells.items() if any(column)}
        if "left out" in shown:  # text is aligned to the left
            width = max(map(len, ("left out", *shown["left out"])))
            shown["left out".ljust(width)] = [each.ljust(width) for each in shown.pop("left out")]
        return Table(tuple(shown), list(zip(*shown.values(), strict=True)), below=self._below())

    def _below(self) -> tuple[str, ...]:
        lines = [f"{self.other_entries} entries in other parameters"]
        if self.other_multiply_adds is not None:
            others = f", {self.other_multiply_adds:,.0f} of them in products without a weight"
            lines.append(f"multiply-adds of one example{others * (self.other_multiply_adds > 0)}")
        return *lines, str(self.reach)


def _share(plus: int, minus: int) -> float | None:
    return plus / (plus + minus) if plus + minus else None


def _number(value: float | None, form: str) -> str:
    return "" if value is None else f"{value:{form}}"
