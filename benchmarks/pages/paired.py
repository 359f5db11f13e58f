"""Paired differences over seeds: Student's interval, and the effect that they could have shown.

Two ways of training share the initialisation and the batches of a seed, so they are compared seed
by seed. With n differences of mean d̄ and standard deviation s, the 95 % interval is

    d̄ ± t · s / √n,    t the 97.5 % point of Student's distribution with ν degrees of freedom.

A single comparison has ν = n − 1. A table with more rows tells more of how far two runs of one seed
differ by chance, in one of two ways:

- Rows that share the same things of a seed: what is left of every run after the means of its row
  and of its seed are taken away has (k − 1)(n − 1) degrees of freedom for k rows, and two runs
  differ by √2 of it. With two rows this is the single comparison again.
- Rows that are compared with one reference that shares less with them than they do with each other:
  the mean of the variances of their differences to it. All of these contain the reference, so they
  are not independent: ν is (n − 1) (tr S)² / tr S² with their covariance matrix S (Satterthwaite),
  n − 1 if they all move together.

The detectable effect is the true difference that the two-sided test at 5 % would find with 80 %
probability, from the noncentral t distribution.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from statistics import fmean

# Values by seed.
Seeds = Mapping[int, float]

_LEVEL = 0.05
_POWER = 0.8


@dataclass(frozen=True)
class Spread:
    """The standard deviation of the difference of two runs of one seed, and how well it is known.

    Attributes:
        std: standard deviation.
        freedom: its degrees of freedom.
    """

    std: float
    freedom: float


@dataclass(frozen=True)
class Compared:
    """A mean difference over seeds.

    Attributes:
        mean: the mean.
        count: seeds.
        half: half the width of the 95 % interval; None where no spread is known.
        detectable: the effect detectable with 80 % power; None where no spread is known.
    """

    mean: float
    count: int
    half: float | None = None
    detectable: float | None = None

    @property
    def low(self) -> float | None:
        """The lower end of the interval."""
        return None if self.half is None else self.mean - self.half

    @property
    def high(self) -> float | None:
        """The upper end of the interval."""
        return None if self.half is None else self.mean + self.half

    def __neg__(self) -> Compared:
        return Compared(-self.mean, self.count, self.half, self.detectable)

    def __str__(self) -> str:
        if self.half is None:
            return f"{self.mean:+.2f}"
        return f"{self.mean:+.2f} [{self.low:+.2f}, {self.high:+.2f}]"


def compare(ours: Seeds, theirs: Seeds, spread: Spread | None = None) -> Compared | None:
    """Compare two ways of training over the seeds that both have.

    Args:
        ours: values by seed.
        theirs: what is subtracted from them.
        spread: of the table they belong to. Default: that of these differences alone.

    Returns:
        The mean difference; None where they share no seed.
    """
    both = sorted(ours.keys() & theirs.keys())
    if not both:
        return None
    mean, count = fmean(ours[seed] - theirs[seed] for seed in both), len(both)
    spread = spread or pooled_spread([[ours, theirs]])
    if spread is None:
        return Compared(mean, count)
    error = spread.std / math.sqrt(count)
    return Compared(
        mean, count, critical(spread.freedom) * error, detectable_errors(spread.freedom) * error
    )


def pooled_spread(tables: Iterable[Iterable[Seeds]]) -> Spread | None:
    """Pool over the rows of tables what two runs of one seed differ by chance.

    Args:
        tables: of each table its rows, values by seed. Of a table those seeds count that every
            row has; rows without any value are left out.

    Returns:
        The spread of a difference; None where no table has two rows that share two seeds.
    """
    squares, freedom = 0.0, 0
    for table in tables:
        rows = [row for row in table if row]
        if len(rows) < 2:
            continue
        seeds = sorted(set.intersection(*(set(row) for row in rows)))
        if len(seeds) < 2:
            continue
        of_row = [fmean(row[seed] for seed in seeds) for row in rows]
        of_seed = {seed: fmean(row[seed] for row in rows) for seed in seeds}
        overall = fmean(of_row)
        squares += sum(
            (row[seed] - mean - of_seed[seed] + overall) ** 2
            for row, mean in zip(rows, of_row, strict=True)
            for seed in seeds
        )
        freedom += (len(rows) - 1) * (len(seeds) - 1)
    return Spread(math.sqrt(2 * squares / freedom), freedom) if freedom else None


def with_most_seeds(rows: Iterable[Seeds]) -> list[Seeds]:
    """Return the rows that have the most seeds: a run more of one row must not hide the others."""
    known = [row for row in rows if row]
    most = max(map(len, known), default=0)
    return [row for row in known if len(row) == most]


def level_spread(rows: Iterable[Seeds]) -> Spread | None:
    """Pool over rows what a run varies by from seed to seed, for comparisons with a constant.

    Args:
        rows: values by seed.

    Returns:
        The spread of a run; None where no row has two seeds.
    """
    squares, freedom = 0.0, 0
    for row in rows:
        if len(row) > 1:
            mean = fmean(row.values())
            squares += sum((value - mean) ** 2 for value in row.values())
            freedom += len(row) - 1
    return Spread(math.sqrt(squares / freedom), freedom) if freedom else None


def spread_to_reference(rows: Iterable[Seeds], reference: Seeds) -> Spread | None:
    """Pool over the rows of a table what their differences to one reference vary by chance.

    Args:
        rows: values by seed; those seeds count that every row and the reference have. Rows without
            any value are left out.
        reference: what the rows are compared with.

    Returns:
        The spread of a difference; None where there is no row that shares two seeds with it.
    """
    present = [row for row in rows if row]
    seeds = sorted(set(reference).intersection(*present)) if present else []
    if len(seeds) < 2:
        return None
    residuals = []
    for row in present:
        differences = [row[seed] - reference[seed] for seed in seeds]
        mean = fmean(differences)
        residuals.append([each - mean for each in differences])
    freedom = len(seeds) - 1
    covariance = [
        [sum(x * y for x, y in zip(a, b, strict=True)) / freedom for b in residuals]
        for a in residuals
    ]
    trace = sum(covariance[i][i] for i in range(len(covariance)))
    squares = sum(each**2 for line in covariance for each in line)
    independent = trace**2 / squares if squares else 1.0
    return Spread(math.sqrt(trace / len(present)), freedom * independent)


@cache
def critical(freedom: float) -> float:
    """Return the 97.5 % point of Student's distribution."""
    # scipy is slow to import and only needed here.
    from scipy.stats import t  # type: ignore[import-untyped]

    return float(t.ppf(1 - _LEVEL / 2, freedom))


@cache
def detectable_errors(freedom: float) -> float:
    """Return how many standard errors an effect must have to be found with 80 % probability."""
    from scipy.optimize import brentq  # type: ignore[import-untyped]
    from scipy.stats import nct

    edge = critical(freedom)

    def surplus(errors: float) -> float:
        # The chance of a significant difference of the wrong sign, below 1e-5, is left out.
        return float(nct.sf(edge, freedom, errors)) - _POWER

    return float(brentq(surplus, 1.0, 25.0))
