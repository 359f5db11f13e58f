"""Store compact weights densely again, with the state of their optimizers."""

from torch import nn

from polarity._running import outside_inference_mode
from polarity.optimizers.given import Optimizers, as_optimizers
from polarity.optimizers.replaced import check_replaceable
from polarity.targets.dense_leaves import compact_targets, resizing, spread_leaves
from polarity.targets.wrappers import refuse_ddp

__all__ = ["expand"]


@outside_inference_mode
def expand(model: nn.Module, *, optimizer: Optimizers | None = None) -> nn.Module:
    """Store compact weights as masked ones again, in place."""
    optimizers = as_optimizers(optimizer)
    found = compact_targets(model)
    if not found:
        raise ValueError(f"{type(model).__name__} has no compact weights: call compact first")
    refuse_ddp(model, "expand")
    check_replaceable(optimizers, {name: target.stored for name, target in found.items()})
    with resizing(
        found.values(),
        "expand stored it densely; call expand(model, optimizer=optimizer), or build the optimizer "
        "after expand",
    ):
        spread_leaves(found, optimizers)
        for target in found.values():
            assert target.masking is not None
            target.masking.places, target.masking.spread = None, False
            for leaf in target.stored:
                leaf.grad = None
    return model
