"""Read and write the masks of a model, and what they leave alive."""

from collections.abc import Mapping

from torch import Tensor, nn

from polarity.attach.masks import mask_weights
from polarity.targets.search import attached, find_targets

__all__ = ["density", "load_masks", "mask_shortcut", "masks", "sparsity"]


def masks(model: nn.Module) -> dict[str, Tensor]:
    """Return a copy of every mask of a model, ``{plain name: bool tensor}``, True where it lives.

    A mask that is remembered but not enforced (strategy ``standard``) is returned like any other.

    Raises:
        ValueError: if the model carries no mask.

    Example:
        >>> from torch import nn
        >>> import polarity as pol
        >>> model = pol.mask_weights(nn.Linear(2, 2))
        >>> pol.masks(model)
        {'weight': tensor([[True, True],
                [True, True]])}
    """
    found = attached(model)
    if not found:
        raise ValueError(f"{type(model).__name__} has no masked weights; call mask_weights first")
    return {name: target.mask.clone() for name, target in found.items()}


def load_masks(model: nn.Module, masks: Mapping[str, Tensor]) -> nn.Module:
    """Install masks, in place, zeroing what is stored outside them.

    Weights that ``masks`` does not name keep theirs. Named weights that are still plain are masked
    first. An entry that comes to life again starts at zero.

    Args:
        model: any module.
        masks: ``{plain name: mask}``, bool, or zeros and ones of any dtype, in the weight's shape.

    Returns:
        The model.

    Raises:
        ValueError: if ``masks`` is empty, or one has an unknown name, another shape, or values
            besides zeros and ones; the model is left as it was.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> import polarity as pol
        >>> model = load_masks(nn.Linear(2, 2), {"weight": torch.eye(2)})
        >>> pol.density(model)
        0.5
    """
    if not masks:
        raise ValueError("masks is empty, expected at least one {name: mask}")
    return mask_weights(model, masks=masks)


def mask_shortcut(model: nn.Module, enabled: bool) -> nn.Module:
    """Say whether a model may leave out masks that would change nothing, as it does by default.

    In training a mask is left out of the forward pass while what is stored is known to be zero
    outside it: because it was looked at, or because an optimizer known to leave zeros alone
    made the last step, with nothing remembered of pruned entries. The gradient is masked as it
    arrives, so clipping, scaling and accumulation see what they always see. Any doubt (another
    writer, another optimizer, a compiler, torch.func) brings the mask back by itself. What cannot
    be noticed at once are writes through ``.data``: they are found when a step or a forward looks
    again, every 64th at the latest, and never seen in evaluation. Switch the shortcut off for code
    that writes so, see *How a mask costs nothing* in the design notes.

    Args:
        model: a model with masked weights.
        enabled: False applies the mask in every forward pass of this model from now on.

    Returns:
        The model.

    Raises:
        ValueError: if the model carries no mask.

    Example:
        >>> from torch import nn
        >>> import polarity as pol
        >>> model = pol.mask_shortcut(pol.mask_weights(nn.Linear(4, 2)), False)
        >>> model.parametrizations.weight[0].shortcut
        False
    """
    found = attached(model)
    if not found:
        raise ValueError(f"{type(model).__name__} has no masked weights; call mask_weights first")
    for target in found.values():
        assert target.masking is not None
        target.masking.shortcut = bool(enabled)
    return model


def density(model: nn.Module) -> float:
    """Return the fraction of entries that live, over all masked weights together.

    By the masks, enforced or only remembered. A model without masks is measured by the non-zero
    entries of its prunable weights, so that the number stays the same through ``merge`` (up to
    survivors that are exactly zero).

    Raises:
        ValueError: if the model has no prunable weights.

    Example:
        >>> from torch import nn
        >>> import polarity as pol
        >>> model = pol.mask_weights(nn.Linear(10, 10))
        >>> _ = pol.imp_prune(model, 0.2)
        >>> pol.density(model)
        0.8
    """
    targets = attached(model)
    living = [target.mask for target in targets.values()]
    if not targets:
        living = [target.weight for target in find_targets(model).values()]
    total = sum(each.numel() for each in living)
    return sum(int(each.count_nonzero()) for each in living) / total if total else 1.0


def sparsity(model: nn.Module) -> float:
    """Return ``1 - density(model)``, the fraction of entries that were pruned.

    Raises:
        ValueError: if the model has no prunable weights.

    Example:
        >>> from torch import nn
        >>> import polarity as pol
        >>> model = pol.mask_weights(nn.Linear(10, 10))
        >>> _ = pol.imp_prune(model, density=0.25)
        >>> pol.sparsity(model)
        0.75
    """
    return 1.0 - density(model)
