"""The averages of a model that Lightning's callbacks keep, and the masks that belong in them."""

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

import polarity as pol

__all__ = ["exact_masks", "has_masks", "restore_averages"]


def restore_averages(trainer: Any, model: nn.Module) -> None:
    """Give the averages that the callbacks of a trainer keep the masks of the model."""
    averages = list(_averages(trainer))
    masks = exact_masks(model) if averages else {}
    for average in averages:
        if masks:
            pol.load_masks(average, masks)
        theirs = dict(_inside(average).named_modules())
        for name, mine in model.named_modules():
            if isinstance(mine, pol.MaskedWeight):
                theirs[name].enforce = mine.enforce


def exact_masks(model: nn.Module) -> dict[str, Tensor]:
    """Return the masks outside which the weights of a model are zero.

    In a dense phase masks are remembered, and weights are not zero outside them.
    """
    if not has_masks(model):
        return {}
    masks = {}
    for name, mask in pol.masks(model).items():
        path, _, tensor = name.rpartition(".")
        weight = getattr(model.get_submodule(path), tensor).detach()
        if not weight[~mask].any():
            masks[name] = mask
    return masks


def has_masks(model: nn.Module) -> bool:
    """Whether a weight of the model has a mask."""
    return any(isinstance(each, pol.MaskedWeight) for each in model.modules())


def _averages(trainer: Any) -> Iterator[nn.Module]:
    """Yield the averages of the model that callbacks keep."""
    for callback in trainer.callbacks:
        average = getattr(callback, "_average_model", None)
        if isinstance(average, nn.Module):
            yield average


def _inside(average: nn.Module) -> nn.Module:
    """Return the model that torch's AveragedModel wraps; others wrap none."""
    return average.module if isinstance(average, AveragedModel) else average
