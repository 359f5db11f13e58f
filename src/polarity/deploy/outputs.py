"""How far two outputs of a model are apart."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["excess", "floating_tensors"]


def floating_tensors(output: Any) -> list[Tensor]:
    """Return the floating-point tensors of an output, also in tuples, lists and dicts."""
    return list(_inside(output))


def excess(
    before: Sequence[Tensor], after: Sequence[Tensor], tolerance: float | None
) -> tuple[float, float]:
    r"""Return how far outputs are apart, and the largest part of what is allowed.

    The distance of two tensors is :math:`\max|a-b| / \max|a|` over their finite entries, infinite
    where shapes, NaN or infinities differ.

    Args:
        before: what a model returned.
        after: what it returns now.
        tolerance: what is allowed; None for the square root of each dtype's machine epsilon.

    Returns:
        The largest distance, and the largest ratio of a distance to what is allowed.

    Example:
        >>> excess([torch.ones(2)], [torch.tensor([1.0, 0.75])], tolerance=0.5)
        (0.25, 0.5)
    """
    if len(before) != len(after):
        return math.inf, math.inf
    distance = part = 0.0
    for a, b in zip(before, after, strict=True):
        allowed = torch.finfo(a.dtype).eps ** 0.5 if tolerance is None else tolerance
        apart = _distance(a, b)
        distance = max(distance, apart)
        part = max(part, apart / allowed if allowed else math.inf if apart else 0.0)
    return distance, part


def _distance(a: Tensor, b: Tensor) -> float:
    finite = a.isfinite()
    if a.shape != b.shape or not torch.equal(finite, b.isfinite()):
        return math.inf
    if not torch.equal(a[~finite].nan_to_num(), b[~finite].nan_to_num()):
        return math.inf
    difference = (a[finite].double() - b[finite].double()).abs()
    if not difference.numel() or not bool(difference.any()):
        return 0.0
    scale = float(a[finite].double().abs().max())
    return float(difference.max()) / scale if scale else math.inf


def _inside(output: Any) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        if output.is_floating_point():
            yield output.detach()
        return
    nested = output.values() if isinstance(output, Mapping) else output
    if isinstance(output, (Mapping, list, tuple)):
        for each in nested:
            yield from _inside(each)
