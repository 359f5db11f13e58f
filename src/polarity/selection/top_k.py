"""The rule of selection: the highest live entries stay, exactly this many, ties by position."""

from collections.abc import Mapping

import torch
from torch import Tensor

from polarity.selection.chosen import Chosen, Entries

__all__ = [
    "all_finite",
    "choose_top",
    "keep_largest",
    "keep_top",
    "keep_top_by_sorting",
    "keep_top_each",
    "top_of_field",
]


def keep_top_by_sorting(
    scores: Mapping[str, Tensor], keep: int, live: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Keep the ``keep`` highest-scored live entries: the rule itself, by one stable sort.

    What everything else in this folder has to equal, to the entry. It takes about 40 bytes and
    several hundred nanoseconds for each entry, which :func:`keep_top` does not.

    Example:
        >>> import torch
        >>> scores = {"a": torch.tensor([3.0, 1.0, 2.0]), "b": torch.tensor([2.0, 2.0])}
        >>> ones = {name: torch.ones(score.shape).bool() for name, score in scores.items()}
        >>> keep_top_by_sorting(scores, 3, ones)
        {'a': tensor([ True, False,  True]), 'b': tensor([ True, False])}
    """
    flat = torch.cat([score.reshape(-1).double() for score in scores.values()])
    contends = torch.cat([live[name].reshape(-1) for name in scores])
    places = contends.nonzero().squeeze(1)
    order = flat[places].argsort(descending=True, stable=True)
    kept = torch.zeros_like(contends)
    kept[places[order[:keep]]] = True
    sizes = [score.numel() for score in scores.values()]
    return {
        name: mask.view(scores[name].shape)
        for name, mask in zip(scores, torch.split(kept, sizes), strict=True)
    }


@torch.no_grad()
def keep_top(
    scores: Mapping[str, Tensor], keep: int, live: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    r"""Keep exactly the ``keep`` highest-scored live entries over all tensors together.

    With the entries numbered through all tensors in the order of ``scores`` and row-major inside
    each, entry :math:`i` precedes entry :math:`j` if :math:`s_i > s_j`, or :math:`s_i = s_j` and
    :math:`i < j`; the first ``keep`` live entries survive. ``-0.0`` equals ``+0.0``.

    Args:
        scores: floating tensors of any shape, dtype and device; entries that are not live are
            never looked at.
        keep: number of entries that live afterwards.
        live: bool tensors of the same names and shapes; only live entries can be kept.

    Returns:
        New bool masks under the same names, on the devices of the scores.

    Raises:
        ValueError: if a live entry scores NaN or infinite (the tensor is named), if shapes or
            names differ, or if ``keep`` is negative or exceeds the number of live entries.

    Example:
        >>> import torch
        >>> scores = {"a": torch.tensor([3.0, 1.0, 2.0]), "b": torch.tensor([2.0, 2.0])}
        >>> ones = {name: torch.ones(score.shape).bool() for name, score in scores.items()}
        >>> keep_top(scores, 3, ones)
        {'a': tensor([ True, False,  True]), 'b': tensor([ True, False])}
    """
    chosen = choose_top(scores, keep, live)
    return {name: chosen.new_mask(name) for name in scores}


def keep_top_each(
    scores: Mapping[str, Tensor], keep: Mapping[str, int], live: Mapping[str, Tensor]
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
    chosen = choose_top(scores, keep, live)
    return {name: chosen.new_mask(name) for name in scores}


def choose_top(
    scores: Mapping[str, Tensor], keep: int | Mapping[str, int], live: Mapping[str, Tensor]
) -> Chosen:
    """Choose what :func:`keep_top`, or with a count for each :func:`keep_top_each`, would keep."""
    entries = {name: _entries(name, score, live) for name, score in scores.items()}
    complaint = "{name!r} has {bad} NaN or infinite scores; nothing was pruned"
    return Chosen(entries, keep, signed=True, complaint=complaint)


def keep_largest(
    weights: Mapping[str, Tensor], keep: int | Mapping[str, int], masks: Mapping[str, Tensor]
) -> dict[str, int]:
    r"""Leave only the live entries of largest magnitude, in place on the masks.

    The same entries as ``keep_top({name: weight.abs()}, keep, masks)``, or where ``keep`` holds a
    count for each tensor as :func:`keep_top_each`, without a copy of the weights: two passes in
    cache-sized chunks and about 0.1 bytes per weight, and one new mask at a time.

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
    for name in weights:
        chosen.write(name, masks[name])
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


def _entries(name: str, score: Tensor, live: Mapping[str, Tensor], what: str = "score") -> Entries:
    """Return a checked score and its mask, on the device of the score."""
    if name not in live:
        raise ValueError(f"{what}s name {name!r}, which has no mask")
    if score.shape != live[name].shape:
        raise ValueError(
            f"{what} of {name!r} has shape {tuple(score.shape)}, "
            f"expected its mask's {tuple(live[name].shape)}"
        )
    if live[name].dtype != torch.bool:
        raise ValueError(f"mask of {name!r} has dtype {live[name].dtype}, expected torch.bool")
    if not score.is_floating_point():
        raise ValueError(
            f"{what} of {name!r} has dtype {score.dtype}, expected a floating-point one"
        )
    return Entries.of(score, live[name].to(score.device))
