"""The networks that final trainings begin with: fresh ones that a found network's ticket is given.

Each gift changes a fresh masked network in place.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

import polarity as pol

from .contestants import CONTESTANTS, Gift
from .networks import norm_parameters

# The bias that appendix A initialises normalisation layers with, so that its sign can be seen.
NORM_BIAS = 0.1
# Layers whose signs the official code takes besides the masked weights: classifier and biases.
OFFICIAL = (nn.Linear, nn.Conv2d)


def start(
    name: str, found: nn.Module | None, fresh: nn.Module | None, *, official: bool = False
) -> nn.Module:
    """Return the network that a contestant's final training begins with.

    Args:
        name: one of `CONTESTANTS`.
        found: the network that its finder found, masked, norms not interpolated any more.
        fresh: a fresh masked network of the contestant's stream.
        official: take signs of classifier and biases too, as the official code does.
    """
    contestant = CONTESTANTS[name]
    network = found if contestant.fresh is None else fresh
    if network is None or (found is None and contestant.gift is not None):
        missing = "found" if found is None else "fresh"
        raise ValueError(f"{name} cannot begin without a {missing} network")
    if contestant.gift is None or found is None:
        return network
    return _GIFTS[contestant.gift](network, found, official)


def signs(fresh: nn.Module, found: nn.Module, official: bool) -> nn.Module:
    """Give the signed mask: |θ_init| ⊙ s."""
    include = OFFICIAL if official else None
    return pol.signed_mask(found, include=include).apply(fresh)


def mask_only(fresh: nn.Module, found: nn.Module, official: bool) -> nn.Module:
    """Give the mask, each weight with the sign that it has: θ_init ⊙ m."""
    return pol.mask_weights(fresh, masks=pol.masks(found))


@torch.no_grad()
def signs_and_norms(fresh: nn.Module, found: nn.Module, official: bool) -> nn.Module:
    """Give the signed mask and the trained normalisation parameters (Figure 2)."""
    signs(fresh, found, official)
    for name in norm_parameters(fresh):
        fresh.get_parameter(name).copy_(found.get_parameter(name))
    return fresh


@torch.no_grad()
def signs_of_norms_too(fresh: nn.Module, found: nn.Module, official: bool) -> nn.Module:
    """Give the signed mask, and norms of size 1 and 0.1 with the trained signs (appendix A)."""
    signs(fresh, found, official)
    for name in norm_parameters(fresh):
        size = NORM_BIAS if name.endswith("bias") else 1.0
        fresh.get_parameter(name).copy_(size * found.get_parameter(name).sign())
    return fresh


@torch.no_grad()
def norm_bias_alone(fresh: nn.Module, found: nn.Module, official: bool) -> nn.Module:
    """Give the signed mask, and norms of scale 1 and bias +0.1: appendix A without the signs."""
    signs(fresh, found, official)
    for name in norm_parameters(fresh):
        fresh.get_parameter(name).fill_(NORM_BIAS if name.endswith("bias") else 1.0)
    return fresh


_GIFTS: dict[Gift, Callable[[nn.Module, nn.Module, bool], nn.Module]] = {
    "signs": signs,
    "mask": mask_only,
    "signs, norms": signs_and_norms,
    "signs, norm signs": signs_of_norms_too,
    "signs, norm bias": norm_bias_alone,
}
