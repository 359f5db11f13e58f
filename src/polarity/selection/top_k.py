"""Exact selection: which entries of many tensors live, to the entry, whatever the ties."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from polarity.selection.chosen import Chosen, Entries

__all__ = ["all_finite", "choose_top", "keep_largest", "keep_top", "keep_top_each", "top_of_field"]


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
    chosen = choose_top(scores, keep, alive)
    return {name: chosen.new_mask(name) for name in scores}


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
    chosen = choose_top(scores, keep, alive)
    return {name: chosen.new_mask(name) for name in scores}


def choose_top(
    scores: Mapping[str, Tensor], keep: int | Mapping[str, int], alive: Mapping[str, Tensor]
) -> Chosen:
    """Choose what :func:`keep_top`, or with a count for each :func:`keep_top_each`, would keep."""
    entries = {name: _entries(name, score, alive) for name, score in scores.items()}
    complaint = "{name!r} has {bad} NaN or infinite scores; nothing was pruned"
    return Chosen(entries, keep, signed=True, complaint=complaint)


def keep_largest(
    weights: Mapping[str, Tensor], keep: int | Mapping[str, int], masks: Mapping[str, Tensor]
) -> dict[str, int]:
    r"""Leave only the living entries of largest magnitude, in place on the masks.

    The same entries as ``keep_top({name: weight.abs()}, keep, masks)``, or where ``keep`` holds a
    count for each tensor as :func:`keep_top_each`, without a copy of weights or masks: two passes
    in cache-sized parts and some 0.1 bytes per weight.

    Args:
        weights: floating tensors of any shape, dtype and device.
        keep: number of entries that live afterwards, of all tensors or ``{name: number}``.
        masks: bool tensors of the same names, shapes and devices, changed in place.

    Returns:
        How many entries of each tensor live now.

    Raises:
        ValueError: as :func:`keep_top`; the masks are left as they were.

    Example:
        >>> import torch
        >>> weights = {"a": torch.tensor([-3.0, 1.0, 2.0]), "b": torch.tensor([-2.0, 2.0])}
        >>> masks = {name: torch.ones(each.shape).bool() for name, each in weights.items()}
        >>> keep_largest(weights, 3, masks)
        {'a': 2, 'b': 1}
        >>> masks
        {'a': tensor([ True, False,  True]), 'b': tensor([ True, False])}
    """
    for name, weight in weights.items():
        if name in masks and masks[name].device != weight.device:
            where = f"{masks[name].device}, expected the weight's {weight.device}"
            raise ValueError(f"mask of {name!r} is on {where}")
    entries = {name: _entries(name, weight, masks, "weight") for name, weight in weights.items()}
    complaint = "{name!r} has {bad} NaN or infinite weights; nothing was pruned"
    chosen = Chosen(entries, keep, signed=False, complaint=complaint)
    in_place = {}
    for name, mask in ((name, masks[name]) for name in weights):
        if chosen.in_place(name):
            in_place[name] = chosen.in_memory(name, mask)
        else:
            mask.copy_(chosen.new_mask(name))

    def write(name: str, part: slice, kept: Any, alive: Any) -> None:
        in_place[name][part] = kept

    chosen.visit(in_place, write)
    return chosen.kept


def top_of_field(field: Tensor, keep: int) -> Tensor:
    """Bool tensor of the ``keep`` largest entries of a 1-D tensor, ties to the lower index."""
    entries = {"field": Entries.of(field, None)}
    return Chosen(entries, keep, signed=True, complaint=None).new_mask("field")


def all_finite(values: Tensor) -> bool:
    """Whether no entry is NaN or infinite, in one pass and without a temporary."""
    if values.numel() == 0:
        return True
    return all(bool(extreme.isfinite()) for extreme in values.aminmax())


def _entries(name: str, score: Tensor, alive: Mapping[str, Tensor], what: str = "score") -> Entries:
    """Return a checked score and its mask, on the device of the score."""
    if name not in alive:
        raise ValueError(f"{what}s name {name!r}, which has no mask")
    if score.shape != alive[name].shape:
        raise ValueError(
            f"{what} of {name!r} has shape {tuple(score.shape)}, "
            f"expected its mask's {tuple(alive[name].shape)}"
        )
    if alive[name].dtype != torch.bool:
        raise ValueError(f"mask of {name!r} has dtype {alive[name].dtype}, expected torch.bool")
    if not score.is_floating_point():
        raise ValueError(
            f"{what} of {name!r} has dtype {score.dtype}, expected a floating-point one"
        )
    return Entries.of(score, alive[name].to(score.device))
