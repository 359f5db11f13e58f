"""How dense each weight is: functions ``(model, density) -> {plain name: density}``.

Pass the result to :func:`polarity.prune` as ``densities=``, with any scores::

    prune(model, scores.random, densities=balanced(model, 0.1), generator=generator)

Each density is a whole number of entries: ``round(density * entries)`` gives that number exactly.
"""

import math
from collections.abc import Mapping, Sequence

from torch import nn

from polarity._checks import check_finite, check_flag, check_fraction
from polarity.targets.search import masked_or_prunable
from polarity.targets.selectors import Selector

__all__ = ["balanced", "erk", "uniform"]


def uniform(
    model: nn.Module,
    density: float,
    *,
    dense_first: bool = False,
    targets: Selector | None = None,
    exclude: Selector | None = None,
) -> dict[str, float]:
    r"""Give every weight the same density.

    A weight of :math:`n` entries keeps :math:`\operatorname{round}(dn)`, as
    ``prune(…, density=d, scope="layer")`` does.

    Args:
        model: any module, plain or masked.
        density: fraction of the entries of each weight that live, in [0, 1].
        dense_first: leave the first weight of the model dense, as RigL does; the others keep the
            given density, so the whole model is denser.
        targets: which weights, in the forms of :func:`polarity.find_targets`; by default the
            masked ones, or all prunable ones if none is masked.
        exclude: which weights to leave out, in the same forms.

    Returns:
        ``{plain name: density}``, in the model's order.

    Raises:
        ValueError: if ``density`` is out of range or there is nothing to prune.
        TypeError: if an argument is of another type.

    Example:
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 8))
        >>> uniform(model, 0.25)
        {'0.weight': 0.25, '1.weight': 0.25}
        >>> uniform(model, 0.25, dense_first=True)
        {'0.weight': 1.0, '1.weight': 0.25}

    Source: Evci et al. (2020), *Rigging the lottery*, section 3, for ``dense_first``.
    """
    check_flag("dense_first", dense_first)
    shapes = _shapes(model, density, targets, exclude)
    densities = dict.fromkeys(shapes, float(density))
    if dense_first:
        densities[next(iter(shapes))] = 1.0
    return densities


def erk(
    model: nn.Module,
    density: float,
    power: float = 1.0,
    *,
    targets: Selector | None = None,
    exclude: Selector | None = None,
) -> dict[str, float]:
    r"""Give each weight a density by the Erdős–Rényi kernel rule: the larger, the sparser.

    A weight of shape :math:`(a_1, \dots, a_r)` gets

    .. math:: d_l = \varepsilon \left(\frac{a_1 + \dots + a_r}{a_1 \cdots a_r}\right)^{p},

    with :math:`\varepsilon` such that :math:`\sum_l d_l n_l = dN`. Where that exceeds 1 the weight
    is dense, and :math:`\varepsilon` is solved for again over the rest. The counts :math:`d_l n_l`
    are rounded down, and the missing entries are given one by one to the weights with the largest
    remainders (ties: the earlier weight), so that their total is exactly
    :math:`\operatorname{round}(dN)`.

    Args:
        model: any module, plain or masked.
        density: fraction of all entries that live, in [0, 1].
        power: :math:`p`; 0 gives every weight the same density, up to rounding.
        targets: which weights, in the forms of :func:`polarity.find_targets`; by default the
            masked ones, or all prunable ones if none is masked.
        exclude: which weights to leave out, in the same forms.

    Returns:
        ``{plain name: density}``, in the model's order.

    Raises:
        ValueError: if ``density`` is out of range, ``power`` is not finite, or there is nothing to
            prune.
        TypeError: if an argument is of another type.

    Example:
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Linear(10, 20), nn.Linear(20, 40))
        >>> erk(model, 0.2)  # 200 entries in all: eps * 30 and eps * 60, and 2/3 of one is rounded
        {'0.weight': 0.335, '1.weight': 0.16625}

    Source: Evci et al. (2020), *Rigging the lottery*, section 3 and appendix; Mocanu et al. (2018)
    for matrices.
    """
    shapes = _shapes(model, density, targets, exclude)
    check_finite("power", power)
    return _densities(shapes, _erk_counts(list(shapes.values()), density, power))


