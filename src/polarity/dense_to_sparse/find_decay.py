"""Search for the weight decay of soft thresholds that ends at a density."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from polarity._checks import check_callable, check_fraction, check_integer, check_number
from polarity._progress import Progress, watching
from polarity._reports import Tabular
from polarity._tables import Table
from polarity._warnings import warn_caller

__all__ = ["DecaySearch", "find_decay"]


@dataclass(frozen=True)
class DecaySearch(Tabular):
    """The result of :func:`~polarity.dense_to_sparse.find_decay`; ``print`` tabulates its runs.

    Attributes:
        decay: the decay whose run came nearest to the density.
        density: the density at which that run ended.
        wanted: the density that was asked for.
        tolerance: by how much it may differ.
        runs: (decay, density) of every run, in their order.

    Example:
        >>> print(DecaySearch(0.002, 0.104, 0.1, 0.005, ((0.001, 0.3), (0.002, 0.104))))
        decay  density
        --------------
        0.001   0.3000
        0.002   0.1040
        0.002 is the nearest to density 0.1, within 0.005
    """

    decay: float
    density: float
    wanted: float
    tolerance: float
    runs: tuple[tuple[float, float], ...]

    @property
    def found(self) -> bool:
        """Whether the density is within the tolerance."""
        return abs(self.density - self.wanted) <= self.tolerance

    def _records(self) -> list[dict[str, Any]]:
        return [{"decay": decay, "density": density} for decay, density in self.runs]

    def _table(self) -> Table:
        rows = [(f"{decay:.4g}", f"{density:.4f}") for decay, density in self.runs]
        within = "within" if self.found else "not within"
        end = f"is the nearest to density {self.wanted:g}, {within} {self.tolerance:g}"
        return Table(("decay", "density"), rows, below=(f"{self.decay:.4g} {end}",))


def find_decay(
    train: Callable[[float], float],
    density: float,
    tolerance: float = 0.005,
    runs: int = 6,
    *,
    between: tuple[float, float] = (1e-5, 1e-2),
    progress: Progress = False,
) -> DecaySearch:
    r"""Find the weight decay of :math:`s` for which a whole STR run ends at a density.

    Bisects :math:`\log \lambda`, on the understanding that more decay leaves fewer weights. Each
    trial is a full run, because the density is known at its end only. In an experiment, search on
    one seed, use the result for all, and print the densities that they end at.

    The logarithm of :math:`s_0 / s` is about :math:`\sum_t \eta_t \lambda / (1 - \mu)` as far as
    decay alone decides it, which helps to choose ``between``: a sum between 0.1 and 2 from
    :math:`s_0 = -8`, about 6 to 6.5 from −3200.

    Args:
        train: makes one run with the given decay, and returns the density that it ends at (of
            :func:`soft_density`, for instance).
        density: the density to end at, in [0, 1].
        tolerance: a run that ends this close ends the search.
        runs: the most runs to make.
        between: the smallest and the largest decay to consider, both positive.
        progress: True shows a bar over the runs (needs tqdm); a function wraps them as
            ``tqdm.tqdm`` does.

    Returns:
        The :class:`DecaySearch`.

    Raises:
        ValueError: if an argument is out of range, or ``train`` returns what is no fraction.
        TypeError: if an argument, or what ``train`` returns, is of another type.

    Warns:
        UserWarning: if no run ended within the tolerance.

    Example:
        >>> search = find_decay(lambda decay: 1 / (1 + 1000 * decay), density=0.5, tolerance=0.05)
        >>> search.found, len(search.runs)
        (True, 4)
    """
    check_callable("train", train)
    check_fraction("density", density)
    check_number("tolerance", tolerance, at_least=0)
    check_integer("runs", runs, at_least=1)
    low, high = _checked_between(between)
    watch = watching(progress)
    made: list[tuple[float, float]] = []
    for _ in watch(range(runs)):
        decay = math.sqrt(low * high)
        reached = train(decay)
        check_fraction(f"what train({decay:.4g}) returns", reached)
        made.append((decay, float(reached)))
        if abs(reached - density) <= tolerance:
            break
        if reached > density:
            low = decay
        else:
            high = decay
    nearest = min(made, key=lambda run: abs(run[1] - density))
    search = DecaySearch(*nearest, float(density), float(tolerance), tuple(made))
    if not search.found:
        warn_caller(
            f"density={density} was not met within tolerance={tolerance} in {len(made)} runs, the "
            f"nearest ended at {search.density:.4g} with decay {search.decay:.4g}: repeat with "
            f"between=({low:.4g}, {high:.4g}), or wider if all runs lie on one side"
        )
    return search


def _checked_between(between: tuple[float, float]) -> tuple[float, float]:
    """Return the two ends after a check."""
    if not isinstance(between, (tuple, list)) or len(between) != 2:
        raise TypeError(f"between={between!r}, expected a pair of numbers")
    low, high = between
    check_number("between[0]", low, above=0, below=math.inf)
    check_number("between[1]", high, above=low, below=math.inf)
    return low, high
