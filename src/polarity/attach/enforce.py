"""Masks enforced in the optimizer's step instead of in forward."""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from polarity._bits.arrays import INTEGER_OF
from polarity._checks import check_optimizer
from polarity._running import outside_inference_mode, under_transform
from polarity._shards import piece_of
from polarity.attach.masks import masked_weights
from polarity.optimizers.given import Optimizers, as_optimizers, described
from polarity.optimizers.states import parameters_of
from polarity.parametrizations.arithmetic import zero_gradient_outside_
from polarity.parametrizations.masked import MaskedWeight, NotEnforced
from polarity.parametrizations.sign_in import SignInMW
from polarity.targets.target import Target

__all__ = ["StepEnforcement", "enforce_in_step"]


@outside_inference_mode
def enforce_in_step(model: nn.Module, optimizer: Optimizers) -> "StepEnforcement":
    r"""Take the masks of a model out of its forward passes, and keep pruned entries zero instead.

    Stored weights are zero outside the masks, so that forward needs no product. The gradient of
    each is multiplied by the mask as it arrives (``Tensor.register_hook``, so that clipping,
    accumulation, DDP and ``torch.autograd.grad`` see masked gradients), and every
    ``optimizer.step()`` is followed by zeroing the pruned entries again, NaN included. This works
    with any optimizer. The trained survivors are the same, bit for bit, as with the masks in
    forward. (LBFGS runs the model inside its step: build it anew after pruning, because directions
    that it remembers move pruned entries until the step ends.) A Sign-In weight becomes
    :math:`m \odot v`, whose zeros are a fixed point. Whether this saves time depends on the
    processor and the model: ``docs/results/throughput.md`` compares both forms. Compact weights
    (:func:`polarity.compact`) store no pruned entries and need nothing of this: they are skipped.

    The masks stay in forward while compiling, tracing, exporting and under ``torch.func``; in
    copies of the model; in weights that are frozen at the call or that ``optimizer`` does not hold;
    and wherever other tensors replace the stored ones (``functional_call``, loading with
    ``assign=True``, ``torch.__future__.set_swap_module_params_on_conversion``). ``merge`` and
    ``sign_in`` end the enforcement of the weights that they replace.

    A model that ``fully_shard`` (FSDP2) has divided needs this call, after ``fully_shard``: no rank
    has a whole mask, and each keeps its rows of the weights zero. Gradients are masked after they
    were reduced, on the rows that a rank holds, and before clipping. Forward for training raises
    RuntimeError until this call, and again after ``.remove()``.

    Pruning calls and ``load_state_dict`` update it. Other writes between steps cannot be seen (an
    average copied back, ``nn.init``, a mask changed by hand): call ``.project()`` on the handle
    afterwards. Before you build another optimizer, or use ``parametrize.remove_parametrizations``
    instead of :func:`polarity.merge`, call ``.remove()``. Hooks that a weight had before see its
    gradient unmasked.

    Args:
        model: a model with masks. Masks that are only remembered stay so. For one wrapped in
            ``DistributedDataParallel``, call this after wrapping.
        optimizer: the optimizer that trains it, or a list of them.

    Returns:
        The :class:`StepEnforcement`, whose ``.remove()`` puts the masks back into forward.

    Raises:
        ValueError: if the model carries no mask, if ``optimizer`` trains none of its masked
            weights, or if one of them is enforced in a step already.
        TypeError: if ``optimizer`` is neither an optimizer nor a list of them.

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
    optimizers = as_optimizers(optimizer)
    if not optimizers:
        check_optimizer(optimizer)
    found = masked_weights(model)
    held = set().union(*(parameters_of(each) for each in optimizers))
    trained = [target for target in found.values() if _is_trained(target, held)]
    targets = [target for target in trained if not target.is_compact]
    if not trained:
        raise ValueError(
            f"optimizer={described(optimizers)} trains none of the {len(found)} masked "
            f"weights (the first is {next(iter(found))!r}), expected those that train "
            "them: is it frozen, or was the optimizer built for another model, or before "
            "fully_shard?"
        )
    for target in targets:
        if target.masking is not None and isinstance(target.masking.in_step, _KeptZero):
            raise ValueError(
                f"the mask of {target.name!r} is enforced in a step already: call remove() on the "
                "handle of that call first"
            )
    return StepEnforcement(optimizers, targets)


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
        self, optimizers: Sequence[torch.optim.Optimizer], targets: Iterable[Target]
    ) -> None:
        self._weights = [_KeptZero(target, self) for target in targets]
        self._hooks: list[Any] = []
        for each in optimizers:
            # Only the weights that it writes: those of others may be between backward and step.
            held = parameters_of(each)
            mine = [weight for weight in self._weights if weight.is_among(held)]
            self._hooks.append(each.register_step_post_hook(partial(_put_zeros_back, mine)))
        self.project()

    @outside_inference_mode
    def project(self) -> None:
        """Zero what is stored outside the masks, NaN and infinity included."""
        for each in self._weights:
            each.project()

    def remove(self) -> None:
        """Put the masks back into forward and remove every hook; further calls do nothing."""
        for each in tuple(self._weights):
            each.remove()

    def _forget(self, weight: "_KeptZero") -> None:
        """Stop keeping a weight; with the last one, remove the optimizers' hooks."""
        self._weights.remove(weight)
        if not self._weights:
            for each in self._hooks:
                each.remove()
            self._hooks = []


