"""Scores that compare a weight with its initial value."""

from collections.abc import Mapping
from typing import TypeAlias

from torch import Tensor

from polarity._checks import check_floating, check_names, check_shape
from polarity._shards import is_sharded, shard_like
from polarity.rewind import RewindPoint, weights_of
from polarity.scores.score import Score
from polarity.targets.shards import piece_like

__all__ = ["initial_like", "large_final_diff_sign", "large_final_same_sign", "magnitude_increase"]

Initial: TypeAlias = RewindPoint | Mapping[str, Tensor]


def large_final_same_sign(init: Initial) -> Score:
    r"""Score by :math:`\max(0, w_f\,\operatorname{sign}(w_i))`: large, and of its initial sign.

    An entry whose sign changed in training scores 0 and is pruned first.

    Args:
        init: the initial weights, a :class:`~polarity.RewindPoint` or ``{name: tensor}``.

    Raises:
        ValueError: when scoring, if the weight is missing in ``init`` or has another shape there.

    Example:
        >>> import torch
        >>> score = large_final_same_sign({"w": torch.tensor([1.0, 1.0, -1.0])})
        >>> score("w", torch.tensor([2.0, -3.0, -4.0]))
        tensor([2., 0., 4.])

    Source: Zhou et al. (2019), section 2, criterion *large final, same sign*.
    """
    weights_of(init)

    def score(name: str, weight: Tensor) -> Tensor:
        return (weight * initial_like(init, name, weight).sign()).clamp_min(0)

    return score


def large_final_diff_sign(init: Initial) -> Score:
    r"""Score by :math:`\max(0, -w_f\,\operatorname{sign}(w_i))`: large, and of a changed sign.

    The control of :func:`large_final_same_sign`.

    Args:
        init: the initial weights, a :class:`~polarity.RewindPoint` or ``{name: tensor}``.

    Raises:
        ValueError: when scoring, if the weight is missing in ``init`` or has another shape there.

    Example:
        >>> import torch
        >>> score = large_final_diff_sign({"w": torch.tensor([1.0, 1.0, -1.0])})
        >>> score("w", torch.tensor([2.0, -3.0, -4.0]))
        tensor([0., 3., 0.])

    Source: Zhou et al. (2019), section 2, criterion *large final, different sign*.
    """
    weights_of(init)

    def score(name: str, weight: Tensor) -> Tensor:
        return (-weight * initial_like(init, name, weight).sign()).clamp_min(0)

    return score


def magnitude_increase(init: Initial) -> Score:
    r"""Score by :math:`|w_f| - |w_i|`: how much an entry grew in training. May be negative.

    Args:
        init: the initial weights, a :class:`~polarity.RewindPoint` or ``{name: tensor}``.

    Raises:
        ValueError: when scoring, if the weight is missing in ``init`` or has another shape there.

    Example:
        >>> import torch
        >>> score = magnitude_increase({"w": torch.tensor([1.0, -3.0])})
        >>> score("w", torch.tensor([-2.0, 0.5]))
        tensor([ 1.0000, -2.5000])

    Source: Zhou et al. (2019), section 2, criterion *magnitude increase*.
    """
    weights_of(init)

    def score(name: str, weight: Tensor) -> Tensor:
        return weight.abs() - initial_like(init, name, weight).abs()

    return score


def initial_like(init: Initial, name: str, weight: Tensor) -> Tensor:
    """Return the initial value of ``name`` on the device and in the dtype of ``weight``.

    Raises:
        ValueError: if it is missing in ``init`` or has another shape there.
    """
    known = weights_of(init)
    check_names("init", known, {*known, name}, needed=[name])
    check_floating(f"init[{name!r}]", known[name])
    check_shape("init", name, known[name].shape, weight.shape)
    value = known[name].to(weight.device, weight.dtype)
    if is_sharded(weight) and not is_sharded(value):
        return shard_like(piece_like(value, weight, "init", name), weight)
    return value
