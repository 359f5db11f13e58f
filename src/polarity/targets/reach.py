"""How much of a model a call reaches, and what it leaves out."""

from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["LeftOut", "Reach"]

_LISTED = 3


@dataclass(frozen=True)
class LeftOut:
    """One matrix that a call does not reach.

    Attributes:
        name: its plain name.
        entries: its number of entries.
        reason: why it is left out, and often how to take it.
    """

    name: str
    entries: int
    reason: str

    def __str__(self) -> str:
        return f"{self.name} ({self.entries} entries) is {self.reason}"


@dataclass(frozen=True)
class Reach:
    """How many matrix entries of a model a call reaches; ``print`` shows it as a line.

    Counted are the floating-point parameters with at least two dimensions, tied ones once.

    Attributes:
        taken: entries in reach.
        total: entries of the whole model.
        left_out: the largest matrices that are not in reach, the largest first.

    Example:
        >>> print(Reach(taken=40, total=50))
        in reach: 40 of 50 matrix entries
    """

    taken: int
    total: int
    left_out: tuple[LeftOut, ...] = ()

    @classmethod
    def of(cls, total: int, left: Iterable[LeftOut]) -> "Reach":
        """Return the reach of a call from the entries of a model and what is left out of them."""
        left = sorted(left, key=lambda each: -each.entries)
        return cls(total - sum(each.entries for each in left), total, tuple(left[:_LISTED]))

    @property
    def fraction(self) -> float:
        """The fraction of all matrix entries that is in reach; 1 without any."""
        return self.taken / self.total if self.total else 1.0

    def __str__(self) -> str:
        return f"in reach: {self.taken} of {self.total} matrix entries"
