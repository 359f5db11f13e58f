"""Which weights a call is about when it may be told, and may be told nothing."""

from torch import Tensor, nn

from polarity.targets.search import Target, attached, find_targets
from polarity.targets.selectors import Selector

__all__ = ["living", "masked_or_prunable"]


def masked_or_prunable(
    model: nn.Module, targets: Selector | None = None, exclude: Selector | None = None
) -> dict[str, Target]:
    """Return the selected weights; by default those that are masked, else all that can be.

    Raises:
        ValueError: as :func:`polarity.find_targets`.
    """
    masked = attached(model)
    if targets is None and masked:
        if exclude is None:
            return masked
        targets = tuple(masked)
    return dict(find_targets(model, targets, exclude))


def living(target: Target) -> Tensor:
    """Return which entries can be kept: a mask that is not enforced lets all compete again."""
    if target.masking is None or target.masking.enforce:
        return target.mask
    return target.mask.new_ones(target.mask.shape)
