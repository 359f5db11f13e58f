"""How much of a model survives, over all its masked weights."""

from collections.abc import Iterable

from torch import nn

from polarity.targets.search import attached, find_targets
from polarity.targets.target import Target, count_survivors

__all__ = ["density", "density_of", "sparsity"]


def density(model: nn.Module) -> float:
    """Return the fraction of entries that survive, over all masked weights together.

    Survivors are counted by the masks, enforced or only remembered. In a model without masks they
    are the non-zero entries of its prunable weights, so that ``merge`` does not change the number
    (except by survivors that are exactly zero). What forward computes with in a dense phase of
    ``dense_to_sparse.ACDC`` is told by the ``density()`` of the schedule, and what is above soft
    thresholds by ``dense_to_sparse.soft_density``. Of a model that ``fully_shard`` has divided all
    ranks call, and get the density of the whole model.

    Raises:
        ValueError: if the model has no prunable weights.
        TypeError: if an argument is of another type.

    Example:
        >>> from torch import nn
        >>> import polarity as pol
        >>> model = pol.mask_weights(nn.Linear(10, 10))
        >>> _ = pol.imp_prune(model, 0.2)
        >>> pol.density(model)
        0.8
    """
    if masked := attached(model):
        return density_of(masked.values())
    plain = find_targets(model).values()
    total = sum(target.shape.numel() for target in plain)
    live = sum(int(target.weight.count_nonzero()) for target in plain)
    return live / total if total else 1.0


def density_of(masked: Iterable[Target]) -> float:
    """Return the fraction of entries that survive by the masks of some weights; 1 for none."""
    masked = list(masked)
    live = sum(count_survivors(masked).values())
    total = sum(target.shape.numel() for target in masked)
    return live / total if total else 1.0


def sparsity(model: nn.Module) -> float:
    """Return ``1 - density(model)``, the fraction of entries that were pruned.

    Raises:
        ValueError: if the model has no prunable weights.
        TypeError: if an argument is of another type.

    Example:
        >>> from torch import nn
        >>> import polarity as pol
        >>> model = pol.mask_weights(nn.Linear(10, 10))
        >>> _ = pol.imp_prune(model, density=0.25)
        >>> pol.sparsity(model)
        0.75
    """
    return 1.0 - density(model)
