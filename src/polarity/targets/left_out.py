"""Why a matrix of a model is not taken by default, and how much of the model that leaves."""

from collections.abc import Callable, Collection, Iterable

import torch
from torch.nn.parameter import is_lazy

from polarity._shards import is_sharded
from polarity.targets.defaults import too_narrow, why_kind
from polarity.targets.reach import LeftOut, Reach
from polarity.targets.shards import SHARDED
from polarity.targets.target import Target

__all__ = [
    "JIT",
    "NO_MASK",
    "frozen",
    "matrix_size",
    "narrow",
    "reach_of",
    "why_no_default",
    "why_without_mask",
]

JIT = "compiled by torch.jit: attach before torch.jit.script"
NO_MASK = "without a mask"


def why_no_default(target: Target) -> str | None:
    """Say why a parameter is not taken by default, or None if it is."""
    why = why_kind(target.uses)
    if why is not None or target.masking is not None:
        return why
    leaf = target.stored[0]
    if is_lazy(leaf):
        return "lazy: run one batch through the model first"
    if too_narrow(leaf):
        return narrow(target)
    if isinstance(target.module, torch.jit.ScriptModule):
        return JIT
    if is_sharded(leaf):
        return SHARDED
    if target.chain:
        return f"already parametrized by {type(target.chain[0]).__name__}"
    return None if leaf.requires_grad else frozen(target)


def why_without_mask(target: Target) -> str:
    """Say why a weight that carries no mask carries none."""
    return why_no_default(target) or NO_MASK


def frozen(target: Target) -> str:
    """Return the reason for which a frozen weight is skipped."""
    return f"frozen (requires_grad=False): targets={target.name!r} takes it"


def narrow(target: Target) -> str:
    """Return the reason for which a float8 weight is skipped."""
    return f"of dtype {target.stored[0].dtype}, expected 16 bits or more: convert it first"


def matrix_size(target: Target) -> int | None:
    """Return the number of entries of a floating-point matrix, and None for anything else."""
    leaves = target.stored
    if is_lazy(leaves[0]) or not leaves[0].is_floating_point():
        return None
    # Under another's parametrization the largest tensor stands for the weight.
    largest = max(leaves, key=lambda leaf: leaf.numel())
    shape = largest.shape if target.masking is None else target.shape
    return shape.numel() if len(shape) >= 2 else None


def reach_of(
    everything: Iterable[Target], taken: Collection[str], why: Callable[[Target], str]
) -> Reach:
    """Return how much of a model some weights are, and why the largest of the rest are left out."""
    matrices = {each: size for each in everything if (size := matrix_size(each)) is not None}
    left = [LeftOut(t.name, size, why(t)) for t, size in matrices.items() if t.name not in taken]
    return Reach.of(sum(matrices.values()), left)
