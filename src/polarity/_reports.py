"""What every report is: rows under names, a total, a table, and plain data."""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from importlib import import_module
from numbers import Integral, Real
from typing import Any, Generic, Protocol, TypeVar

import torch

from polarity._tables import Table

__all__ = ["CountedReport", "CountedRow", "Report", "ShapedRow", "Tabular", "plain_data", "table"]


class Named(Protocol):
    """A row of a report: a dataclass with a plain name."""

    @property
    def name(self) -> str: ...


Row = TypeVar("Row", bound=Named)


class Tabular:
    """What is shown as a table: in a terminal, in a notebook, as plain data, and in pandas."""

    @abstractmethod
    def _table(self) -> Table:
        """Return the table that is printed."""

    @abstractmethod
    def _records(self) -> list[dict[str, Any]]:
        """Return the rows without a total, as dicts of plain values."""

    def __str__(self) -> str:
        return str(self._table())

    def _repr_html_(self) -> str:
        """Return the table as HTML, which notebooks show."""
        return self._table().html()

    def to_dict(self) -> dict[str, Any]:
        """Return fields and computed values as dicts, lists, strings and numbers, as for JSON.

        Example:
            >>> import polarity as pol
            >>> from torch import nn
            >>> report = pol.imp_prune(nn.Linear(10, 4), 0.2)
            >>> report.to_dict()["density"], report.to_dict()["layers"][0]["name"]
            (0.8, 'weight')
        """
        return plain_data(self)

    def to_pandas(self) -> Any:
        """Return a ``pandas.DataFrame`` with a line for every row of the table but the total.

        Shapes are tuples. The columns are the fields and computed values of a row, under the names
        that they have in :meth:`to_dict`.

        Raises:
            ImportError: if pandas is missing (``pip install "torch-polarity[pandas]"``).
        """
        try:
            pandas = import_module("pandas")
        except ImportError as error:
            raise ImportError(
                f'to_pandas needs pandas ({error}): pip install "torch-polarity[pandas]"'
            ) from error
        records = self._records()
        return pandas.DataFrame([{k: _hashable(v) for k, v in each.items()} for each in records])


class Report(Tabular, Generic[Row]):
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

    def _records(self) -> list[dict[str, Any]]:
        return [plain_data(layer) for layer in self.layers]

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
    """Return a dataclass as a dict of its fields and properties, in types that JSON has."""
    names = [each.name for each in fields(report)]
    for kind in type(report).__mro__:
        names += [name for name, it in vars(kind).items() if isinstance(it, property)]
    return {name: _plain(getattr(report, name)) for name in dict.fromkeys(names)}


def _plain(value: Any) -> Any:
    """Return a value in types that JSON has: numbers may be numpy's, or fractions."""
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(each) for each in value]
    if is_dataclass(value):
        return plain_data(value)
    if isinstance(value, Real) and not isinstance(value, bool):
        return int(value) if isinstance(value, Integral) else float(value)
    return value


def _hashable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def table(
    header: Sequence[str],
    rows: Sequence[Row],
    cells: Callable[[Row], Sequence[str]],
    *,
    above: Sequence[str] = (),
    below: Sequence[str] = (),
) -> Table:
    """Return a table: each row's name in the first column, then its ``cells``."""
    return Table(header, [(row.name, *cells(row)) for row in rows], above, below)
