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
        for target in found.values():
            if target.masking is not None and target.masking.in_step is not None:
                target.masking.in_step.remove()
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
    for name, target in found.items():
        _ = target.survivors  # raises if the mask holds other values than 0 and 1
        if target.masking is None or not target.masking.enforce:
            raise ValueError(
                f"the mask of {name!r} is not enforced, so that its pruned entries have values, "
                "expected one that is: in a dense phase of AC/DC, and after strategy 'standard', "
                "wait for the next pruning"
            )
        if target.threshold is not None:
            raise ValueError(
                f"{name!r} has a soft threshold, which decides anew which entries are zero, "
                "expected a mask alone: call pol.dense_to_sparse.extract_soft_mask first"
            )
        if target.chain[0] is not target.masking:
            raise ValueError(
                f"{name!r} is parametrized by {type(target.chain[0]).__name__} before its mask, "
                "expected the mask to be the first: remove it with "
                "torch.nn.utils.parametrize.remove_parametrizations"
            )
