"""How many signs differ between two moments, layer by layer."""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from polarity._checks import check_mapping, check_names, check_shape, check_type
from polarity._shards import is_sharded
from polarity.analysis.flip_report import FlipReport, LayerFlips
from polarity.parametrizations.arithmetic import as_mask
from polarity.rewind import RewindPoint
from polarity.selection.ranks import Ranks
from polarity.targets.search import all_targets, attached, find_targets
from polarity.targets.shards import piece_like, ranks_of, together
from polarity.targets.target import Target

__all__ = [
    "count_flips",
    "live_entries",
    "of_all_ranks",
    "sign_flips",
    "signs_of",
    "tracked_targets",
]

Weights: TypeAlias = nn.Module | RewindPoint | Mapping[str, Tensor]


def sign_flips(
    before: Weights, after: Weights, masks: Mapping[str, Tensor] | None = None
) -> FlipReport:
    r"""Count the signs that differ between two moments, through the mask.

    With weights :math:`w, w'` and mask :math:`M`, a layer has

    .. math::
        \text{flipped} = |\{i : M_i,\ w_i w'_i < 0\}|, \qquad
        \text{counted} = |\{i : M_i,\ w_i w'_i \neq 0\}|,

    computed from the signs, so no product can underflow. A survivor that is exactly zero (or NaN)
    at either moment has no sign there: it is neither counted nor flipped. Pruned entries are
    ignored.

    Args:
        before: the earlier weights: a model (its effective weights), a :class:`RewindPoint`, or
            ``{plain name: tensor}``. Tensors may be of any floating dtype, or int8 signs.
        after: the later ones, in the same forms.
        masks: ``{plain name: mask}``, bool, or zeros and ones, of the weights to compare. By
            default the masks of the model given as ``after`` (else as ``before``), enforced or only
            remembered, less what is below its soft thresholds; if it has none, its prunable weights
            are compared, and if neither is a model, every floating-point or int8 tensor of
            ``after``. A weight without a mask counts as pruned where ``after`` is zero.

    Of a model that ``fully_shard`` has divided, or of tensors that are divided like it, every rank
    counts the rows that it holds, and the report has the sums; all ranks call.

    Returns:
        The :class:`FlipReport`.

    Raises:
        ValueError: if a name is missing on either side, shapes differ, a mask holds values other
            than zeros and ones, or there is nothing to compare.
        TypeError: if ``before`` or ``after`` is of another type.

    Example:
        >>> import torch
        >>> before = {"weight": torch.tensor([1.0, -1.0, 2.0, 0.0])}
        >>> after = {"weight": torch.tensor([3.0, 1.0, 0.0, 1.0])}
        >>> print(sign_flips(before, after))
        weight  survivors  counted  flipped  fraction
        ---------------------------------------------
        weight          3        2        1    0.5000
        total           3        2        1    0.5000

    Source: *Sign-In to the Lottery*, section 3 (Figures 1, 5 and 8).
    """
    earlier, later = _tensors(before, "before"), _tensors(after, "after")
    if masks is None:
        masks = _masks_of(after, before, later)
    check_mapping("masks", masks, "{name: mask}")
    if not masks:
        raise ValueError(
            "masks is empty, and after holds no weights: expected one to compare at least"
        )
    given = {"before": earlier, "after": later, "masks": masks}
    likes = {name: _divided(name, given) for name in masks}
    ranks = ranks_of(likes.values()) if any(map(is_sharded, likes.values())) else None

    def counted() -> list[LayerFlips]:
        return [_compared(name, like, earlier, later, masks) for name, like in likes.items()]

    return of_all_ranks(together(ranks, counted, list(masks)), ranks)


def _divided(name: str, given: Mapping[str, Mapping[str, Tensor]]) -> Tensor:
    """Return the first tensor of this name that is sharded, or one that is whole."""
    found = [values[name] for values in given.values() if name in values]
    return next((each for each in found if is_sharded(each)), found[-1])


