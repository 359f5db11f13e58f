"""Store compact weights densely again, with the state of their optimizers."""

from torch import nn

from polarity._checks import check_module
from polarity._running import outside_inference_mode
from polarity.optimizers.dimensions import warn_of_fresh_state
from polarity.optimizers.given import Optimizers, as_optimizers
from polarity.optimizers.replaced import check_replaceable
from polarity.targets.dense_leaves import compact_targets, gather_leaves, resizing
from polarity.targets.shards import refuse_sharded
from polarity.targets.wrappers import refuse_ddp

__all__ = ["expand"]


@outside_inference_mode
def expand(model: nn.Module, *, optimizer: Optimizers | None = None) -> nn.Module:
    """Store compact weights as masked ones again, in place: the way back from :func:`compact`.

    The weights have the same values, and zeros outside their masks, in the same parameters. Calls
    that give pruned entries back need this form: RigL, SET, AC/DC, soft thresholds, strategy
    ``standard`` of :func:`reinit_signs`, and :func:`load_masks` with other masks. (:func:`merge`
    takes compact weights as they are.)

    Args:
        model: any module with compact weights, or a wrapper of one.
        optimizer: the optimizer that trains them, or a list of them. What it remembers of each
            entry is spread out with the entries; pruned entries get zeros. An optimizer that is not
            passed raises RuntimeError at its next step if it has state of a weight.

    Returns:
        The model. ``.grad`` of the weights is None.

    Raises:
        ValueError: if nothing is compact; if ``optimizer`` holds none of the weights, has state of
            another shape than its parameter, or has divided its parameters among ranks
            (``ZeroRedundancyOptimizer``) or keeps one state of them all (``LBFGS``): build it
            afterwards. The model and the optimizer are left as they were.
        TypeError: if an argument is of another type, or the model is wrapped in
            ``DistributedDataParallel``.

    Warns:
        UserWarning: if the optimizer's state has no form for the dense weight (Adafactor's): it
            starts afresh.

    Example:
        >>> from torch import nn
        >>> import polarity as pol
        >>> model = nn.Linear(8, 4)
        >>> _ = pol.imp_prune(model, density=0.25)
        >>> _ = pol.compact(model, targets="weight")
        >>> [p.shape for p in pol.expand(model).parameters()]
        [torch.Size([4]), torch.Size([4, 8])]
    """
    check_module(model)
    refuse_sharded(model, "expand")
    optimizers = as_optimizers(optimizer)
    found = compact_targets(model)
    if not found:
        raise ValueError(f"{type(model).__name__} has no compact weights: call compact first")
    refuse_ddp(model, "expand")
    check_replaceable(optimizers, {name: target.stored for name, target in found.items()})
    leaves = [leaf for target in found.values() for leaf in target.stored]
    warn_of_fresh_state(optimizers, leaves, "a dense weight")
    with resizing(
        found.values(),
        "expand stored it densely; call expand(model, optimizer=optimizer), or build the optimizer "
        "after expand",
    ):
        gather_leaves(found, {}, optimizers)
    for leaf in leaves:
        leaf.grad = None
    return model
