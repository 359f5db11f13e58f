"""Shares of runs that must be all or none, with their exact intervals."""

from __future__ import annotations

from dataclasses import dataclass

from .verdicts import FAILS, HOLDS, PARTLY

_POWER = 0.8


@dataclass(frozen=True)
class Counted:
    """How many of some runs did something.

    Attributes:
        successes: how many did.
        count: of how many.
        low: lower end of the 95 % interval of the probability.
        high: its upper end.
    """

    successes: int
    count: int
    low: float
    high: float

    @property
    def share(self) -> float:
        """The fraction that did."""
        return self.successes / self.count

    @property
    def detectable(self) -> float:
        """The probability of an exception that would have shown in this many runs, 80 % power."""
        return float(1 - (1 - _POWER) ** (1 / self.count))

    def __str__(self) -> str:
        return f"{self.share:.2f} [{self.low:.2f}, {self.high:.2f}]"


def as_printed(found: Counted, printed: float) -> str:
    """Judge a printed share of 1 or 0: it holds partly if most runs, but not all, are so."""
    if found.share == printed:
        return HOLDS
    return PARTLY if abs(found.share - printed) < 0.5 else FAILS
