"""What every report is: rows under names, a total, a table, and plain data."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, Generic, Protocol, TypeVar

import torch

from polarity._tables import format_table

__all__ = ["CountedReport", "CountedRow", "Report", "ShapedRow", "plain_data", "table"]


class Named(Protocol):
    """A row of a report: a dataclass with a plain name."""

    @property
    def name(self) -> str: ...


Row = TypeVar("Row", bound=Named)


class Report(Generic[Row]):
    """A report over the weights of a model, one row in ``layers`` for each.

    Iterating gives the rows, ``len`` their number, and ``report["0.weight"]`` the row of that name.
    """

    layers: tuple[Row, ...]

    def __iter__(self) -> Iterator[Row]:
        return iter(self.layers)

    def __len__(self) -> int:
        return len(self.layers)

    def __getitem__(self, name: str) -> Row:
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise KeyError(name)

    def to_dict(self) -> dict[str, Any]:
        """Return fields and computed values as dicts, lists, strings and numbers, as for JSON.

        ``pandas.DataFrame(report.to_dict()["layers"])`` has a row for every weight.

        Example:
            >>> import polarity as pol
            >>> from torch import nn
            >>> report = pol.imp_prune(nn.Linear(10, 4), 0.2)
            >>> report.to_dict()["density"], report.to_dict()["layers"][0]["name"]
            (0.8, 'weight')
        """
        return plain_data(self)

    def _sum(self, attribute: str) -> int:
        """Add up an attribute of the rows."""
        return sum(getattr(layer, attribute) for layer in self.layers)


class ShapedRow:
    """A row about a weight of some shape."""

    shape: tuple[int, ...]

    @property
    def total(self) -> int:
        """Number of entries."""
        return torch.Size(self.shape).numel()


class CountedRow(ShapedRow):
    """A row about a weight, with ``survivors`` of its entries live."""

    survivors: int

    @property
    def density(self) -> float:
        """Fraction of the entries that are live; 1 for an empty weight."""
        return self.survivors / self.total if self.total else 1.0


class CountedReport(Report[Row]):
    """A report whose rows have a ``total``, and that counts the survivors of all of them."""

    @property
    def survivors(self) -> int:
        """Entries that are live, over all layers."""
        return self._sum("survivors")

    @property
    def total(self) -> int:
        """Number of entries, over all layers."""
        return self._sum("total")

    @property
    def density(self) -> float:
        """Fraction of all entries that are live; 1 for a model without entries."""
        return self.survivors / self.total if self.total else 1.0


def plain_data(report: Any) -> dict[str, Any]:
    """Return a dataclass as a dict of its fields and properties, with tuples as lists."""

    def plain(value: Any) -> Any:
        if isinstance(value, (tuple, list)):
            return [plain(each) for each in value]
        return plain_data(value) if is_dataclass(value) else value

    names = [each.name for each in fields(report)]
    for kind in type(report).__mro__:
        names += [name for name, it in vars(kind).items() if isinstance(it, property)]
    return {name: plain(getattr(report, name)) for name in dict.fromkeys(names)}


def table(header: Sequence[str], rows: Sequence[Row], cells: Callable[[Row], Sequence[str]]) -> str:
    """Return a text table: each row's name in the first column, then its ``cells``."""
    return format_table(header, [(row.name, *cells(row)) for row in rows])
