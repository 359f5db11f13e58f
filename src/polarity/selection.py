"""Exact selection: which entries of many tensors live, to the entry, whatever the ties."""

from collections.abc import Mapping

import torch
from torch import Tensor

__all__ = ["all_finite", "keep_top", "keep_top_each", "top_of_field"]


@torch.no_grad()
def keep_top(
    scores: Mapping[str, Tensor], keep: int, alive: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    r"""Keep exactly the ``keep`` highest-scored living entries over all tensors together.

    With the entries numbered through all tensors in the order of ``scores`` and row-major inside
    each, entry :math:`i` precedes entry :math:`j` if :math:`s_i > s_j`, or :math:`s_i = s_j` and
    :math:`i < j`; the first ``keep`` living entries survive. ``-0.0`` equals ``+0.0``.

    Args:
        scores: floating tensors of any shape, dtype and device; entries that are not alive are
            never looked at.
        keep: number of entries that live afterwards.
        alive: bool tensors of the same names and shapes; only living entries can be kept.

    Returns:
        New bool masks under the same names, on the devices of the scores.

    Raises:
        ValueError: if a living entry scores NaN or infinite (the tensor is named), if shapes or
            names differ, or if ``keep`` is negative or exceeds the number of living entries.

    Example:
        >>> import torch
        >>> scores = {"a": torch.tensor([3.0, 1.0, 2.0]), "b": torch.tensor([2.0, 2.0])}
        >>> ones = {name: torch.ones(score.shape).bool() for name, score in scores.items()}
        >>> keep_top(scores, 3, ones)
        {'a': tensor([ True, False,  True]), 'b': tensor([ True, False])}
    """
    fields = {name: _field(name, score, alive) for name, score in scores.items()}
    total = sum(int(alive[name].count_nonzero()) for name in fields)
    if not 0 <= keep <= total:
        raise ValueError(f"keep={keep} is not between 0 and the {total} living entries")
    if not fields:
        return {}
    # One common dtype and device; widening a float never changes the order of two values.
    double = any(field.dtype == torch.float64 for field in fields.values())
    device = next(iter(fields.values())).device
    field = torch.cat(
        [each.to(device, torch.float64 if double else torch.float32) for each in fields.values()]
    )
    kept = torch.split(top_of_field(field, keep), [each.numel() for each in fields.values()])
    return {
        name: mine.view(score.shape).to(score.device)
        for (name, score), mine in zip(scores.items(), kept, strict=True)
    }


def keep_top_each(
    scores: Mapping[str, Tensor], keep: Mapping[str, int], alive: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Keep exactly ``keep[name]`` entries of each tensor on its own, by :func:`keep_top`'s rule.

    Raises:
        ValueError: as :func:`keep_top`; a count out of range names its tensor.

    Example:
        >>> import torch
        >>> scores = {"a": torch.tensor([3.0, 1.0, 2.0]), "b": torch.tensor([0.5, 0.1])}
        >>> ones = {name: torch.ones(score.shape).bool() for name, score in scores.items()}
        >>> keep_top_each(scores, {"a": 1, "b": 1}, ones)
        {'a': tensor([ True, False, False]), 'b': tensor([ True, False])}
    """
    masks: dict[str, Tensor] = {}
    for name, score in scores.items():
        try:
            masks |= keep_top({name: score}, keep[name], alive)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    return masks


def top_of_field(field: Tensor, keep: int) -> Tensor:
    """Bool tensor of the ``keep`` largest entries of a 1-D tensor, ties to the lower index."""
    if keep == 0:
        return torch.zeros_like(field, dtype=torch.bool)
    if field.is_cuda:  # where kthvalue refuses to run under deterministic algorithms
        threshold = field.sort(descending=True).values[keep - 1]
    else:
        threshold = field.kthvalue(field.numel() - keep + 1).values
    kept = field > threshold
    ties = (field == threshold).nonzero().squeeze(1)
    kept[ties[: keep - int(kept.count_nonzero())]] = True
    return kept


def all_finite(values: Tensor) -> bool:
    """Whether no entry is NaN or infinite, in one pass and without a temporary."""
    if values.numel() == 0:
        return True
    return all(bool(extreme.isfinite()) for extreme in values.aminmax())


def _field(name: str, score: Tensor, alive: Mapping[str, Tensor]) -> Tensor:
    """Return the scores of one tensor, flat and checked, with -inf where nothing lives."""
    if name not in alive:
        raise ValueError(f"scores name {name!r}, which has no mask")
    if score.shape != alive[name].shape:
        raise ValueError(
            f"score of {name!r} has shape {tuple(score.shape)}, "
            f"expected its mask's {tuple(alive[name].shape)}"
        )
    if not score.is_floating_point():
        raise ValueError(
            f"score of {name!r} has dtype {score.dtype}, expected a floating-point one"
        )
    living = alive[name].to(score.device)
    if not all_finite(score.detach()):
        bad = int((~score.detach().isfinite() & living).count_nonzero())
        if bad:
            raise ValueError(f"{name!r} has {bad} NaN or infinite scores; nothing was pruned")
    return torch.where(living, score.detach(), -torch.inf).flatten()
