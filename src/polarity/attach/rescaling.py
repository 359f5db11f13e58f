"""Restore the inner scaling of Sign-In weights during training: once, or every few epochs."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from polarity._checks import (
    check_choice,
    check_entries,
    check_integer,
    check_mapping,
    check_names,
)
from polarity._running import outside_inference_mode
from polarity._shards import piece_of
from polarity.attach.inner_scaling import factors_of
from polarity.optimizers.factor_state import foreign_state, join_state, split_state
from polarity.optimizers.given import Optimizers, as_optimizers, described
from polarity.optimizers.pruned_state import zero_pruned_state
from polarity.optimizers.replaced import check_together
from polarity.optimizers.states import is_divided
from polarity.parametrizations.arithmetic import zero_outside_
from polarity.parametrizations.sign_in import SignInMW, balanced_factors
from polarity.targets.dense_leaves import on_dense_leaves
from polarity.targets.shards import ranks_of, together
from polarity.targets.target import Target
from polarity.targets.writing import write_all

__all__ = ["Momentum", "RescaleSchedule", "rescale"]

Momentum: TypeAlias = Literal["keep", "zero", "transform"]


@outside_inference_mode
@on_dense_leaves
@torch.no_grad()
def rescale(
    model: nn.Module,
    *,
    optimizer: Optimizers | None = None,
    momentum: Momentum = "keep",
) -> nn.Module:
    r"""Restore the inner scaling of every Sign-In weight, its product unchanged, in place.

    Training noise and weight decay shrink :math:`m^2 - v^2`, and with it the speed at which a
    weight can cross zero. This sets the factors to those with :math:`m^2 - v^2 = \beta` again, see
    :func:`polarity.parametrizations.balanced_factors`; the product :math:`m v` is the same up to
    one rounding, and no sign changes. Pruned entries stay zero.

    Args:
        model: a model with Sign-In weights.
        optimizer: the optimizer that trains them, or a list of them; needed unless ``momentum`` is
            ``"keep"``. Of a ``ZeroRedundancyOptimizer`` every rank's call zeroes that rank's state.
        momentum: what to do with the optimizer's averages of the factors' gradients. ``"keep"``
            leaves them (the paper does not mention them); ``"zero"`` resets them; ``"transform"``
            expresses the same gradient of the product in the new factors.

    Returns:
        The model.

    Raises:
        ValueError: if the model has no Sign-In weights; if ``momentum`` is none of the three, or
            needs an optimizer that is not given; if the optimizer holds none of the factors, or
            its state has another shape than its parameter; or if a weight is NaN or infinite. Model
            and optimizer are left as they were.
        TypeError: if ``model`` or ``optimizer`` is of another type.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> import polarity as pol
        >>> model = pol.sign_in(nn.Linear(3, 2))
        >>> with torch.no_grad():  # as training would
        ...     for factor in model.parametrizations.weight.parameters():
        ...         _ = factor.mul_(0.9)
        >>> scaling = pol.inner_scaling(pol.rescale(model))["weight"]
        >>> torch.allclose(scaling, torch.ones(6))
        True

    Source: *Sign-In to the Lottery*, Algorithm 1 and appendix H.
    """
    found = factors_of(model)
    optimizers = as_optimizers(optimizer)
    ranks = ranks_of(target.stored[0] for target in found.values())

    def checked() -> list[tuple[Tensor, Tensor]]:
        _check_momentum(momentum, optimizers, found)
        return _balanced(found, optimizers if momentum == "transform" else ())

    pairs = together(ranks, checked, list(found), momentum)
    zeroed = found.values() if momentum == "zero" else ()
    factors = [factor for target in zeroed for factor in target.stored]
    nowhere = [(factor, torch.zeros_like(factor, dtype=torch.bool)) for factor in factors]
    write_all(pairs)
    zero_pruned_state(optimizers, nowhere)
    return model


def _balanced(
    found: Mapping[str, Target], transformed: Sequence[torch.optim.Optimizer]
) -> list[tuple[Tensor, Tensor]]:
    """Return what is stored here of the factors, and of their averages in some optimizers.

    Each comes with what it becomes.
    """
    pairs: list[tuple[Tensor, Tensor]] = []
    for name, target in found.items():
        form = target.masking
        assert isinstance(form, SignInMW)
        m, v = target.pieces
        wide = torch.promote_types(m.dtype, torch.float32)
        product = m.to(wide) * v.to(wide)
        if form.enforce:
            zero_outside_(product, form.mask)
        check_entries(f"weight {name!r}", product)
        new_m, new_v = balanced_factors(product, form.beta, m.dtype)
        if form.enforce:
            zero_outside_(new_m, form.mask)
        pairs += [(m, new_m), (v, new_v)]
        pairs += _transformed(transformed, target.stored, (new_m, new_v))
    return pairs


class RescaleSchedule:
    """Rescale every ``every`` epochs until an epoch: call ``step`` once per epoch.

    Called at the beginning of epoch i (the first is 1), a step rescales if i is a multiple of
    ``every`` and less than ``until``, exactly as in Algorithm 1. Called at the end of an epoch,
    like a learning-rate scheduler, it does the same one epoch later.

    Attributes:
        epoch: the number of steps made.

    Args:
        model: a model with Sign-In weights.
        every: the period p, in epochs. The paper never states the one it used.
        until: the epoch T2 at which rescaling stops; None for no end.
        optimizer: as for :func:`rescale`.
        momentum: as for :func:`rescale`.

    Raises:
        ValueError: if ``every`` or ``until`` is less than 1, or as :func:`rescale`.
        TypeError: if ``every`` or ``until`` is not an int, or as :func:`rescale`.

    Example:
        >>> from torch import nn
        >>> import polarity as pol
        >>> schedule = pol.RescaleSchedule(pol.sign_in(nn.Linear(3, 2)), every=2, until=5)
        >>> [schedule.step() for epoch in range(1, 8)]
        [False, True, False, True, False, False, False]

    Source: *Sign-In to the Lottery*, Algorithm 1; Table 7 for T2.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        every: int,
        until: int | None = None,
        optimizer: Optimizers | None = None,
        momentum: Momentum = "keep",
    ) -> None:
        _check_period(every, until)
        _check_momentum(momentum, as_optimizers(optimizer), factors_of(model))
        self.model, self.optimizer, self.momentum = model, optimizer, momentum
        self.every, self.until, self.epoch = every, until, 0

    def step(self) -> bool:
        """Count an epoch, rescale if it is due, and return whether it was."""
        due = self.epoch + 1
        rescales = due % self.every == 0 and (self.until is None or due < self.until)
        if rescales:
            rescale(self.model, optimizer=self.optimizer, momentum=self.momentum)
        self.epoch = due
        return rescales

    def state_dict(self) -> dict[str, Any]:
        """Return the epoch and the settings; the model and the optimizer save themselves."""
        return {key: getattr(self, key) for key in ("epoch", "every", "until", "momentum")}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state of :meth:`state_dict`, with its settings.

        Raises:
            ValueError: if an entry is missing, unknown or out of range, or ``momentum`` needs an
                optimizer that this schedule does not have. The schedule is left as it was.
            TypeError: if ``state`` is not a mapping, or an entry is of another type.
        """
        check_mapping("state", state, "what state_dict returns")
        check_names("state", state, self.state_dict(), what="an entry of a schedule's state")
        check_integer("state['epoch']", state["epoch"], at_least=0)
        _check_period(state["every"], state["until"], "state[{!r}]")
        _check_momentum(
            state["momentum"],
            as_optimizers(self.optimizer),
            factors_of(self.model),
            "state['momentum']",
        )
        for key, value in state.items():
            setattr(self, key, value)


def _check_period(every: int, until: int | None, name: str = "{}") -> None:
    """Raise unless a period and the epoch at which it stops are positive integers."""
    check_integer(name.format("every"), every, at_least=1)
    if until is not None:
        check_integer(name.format("until"), until, at_least=1)


def _check_momentum(
    momentum: str,
    optimizers: Sequence[torch.optim.Optimizer],
    found: Mapping[str, Target],
    parameter: str = "momentum",
) -> None:
    """Raise unless the optimizers can follow as ``momentum`` says."""
    check_choice(parameter, momentum, ("keep", "zero", "transform"))
    if not optimizers:
        if momentum != "keep":
            raise ValueError(f"{parameter}={momentum!r} needs optimizer=, expected an optimizer")
        return
    check_together(optimizers, {name: target.stored for name, target in found.items()})
    if momentum != "transform":
        return
    for optimizer in optimizers:
        if is_divided(optimizer):
            raise ValueError(
                f"momentum='transform' needs the state of both factors on one rank, which "
                f"{described([optimizer])} does not keep: use 'keep' or 'zero'"
            )
    for name, target in found.items():
        for optimizer in optimizers:
            for factor in target.stored:
                if foreign := foreign_state(optimizer.state.get(factor, {}), factor.shape):
                    raise ValueError(
                        f"momentum='transform' has no rule for {foreign[0]!r} in the state of "
                        f"{described([optimizer])} for {name!r}: use 'keep' or 'zero'"
                    )


def _pieces(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the state of a parameter with what is here of its tensors."""
    return {k: piece_of(v) if isinstance(v, Tensor) else v for k, v in state.items()}


def _transformed(
    optimizers: Sequence[torch.optim.Optimizer],
    old: tuple[Tensor, ...],
    new: tuple[Tensor, Tensor],
) -> list[tuple[Tensor, Tensor]]:
    """Return what is here of the averages of two factors, and what it becomes in the new ones."""
    pairs = []
    m, v = (piece_of(factor) for factor in old)
    for optimizer in optimizers:
        states = [_pieces(optimizer.state.get(factor, {})) for factor in old]
        joined = join_state(states[0], states[1], m, v) if all(states) else {}
        for state, values in zip(states, split_state(joined, *new), strict=True):
            pairs += [
                (state[key], value)
                for key, value in values.items()
                if isinstance(value, Tensor) and value.dim() > 0
            ]
    return pairs