class _KeptZero:
    """One stored weight that is zero outside its mask between forward passes."""

    def __init__(self, target: Target, owner: StepEnforcement) -> None:
        assert target.masking is not None
        self._masking: MaskedWeight | None = target.masking
        self._owner = owner
        self._leaves = target.stored
        self._sharded = target.is_sharded
        self._ones = torch.empty(0, device="cpu")
        # torch.utils.swap_tensors gives a parameter another dict, without its hooks.
        self._dicts = [leaf.__dict__ for leaf in self._leaves]
        mask = self._masked_product if isinstance(target.masking, SignInMW) else self._masked
        self._hooks = [
            leaf.register_post_accumulate_grad_hook(self._clear)  # type: ignore[no-untyped-call]
            if self._sharded  # FSDP2 puts the reduced shard into .grad itself
            else leaf.register_hook(mask)  # type: ignore[no-untyped-call]
            for leaf in self._leaves
        ]
        target.masking.in_step = self

    def covers(self, *stored: Tensor) -> bool:
        """Return whether these very tensors are kept zero, in plain eager mode.

        Of a sharded weight forward is given the whole one, gathered from the pieces that are.
        """
        if self._sharded:
            return True
        if under_transform():
            return False
        for given, leaf, attributes in zip(stored, self._leaves, self._dicts, strict=True):
            if given is not leaf or given.__dict__ is not attributes:
                return False
        return True

    def project(self) -> None:
        """Zero what is stored outside the mask as it is now."""
        assert self._masking is not None
        # Multiplying the bits as integers clears a NaN too.
        mask, integer = piece_of(self._masking.mask), _integer(self._leaves[0])
        held = self._ones
        same = (held.shape, held.dtype, held.device) == (mask.shape, integer, mask.device)
        if self._sharded and same and not held.is_inference():
            held.copy_(mask)  # no second one while the first is there
        else:
            self._ones = mask.to(integer)
        _put_zeros_back([self])

    def pairs(self) -> list[tuple[Tensor, Tensor]]:
        """Return the bits of each leaf and the ones and zeros to multiply them by."""
        if self._masking is None or not self._masking.enforce:
            return []
        leaves = [piece_of(leaf).detach() for leaf in self._leaves]
        first = leaves[0]
        if first.device != self._ones.device or _integer(first) != self._ones.dtype:  # model.to(…)
            self._ones = piece_of(self._masking.mask).to(_integer(first))
        return [(leaf.view(_integer(leaf)), self._ones) for leaf in leaves]

    def is_among(self, parameters: set[int]) -> bool:
        """Return whether an optimizer of these parameters writes to this weight."""
        return any(id(leaf) in parameters for leaf in self._leaves)

    def remove(self) -> None:
        """Put the mask back into forward, and drop every reference to a tensor."""
        for hook, leaf in zip(self._hooks, self._leaves, strict=True):
            hook.remove()
            if not leaf._backward_hooks:
                leaf._backward_hooks = None
        if self._masking is not None and self._masking.in_step is self:
            self._masking.in_step = NotEnforced(self._masking) if self._sharded else None
        self._hooks, self._leaves, self._masking = [], (), None
        del self._ones, self._dicts
        self._owner._forget(self)

    def _masked(self, gradient: Tensor) -> Tensor | None:
        """Return the masked gradient, or None to leave it as it is (a tensor hook)."""
        masking = self._masking
        if masking is None or not masking.enforce:
            return None
        return gradient * masking.mask.to(gradient.dtype)

    def _clear(self, leaf: Tensor) -> None:
        """Zero a piece of a gradient outside the mask (a hook after it was accumulated)."""
        if self._masking is not None and self._masking.enforce:
            with torch.no_grad():
                zero_gradient_outside_(leaf, self._masking.mask)

    def _masked_product(self, gradient: Tensor) -> Tensor | None:
        """Mask second derivatives; where m = v = 0 the first ones of m ⊙ v are zero anyway."""
        return self._masked(gradient) if torch.is_grad_enabled() else None


@torch.no_grad()
def _put_zeros_back(weights: Iterable[_KeptZero], *_: object) -> None:
    """Zero what is stored outside the masks, all weights in one call (a hook after a step)."""
    kept = [pair for each in weights for pair in each.pairs()]
    if kept:
        torch._foreach_mul_([bits for bits, _ in kept], [ones for _, ones in kept])


def _integer(leaf: Tensor) -> torch.dtype:
    """Return the integer dtype as wide as a leaf's own."""
    return INTEGER_OF.get(leaf.dtype, leaf.dtype)


def _is_trained(target: Target, held: set[int]) -> bool:
    """Return whether an optimizer trains all leaves of a weight whose mask is applied first."""
    return target.chain[0] is target.masking and all(
        leaf.requires_grad and id(leaf) in held for leaf in target.stored
    )
