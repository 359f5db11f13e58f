"""The result of a search for weights: what was found, and what was skipped and why."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from polarity._reports import Tabular, plain_data
from polarity._tables import Table, format_shape
from polarity.targets.reach import Reach
from polarity.targets.shards import plain_class
from polarity.targets.target import Target

__all__ = ["TargetRow", "Targets"]


@dataclass(frozen=True)
class TargetRow:
    """One weight that was found or skipped, as plain values.

    Attributes:
        name: plain name of the weight.
        shape: its shape; None if it was skipped.
        used_by: the class of the module that holds it; None if it was skipped.
        skipped: why it is not a target; None if it is one.
    """

    name: str
    shape: tuple[int, ...] | None
    used_by: str | None
    skipped: str | None = None


@dataclass(frozen=True, eq=False)
class Targets(Mapping[str, Target], Tabular):
    """The result of a search: the targets by name, and what was skipped and why.

    Attributes:
        found: the targets by plain name, in the model's order.
        skipped: why a matrix, or another parameter that was asked for, is not a target, by plain
            name.
        reach: how many of the model's matrix entries the targets are.
    """

    found: dict[str, Target]
    skipped: dict[str, str] = field(default_factory=dict)
    reach: Reach | None = None

    def __getitem__(self, name: str) -> Target:
        return self.found[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.found)

    def __len__(self) -> int:
        return len(self.found)

    @property
    def layers(self) -> tuple[TargetRow, ...]:
        """A row for every target, then one for everything that was skipped."""
        found = [
            TargetRow(
                name,
                tuple(target.shape),
                plain_class(target.module).__name__,
            )
            for name, target in self.found.items()
        ]
        return *found, *(TargetRow(name, None, None, why) for name, why in self.skipped.items())

    def to_dict(self) -> dict[str, Any]:
        """Return ``layers`` and ``reach`` as dicts, lists, strings and numbers, as for JSON."""
        return {
            "layers": self._records(),
            "reach": None if self.reach is None else plain_data(self.reach),
        }

    def _records(self) -> list[dict[str, Any]]:
        return [plain_data(each) for each in self.layers]

    def _table(self) -> Table:
        rows = [
            (row.name, format_shape(row.shape), row.used_by or "")
            if row.shape is not None
            else (row.name, "skipped", row.skipped or "")
            for row in self.layers
        ]
        below = () if self.reach is None else (str(self.reach),)
        return Table(("weight", "shape", "used by"), rows, below=below)
