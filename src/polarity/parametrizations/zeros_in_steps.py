"""What an optimizer's step does to zeros: a certificate outlives the steps that leave them zero."""

import warnings
import weakref
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

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

Followed: TypeAlias = list[tuple[Tensor, KeptZeros, int, bool]]
_under_way: weakref.WeakKeyDictionary[optim.Optimizer, Followed] = weakref.WeakKeyDictionary()
_following = False


def follow_steps() -> None:
    """Let every optimizer's step renew the certificates of the zeros that it leaves alone."""
    global _following
    if not _following:
        register_optimizer_step_pre_hook(_before)
        register_optimizer_step_post_hook(_after)
        _following = True


def _before(optimizer: optim.Optimizer, *_: Any) -> None:
    """Note which leaves are certified and will stay so if the step does what it always does."""
    if torch.compiler.is_compiling():
        return
    moving = MOVING_STATE.get(type(optimizer))
    followed: Followed = []
    for leaf, kept in _known(optimizer):
        if moving is None or (leaf.is_cuda and torch.cuda.is_current_stream_capturing()):
            kept.void()
            continue
        mask = kept.mask
        if mask is None or not kept.used or not kept.hold(leaf, mask):
            continue
        state = optimizer.state.get(leaf, {})
        as_left = kept.left == _state_moment(optimizer, state, moving, mask)
        if as_left or not _state_leaks(state, moving, mask):
            followed.append((leaf, kept, leaf._version, as_left))
        else:  # what was remembered before a mask came wakes what it pruned
            kept.void()
    if followed:
        _under_way[optimizer] = followed


def _after(optimizer: optim.Optimizer, *_: Any) -> None:
    """Renew the certificates, looking at the zeros themselves at times and at any irregularity."""
    if torch.compiler.is_compiling():
        return
    moving = MOVING_STATE.get(type(optimizer))
    if moving is None:
        for _leaf, kept in _known(optimizer):  # a closure may have had one renewed
            kept.void()
        return
    for leaf, kept, version, as_left in _under_way.pop(optimizer, ()):
        mask = kept.mask
        if mask is None:
            continue
        treated = (leaf._version - version, *_treatment(kept, leaf.grad))
        kept.steps += 1
        irregular = not as_left or treated != kept.treated
        if (irregular or is_due(kept.steps)) and leaks(leaf, mask):
            kept.refused = True
            kept.void()
            _warn(leaf, optimizer)
            continue
        kept.certify(leaf, mask)
        kept.treated = treated
        kept.left = _state_moment(optimizer, optimizer.state.get(leaf, {}), moving, mask)


def _known(optimizer: optim.Optimizer) -> Iterator[tuple[Tensor, KeptZeros]]:
    for group in optimizer.param_groups:
        for leaf in group["params"]:
            if (kept := zeros_of(leaf)) is not None:
                yield leaf, kept


def _state_moment(
    optimizer: optim.Optimizer, state: Mapping[str, Any], moving: tuple[str, ...], mask: Tensor
) -> tuple[int, ...]:
    """Return what tells state that nobody has touched since the last step from any other."""
    moment = [id(optimizer), id(optimizer.state), id(mask), mask._version]
    for name in moving:
        value = state.get(name)
        if isinstance(value, Tensor):
            moment += (id(value), value._version)
    return tuple(moment)


def _state_leaks(state: Mapping[str, Any], moving: tuple[str, ...], mask: Tensor) -> bool:
    values = (state.get(name) for name in moving)
    return any(leaks(value, mask) for value in values if isinstance(value, Tensor))


def _treatment(kept: KeptZeros, gradient: Tensor | None) -> tuple[bool, int]:
    """Return whether this is the gradient that was accumulated, and how often it was written to.

    Clipping and unscaling write to it as often in every step; what is new is worth a look.
    """
    if gradient is None or kept.noted is None:
        return False, 0
    identity, version = kept.noted
    return id(gradient) == identity, gradient._version - version


def _warn(leaf: Tensor, optimizer: optim.Optimizer) -> None:
    warnings.warn(
        f"a step of {type(optimizer).__name__} moved pruned entries of a weight of shape "
        f"{tuple(leaf.shape)}, whose gradients were zero when they were accumulated: were they "
        "changed before the step, by noise for example? The mask of this weight is applied in "
        "every forward pass from here on, see polarity.mask_shortcut",
        stacklevel=2,
    )
