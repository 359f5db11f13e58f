"""The grid of a sweep: which perturbations, and then which runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import product

from .config import Kind, Perturbation, RunConfig, Strategy


def perturbation_grid(
    phi: Sequence[float] = (),
    epsilon: Sequence[float] = (),
    delta: Sequence[float] = (),
    delta_largest: Sequence[float] = (),
    *,
    combined: bool = False,
) -> list[Perturbation]:
    """Return the perturbations of a sweep, each once.

    A value of zero perturbs nothing for any kind, so all sweeps share one unperturbed run.

    Args:
        phi: thresholds of polarity.
        epsilon: fractions of survivors whose sign is flipped.
        delta: fractions of survivors, the smallest first, whose sign is drawn anew.
        delta_largest: the same, the largest first.
        combined: apply every combination together, in the order of the arguments; otherwise each
            kind is swept alone.

    Returns:
        The perturbations in the order in which they were asked for.
    """
    axes: list[tuple[Kind, Sequence[float]]] = [("phi", phi), ("epsilon", epsilon)]
    axes += [("delta", delta), ("delta_largest", delta_largest)]
    points: Iterable[tuple[tuple[Kind, float], ...]]
    if combined:
        points = product(*([(kind, value) for value in values] for kind, values in axes if values))
    else:
        points = (((kind, value),) for kind, values in axes for value in values)
    effective = (tuple((kind, value) for kind, value in point if value != 0) for point in points)
    return list(dict.fromkeys(effective))


def expand(
    base: RunConfig,
    strategies: Sequence[Strategy],
    perturbations: Sequence[Perturbation],
    seeds: Sequence[int],
) -> list[RunConfig]:
    """Return every combination as a run, seed by seed: a part of the sweep is a result too.

    Strategy `rewind` gives no signs that could be perturbed: it runs once for each seed.
    """
    combinations = product(seeds, perturbations, strategies)
    runs = (
        replace(base, strategy=strategy, perturbation=perturbation, seed=seed)
        for seed, perturbation, strategy in combinations
        if strategy != "rewind" or not perturbation
    )
    return list(dict.fromkeys(runs))
