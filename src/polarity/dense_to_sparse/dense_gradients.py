"""Open masked weights, so that entries outside their masks get gradients, and close them again."""

from collections.abc import Iterable

import torch
from torch import Tensor

from polarity.parametrizations.arithmetic import zero_outside_
from polarity.parametrizations.masked import MaskedWeight
from polarity.parametrizations.sign_in import SignInMW
from polarity.targets.target import Target
from polarity.targets.writing import write_all

__all__ = ["close", "dense_gradient", "masking_of", "open_up"]


@torch.no_grad()
def open_up(found: Iterable[Target]) -> None:
    r"""Remember masks instead of applying them; what is stored outside them is zero.

    Forward computes the same, and backward gives every entry a gradient. Factors that are both zero
    would get none: outside the mask a Sign-In weight has :math:`m = \sqrt\beta` and :math:`v = 0`.
    """
    found = list(found)
    pairs = []
    for target in found:
        masking = masking_of(target)
        if isinstance(masking, SignInMW):
            m = target.stored[0].detach()
            root = masking.beta.sqrt().to(m)
            pairs.append((target.stored[0], torch.where(masking.mask == 0, root, m)))
    write_all(pairs)
    for target in found:
        masking = masking_of(target)
        zero_outside_(target.stored[-1], masking.mask)  # the weight itself, or the factor v
        masking.enforce = False


def close(found: Iterable[Target]) -> None:
    """Apply the masks again, and zero what is stored outside them."""
    for target in found:
        masking = masking_of(target)
        masking.enforce = True
        masking.clear(target.stored)


@torch.no_grad()
def dense_gradient(target: Target) -> Tensor | None:
    r"""Return the gradient of the loss by each entry of the effective weight; None without one.

    For factors it is the least-squares fit :math:`(m\,g_v + v\,g_m) / (m^2 + v^2)` to the chain
    rule, in float32 or better, and zero where both factors are zero.
    """
    gradients = [leaf.grad for leaf in target.stored if leaf.grad is not None]
    if len(gradients) < len(target.stored):
        return None
    if len(gradients) == 1:
        return gradients[0]
    wide = torch.promote_types(gradients[0].dtype, torch.float32)
    m, v = (leaf.detach().to(wide) for leaf in target.stored)
    by_m, by_v = (each.to(wide) for each in gradients)
    squares = m.square() + v.square()
    return ((m * by_v + v * by_m) / squares).masked_fill_(squares == 0, 0.0)


def masking_of(target: Target) -> MaskedWeight:
    """Return the parametrization that owns the mask of a weight; raise if it has none any more."""
    masking = target.masking
    if masking is None:
        raise RuntimeError(
            f"{target.name!r} has no mask any more, expected the one that the schedule changes: "
            "call schedule.remove() before pol.merge"
        )
    return masking