def _compared(
    name: str,
    like: Tensor,
    earlier: Mapping[str, Tensor],
    later: Mapping[str, Tensor],
    masks: Mapping[str, Tensor],
) -> LayerFlips:
    """Count the flips of one weight, or of this rank's piece of it."""
    check_type(f"masks[{name!r}]", masks[name], Tensor, "a tensor")
    one, other, mask = (
        piece_like(value, like, role, name)
        for role, value in (
            ("before", _entry(earlier, name, "before")),
            ("after", _entry(later, name, "after")),
            ("masks", masks[name]),
        )
    )
    for role, shape in (("before", one.shape), ("masks", mask.shape)):
        check_shape(role, name, shape, other.shape, "later weight")
    try:
        live = as_mask(mask)
    except (TypeError, ValueError) as error:
        raise type(error)(f"masks[{name!r}]: {error}") from None
    return count_flips(name, signs_of(one), signs_of(other), live)


def of_all_ranks(rows: Sequence[LayerFlips], ranks: Ranks | None) -> FlipReport:
    """Return the report of what the ranks of a sharded model, or this process, counted."""
    if ranks is None:
        return FlipReport(tuple(rows))
    counts = [number for each in rows for number in (each.flipped, each.counted, each.survivors)]
    sums = ranks.add(counts).reshape(-1, 3).tolist()
    return FlipReport(tuple(LayerFlips(e.name, *each) for e, each in zip(rows, sums, strict=True)))


@torch.no_grad()
def signs_of(weight: Tensor) -> Tensor:
    """Return the signs as int8: +1, −1, and 0 for ±0 and NaN."""
    return (weight > 0).to(torch.int8) - (weight < 0).to(torch.int8)


@torch.no_grad()
def count_flips(name: str, before: Tensor, after: Tensor, mask: Tensor) -> LayerFlips:
    """Compare two int8 tensors of signs under a bool mask; they may be on different devices."""
    before, mask = before.to(after.device), mask.to(after.device)
    product = before * after
    flipped = ((product < 0) & mask).count_nonzero()
    counted = ((product != 0) & mask).count_nonzero()
    # One transfer from the device for the three numbers.
    return LayerFlips(name, *torch.stack((flipped, counted, mask.count_nonzero())).tolist())


def tracked_targets(model: nn.Module) -> Mapping[str, Target]:
    """Return the masked weights of a model, or its prunable ones if it carries no masks."""
    return attached(model) or find_targets(model)


def live_entries(target: Target) -> Tensor:
    """Return which entries are live: by mask and threshold, or those not zero without a mask."""
    return target.support if target.masking is not None else target.weight != 0


def _tensors(weights: Weights, role: str) -> Mapping[str, Tensor]:
    if isinstance(weights, nn.Module):
        return {
            use.name: each.as_given(each.weight) for each in _present(weights) for use in each.uses
        }
    if isinstance(weights, RewindPoint):
        return weights.weights
    check_mapping(role, weights, "a model, a RewindPoint or {name: tensor}")
    return weights


def _present(model: nn.Module) -> list[Target]:
    return [target for target in all_targets(model) if not is_lazy(target.stored[0])]


def _masks_of(after: Weights, before: Weights, later: Mapping[str, Tensor]) -> dict[str, Tensor]:
    model = next((each for each in (after, before) if isinstance(each, nn.Module)), None)
    if model is None:
        return {name: value != 0 for name, value in later.items() if _has_signs(value)}
    return {
        name: target.as_given(target.support)
        if target.masking is not None
        else _entry(later, name, "after") != 0
        for name, target in tracked_targets(model).items()
    }


def _has_signs(value: Tensor) -> bool:
    return isinstance(value, Tensor) and (value.is_floating_point() or value.dtype == torch.int8)


def _entry(weights: Mapping[str, Tensor], name: str, role: str) -> Tensor:
    check_names(role, weights, {*weights, name}, needed=[name], what="to be compared")
    if not _has_signs(weights[name]):
        raise ValueError(f"{role} holds {name!r}, expected a floating-point or int8 tensor")
    return weights[name]
