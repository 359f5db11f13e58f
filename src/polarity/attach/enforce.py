"""Masks enforced in the optimizer's step instead of in forward."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from polarity.parametrizations.arithmetic import INTEGER_OF
from polarity.parametrizations.masked import MaskedWeight
from polarity.parametrizations.sign_in import SignInMW
from polarity.targets.search import attached
from polarity.targets.target import Target

__all__ = ["StepEnforcement", "enforce_in_step"]

Optimizers = torch.optim.Optimizer | Sequence[torch.optim.Optimizer]


def enforce_in_step(model: nn.Module, optimizer: Optimizers) -> "StepEnforcement":
    r"""Take the masks of a model out of its forward passes: pruned entries are kept zero instead.

    What is stored is zero outside the masks, so that forward needs no product. Each stored weight's
    gradient is multiplied by the mask as it arrives (``Tensor.register_hook``, so that clipping,
    accumulation, DDP and ``torch.autograd.grad`` see masked gradients), and after every
    ``optimizer.step()`` the zeros are put back, NaN included, whatever the optimizer computed. The
    trained survivors are the same, bit for bit, as with the masks in forward. A Sign-In weight
    becomes :math:`m \odot v`, whose zeros are a fixed point.

    While compiling, tracing, exporting or under ``torch.func`` the masks are in forward all the
    same, and so they are in copies of the model, in weights that are frozen now, and wherever other
    tensors take the place of the stored ones (``functional_call``, loading with ``assign=True``).

    What this cannot see is somebody else who writes to a weight between steps (an average copied
    back, ``nn.init``, a mask changed by hand): call ``.project()`` on the handle afterwards.
    ``load_state_dict`` of the model and every pruning call do so by themselves.

    Args:
        model: a model with masks. Masks that are only remembered stay so.
        optimizer: the optimizer that trains it, or a sequence of them.

    Returns:
        The :class:`StepEnforcement`, whose ``.remove()`` puts the masks back into forward.

    Raises:
        ValueError: if the model carries no mask, if ``optimizer`` holds none of its masked weights,
            or if its masks are enforced in a step already.
        TypeError: if ``optimizer`` is no optimizer, nor a sequence of them.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> import polarity as pol
        >>> model = pol.mask_weights(nn.Linear(4, 2, bias=False))
        >>> _ = pol.imp_prune(model, density=0.5)
        >>> sgd = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        >>> handle = pol.enforce_in_step(model, sgd)
        >>> model(torch.ones(1, 4)).sum().backward(); sgd.step()
        >>> int(model.weight.count_nonzero())
        4
        >>> handle.remove()
    """
    optimizers = _checked(optimizer)
    targets = [target for target in attached(model).values() if target.stored[0].requires_grad]
    if not targets:
        raise ValueError(
            f"{type(model).__name__} has no masked weights that train; call mask_weights first"
        )
    held = {id(p) for each in optimizers for group in each.param_groups for p in group["params"]}
    if not any(id(leaf) in held for target in targets for leaf in target.stored):
        raise ValueError(
            f"optimizer={type(optimizers[0]).__name__} holds none of the {len(targets)} masked "
            f"weights (the first is {targets[0].name!r}): was it built for another model?"
        )
    for target in targets:
        if target.masking is not None and target.masking.in_step is not None:
            raise ValueError(
                f"the mask of {target.name!r} is enforced in a step already: call remove() on the "
                "handle of that call first"
            )
    return StepEnforcement(model, optimizers, targets)


class StepEnforcement:
    """Handle of :func:`enforce_in_step`.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> import polarity as pol
        >>> model = pol.load_masks(nn.Linear(2, 1, bias=False), {"weight": torch.tensor([[1, 0]])})
        >>> handle = pol.enforce_in_step(model, torch.optim.SGD(model.parameters(), lr=0.1))
        >>> _ = nn.init.ones_(model.parametrizations.weight.original)  # nothing can see this
        >>> handle.project()
        >>> model.weight.detach()
        tensor([[1., 0.]])
    """

    def __init__(
        self,
        model: nn.Module,
        optimizers: Sequence[torch.optim.Optimizer],
        targets: Iterable[Target],
    ) -> None:
        self._weights = [_KeptZero(target) for target in targets]
        loaded = model.register_load_state_dict_post_hook(  # type: ignore[no-untyped-call]
            lambda *_: self.project()
        )
        stepped = [each.register_step_post_hook(lambda *_: self._zero()) for each in optimizers]
        self._hooks: list[Any] = [loaded, *stepped]
        self.project()

    def project(self) -> None:
        """Zero what is stored outside the masks, NaN and infinity included."""
        for each in self._weights:
            each.refresh()
        self._zero()

    def remove(self) -> None:
        """Put the masks back into forward; calling it again does nothing."""
        for each in (*self._weights, *self._hooks):
            each.remove()
        self._weights, self._hooks = [], []

    @torch.no_grad()
    def _zero(self) -> None:
        kept = [pair for each in self._weights for pair in each.pairs()]
        if kept:
            torch._foreach_mul_([bits for bits, _ in kept], [ones for _, ones in kept])


class _KeptZero:
    """One stored weight that is zero outside its mask between forward passes."""

    def __init__(self, target: Target) -> None:
        assert target.masking is not None
        self._masking: MaskedWeight = target.masking
        self._leaves = target.stored
        self._ones: list[Tensor] = []
        self._hooks = [
            leaf.register_hook(self._masked)  # type: ignore[no-untyped-call]
            for leaf in self._leaves
        ]
        target.masking.in_step = self

    def covers(self, *stored: Tensor) -> bool:
        """Return whether these very tensors are kept zero, in plain eager mode."""
        return (
            all(one is other for one, other in zip(stored, self._leaves, strict=True))
            and not torch.compiler.is_compiling()
            and torch._C._get_tracing_state() is None
            and not torch._C._are_functorch_transforms_active()
        )

    def refresh(self) -> None:
        """Take note of a mask that was changed: its bits as integers, which clear a NaN too."""
        self._ones = [self._masking.mask.to(_integer(leaf)) for leaf in self._leaves]

    def pairs(self) -> list[tuple[Tensor, Tensor]]:
        """Return the bits of each leaf and the ones and zeros to multiply them by."""
        if not self._masking.enforce:
            return []
        moved = self._leaves[0].device != self._ones[0].device
        if moved or _integer(self._leaves[0]) != self._ones[0].dtype:  # model.to(…)
            self.refresh()
        bits = [leaf.detach().view(_integer(leaf)) for leaf in self._leaves]
        return list(zip(bits, self._ones, strict=True))

    def remove(self) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks, self._leaves = [], ()
        if self._masking.in_step is self:
            self._masking.in_step = None

    def _masked(self, gradient: Tensor) -> Tensor | None:
        """Mask a gradient. Where m = v = 0 first derivatives of m ⊙ v are zero by themselves."""
        if not self._masking.enforce:
            return None
        if isinstance(self._masking, SignInMW) and not torch.is_grad_enabled():
            return None
        return gradient * self._masking.mask


def _integer(leaf: Tensor) -> torch.dtype:
    return INTEGER_OF.get(leaf.dtype, leaf.dtype)


def _checked(optimizer: Optimizers) -> list[torch.optim.Optimizer]:
    given = [optimizer] if isinstance(optimizer, torch.optim.Optimizer) else optimizer
    if not isinstance(given, Sequence) or not given:
        raise TypeError(
            f"optimizer must be an optimizer or a sequence of them, got {type(optimizer).__name__}"
        )
    for each in given:
        if not isinstance(each, torch.optim.Optimizer):
            raise TypeError(f"optimizer holds a {type(each).__name__}, expected optimizers only")
    return list(given)
