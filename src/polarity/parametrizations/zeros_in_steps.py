"""What an optimizer's step does to zeros: a certificate outlives the steps that leave them zero."""

import weakref
from typing import Any, NamedTuple

import torch
from torch import Tensor, optim
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from polarity.parametrizations.kept_zeros import KeptZeros, is_due, leaks, zeros_of

__all__ = ["MOVING_STATE", "follow_steps"]

# Optimizers that leave an entry zero if it is zero and its gradient is, and the state that has to
# be zero there too for that. Other state only scales an update, or remembers the entry itself.
MOVING_STATE: dict[type[optim.Optimizer], tuple[str, ...]] = {
    optim.SGD: ("momentum_buffer",),
    optim.Adam: ("exp_avg",),
    optim.AdamW: ("exp_avg",),
    optim.NAdam: ("exp_avg",),
    optim.RAdam: ("exp_avg",),
    optim.Adamax: ("exp_avg",),
    optim.RMSprop: ("momentum_buffer", "grad_avg"),
    optim.Adagrad: (),
    optim.Adadelta: (),
    optim.Adafactor: (),
    optim.ASGD: (),
    optim.Rprop: (),
}

_plans: weakref.WeakKeyDictionary[optim.Optimizer, "_Plan"] = weakref.WeakKeyDictionary()
_following = False
_NOTHING: dict[str, Any] = {}


def follow_steps() -> None:
    """Let every optimizer's step renew the certificates of the zeros that it leaves alone."""
    global _following
    if not _following:
        register_optimizer_step_pre_hook(_before)
        register_optimizer_step_post_hook(_after)
        _following = True


class _Plan(NamedTuple):
    """The leaves of an optimizer that something is known of, and when that was found out."""

    leaves: int
    known: int
    followed: list[KeptZeros]


def _before(optimizer: optim.Optimizer, *_: Any) -> None:
    """Let go of what was written to by others, or will be by a step that may do anything."""
    if torch.compiler.is_compiling():
        return
    known = type(optimizer) in MOVING_STATE
    for kept in _followed(optimizer):
        kept.check() if known else kept.void()


def _after(optimizer: optim.Optimizer, *_: Any) -> None:
    """Renew the certificates, looking at the zeros themselves at times and at any irregularity.

    A step is regular if it did what the step before it did: as many gradients came, each of them
    the masked one alone; the same optimizer wrote as often to the leaf and to the same state, and
    others to the gradient since it came; and nobody else wrote to any of them, or their numbers
    would differ.
    """
    if torch.compiler.is_compiling():
        return
    moving = MOVING_STATE.get(type(optimizer))
    for kept in _followed(optimizer):
        if moving is None:
            kept.void()  # a closure may have had it renewed
            continue
        leaf, mask, at = kept.leaf_ref(), kept.mask_ref(), kept.at
        if leaf is None or mask is None or at is None or not kept.used:
            continue
        if leaf.is_cuda and torch.cuda.is_current_stream_capturing():
            kept.void()
            continue
        gradient, state = leaf.grad, optimizer.state.get(leaf, _NOTHING)
        # By whom, to what, and how often was written since the certificate was given.
        did = [id(optimizer), leaf._version - at[0], leaf.data_ptr(), mask._version, kept.arrivals]
        if gradient is not None and kept.arrived is not None:
            # Clipping and unscaling write to a gradient as often in every step.
            address, version = kept.arrived
            did += gradient.data_ptr() == address, gradient._version - version
        for name in moving:
            value = state.get(name)
            if isinstance(value, Tensor):
                did += id(value), value._version - kept.versions.get(name, 0)
                kept.versions[name] = value._version
        regular = did == kept.usual
        kept.usual, kept.steps, kept.arrivals = did, kept.steps + 1, 0
        mixed, kept.mixed = kept.mixed, False
        if regular and not mixed and not is_due(kept.steps):
            kept.certify(leaf, mask)
        elif (mixed or not regular) and _leaks(gradient, mask):
            kept.refuse("gradients reached")
        elif not regular and any(_leaks(state.get(name), mask) for name in moving):
            kept.void()  # what was remembered before a mask came wakes what it pruned
        elif leaks(leaf, mask):
            kept.refuse("an optimizer's step moved")
        else:
            kept.certify(leaf, mask)


def _followed(optimizer: optim.Optimizer) -> list[KeptZeros]:
    groups = optimizer.param_groups
    leaves = sum([len(group["params"]) for group in groups])
    plan = _plans.get(optimizer)
    if plan is None or plan.leaves != leaves or plan.known != KeptZeros.made:
        every = [zeros_of(leaf) for group in groups for leaf in group["params"]]
        known = [kept for kept in every if kept is not None]
        plan = _plans[optimizer] = _Plan(leaves, KeptZeros.made, known)
    return plan.followed


def _leaks(values: Any, mask: Tensor) -> bool:
    return isinstance(values, Tensor) and leaks(values, mask)