def balanced(
    model: nn.Module,
    density: float,
    *,
    targets: Selector | None = None,
    exclude: Selector | None = None,
) -> dict[str, float]:
    r"""Give every weight the same number of non-zeros; smaller weights are dense.

    With :math:`K = \operatorname{round}(dN)` and the largest level :math:`c` for which
    :math:`\sum_l \min(n_l, c) \le K`, weight :math:`l` of :math:`n_l` entries keeps
    :math:`\min(n_l, c)`. The remainder, less than one entry per weight that is not dense, is given
    to these one by one, earlier weights first: the total is exactly :math:`K`, and the counts of
    weights that are not dense differ by at most one.

    Args:
        model: any module, plain or masked.
        density: fraction of all entries that live, in [0, 1].
        targets: which weights, in the forms of :func:`polarity.find_targets`; by default the
            masked ones, or all prunable ones if none is masked.
        exclude: which weights to leave out, in the same forms.

    Returns:
        ``{plain name: density}``, in the model's order.

    Raises:
        ValueError: if ``density`` is out of range or there is nothing to prune.
        TypeError: if an argument is of another type.

    Example:
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Linear(2, 5), nn.Linear(5, 20), nn.Linear(20, 10))
        >>> balanced(model, 0.2)  # of 62 entries, 10 are the first weight's and 26 each other's
        {'0.weight': 1.0, '1.weight': 0.26, '2.weight': 0.13}

    Source: Gadhikar et al. (2023), *Why random pruning is all we need to start sparse*, and
    *Sign-In to the Lottery*, section 6 (Table 3), for the rule; the split is exact water-filling.
    """
    shapes = _shapes(model, density, targets, exclude)
    sizes = [math.prod(shape) for shape in shapes.values()]
    return _densities(shapes, _water_filled(sizes, round(float(density) * sum(sizes))))


def _water_filled(sizes: Sequence[int], total: int) -> list[int]:
    """Split ``total`` into counts that differ by at most one, except where a size is smaller."""
    counts = [0] * len(sizes)
    left = total
    smallest_first = sorted(range(len(sizes)), key=sizes.__getitem__)
    for filled, place in enumerate(smallest_first):
        open_places = len(sizes) - filled
        if sizes[place] * open_places > left:
            level, remainder = divmod(left, open_places)
            for rank, each in enumerate(sorted(smallest_first[filled:])):
                counts[each] = level + (rank < remainder)
            break
        counts[place] = sizes[place]
        left -= sizes[place]
    return counts


def _erk_counts(shapes: Sequence[tuple[int, ...]], density: float, power: float) -> list[int]:
    """Solve for the ERK rule's factor, weights above 1 made dense, and round to counts."""
    sizes = [math.prod(shape) for shape in shapes]
    total = float(density) * sum(sizes)
    quotas = [float(size) for size in sizes]
    rest = [place for place, size in enumerate(sizes) if size]
    while rest:
        # In logarithms and relative to the largest, so that no power leaves the range of a float.
        logs = [float(power) * math.log(sum(shapes[place]) / sizes[place]) for place in rest]
        raw = [math.exp(each - max(logs)) for each in logs]
        room = max(0.0, total - sum(sizes) + sum(sizes[place] for place in rest))
        epsilon = room / math.fsum(r * sizes[place] for r, place in zip(raw, rest, strict=True))
        open_places = [p for r, p in zip(raw, rest, strict=True) if epsilon * r <= 1]
        if len(open_places) == len(rest):
            for r, place in zip(raw, rest, strict=True):
                quotas[place] = epsilon * r * sizes[place]
            break
        rest = open_places
    return _largest_remainder(quotas, sizes, round(total))


def _largest_remainder(quotas: Sequence[float], sizes: Sequence[int], total: int) -> list[int]:
    """Round quotas to counts of a given total, none above its size."""
    counts = [min(math.floor(quota), size) for quota, size in zip(quotas, sizes, strict=True)]
    by_remainder = sorted(range(len(sizes)), key=lambda place: counts[place] - quotas[place])
    while (missing := total - sum(counts)) > 0:
        open_places = [place for place in by_remainder if counts[place] < sizes[place]]
        for place in open_places[:missing]:
            counts[place] += 1
    return counts


def _shapes(
    model: nn.Module, density: float, targets: Selector | None, exclude: Selector | None
) -> dict[str, tuple[int, ...]]:
    check_fraction("density", density)
    found = masked_or_prunable(model, targets, exclude)
    return {name: tuple(target.shape) for name, target in found.items()}


def _densities(shapes: Mapping[str, tuple[int, ...]], counts: Sequence[int]) -> dict[str, float]:
    """Return counts as densities; times the size, these round to the counts again."""
    return {
        name: count / math.prod(shape) if math.prod(shape) else 1.0
        for (name, shape), count in zip(shapes.items(), counts, strict=True)
    }
