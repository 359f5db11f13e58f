"""Store the weights of a pruned model as their survivors, with the state of their optimizers."""

from collections.abc import Mapping

from torch import nn

from polarity._checks import check_flag
from polarity._running import outside_inference_mode
from polarity.attach.masks import masked_weights
from polarity.optimizers.given import Optimizers, as_optimizers
from polarity.optimizers.replaced import check_replaceable
from polarity.targets.dense_leaves import gather_leaves, resizing
from polarity.targets.search import find_targets
from polarity.targets.selectors import Selector
from polarity.targets.target import Target, check_has_values
from polarity.targets.wrappers import refuse_ddp

__all__ = ["compact"]


@outside_inference_mode
def compact(
    model: nn.Module,
    *,
    optimizer: Optimizers | None = None,
    targets: Selector | None = None,
    exclude: Selector | None = None,
    verbose: bool = False,
) -> nn.Module:
    """Store masked and Sign-In weights as their survivors, in place."""
    check_flag("verbose", verbose)
    optimizers = as_optimizers(optimizer)
    masked = masked_weights(model)
    refuse_ddp(model, "compact")
    found = dict(masked)
    if targets is not None or exclude is not None:
        found = dict(find_targets(model, targets, exclude))
    _check(found, masked)
    check_replaceable(optimizers, {name: target.stored for name, target in found.items()})
    with resizing(
        found.values(),
        "compact stored its survivors alone; call compact(model, optimizer=optimizer), or build "
        "the optimizer after compact",
    ):
        gather_leaves(found, dict.fromkeys(found, True), optimizers)
        for target in found.values():
            for leaf in target.stored:
                leaf.grad = None
    return model


def _check(found: Mapping[str, Target], masked: Mapping[str, Target]) -> None:
    """Raise for everything that a compact weight cannot be."""
    check_has_values(found.values())
    for name in found:
        if name not in masked:
            raise ValueError(f"{name!r} carries no mask, expected a masked weight: prune it first")
