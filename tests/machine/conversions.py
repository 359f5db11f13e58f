"""What conversions do to the reference: Sign-In and back, rescaling, interpolated norms."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from tests.machine import rules
from tests.machine.reference import Reference, Weight

Stored = Callable[[Weight], list[Tensor]]


def foreign(state: dict[str, Any], leaf: Tensor) -> list[str]:
    """Return what an optimizer remembers that is no average of gradients or of their squares."""
    known = rules.GRADIENTS + rules.SQUARES
    tensors = {k: v for k, v in state.items() if isinstance(v, Tensor) and v.dim() > 0}
    return [k for k, v in tensors.items() if v.shape != leaf.shape or k not in known]


def split(state: dict[str, Any], m: Tensor, v: Tensor) -> list[dict[str, Any]]:
    """Averages by the chain rule, averages of squares by its square, counts as they are."""
    if foreign(state, m):
        return [{}, {}]
    return [{key: _by(key, value, factor) for key, value in state.items()} for factor in (v, m)]


def _by(key: str, value: Any, factor: Tensor) -> Any:
    if not isinstance(value, Tensor):
        return value
    if value.dim() == 0:
        return value.clone()
    return value * (factor if key in rules.GRADIENTS else factor.square())


def join(states: list[dict[str, Any]], m: Tensor, v: Tensor) -> dict[str, Any]:
    """Return the least-squares fit of one state to those of two factors."""
    if states[0].keys() != states[1].keys() or foreign(states[0], m):
        return {}
    joined: dict[str, Any] = {}
    for key, value in states[0].items():
        if not isinstance(value, Tensor):
            joined[key] = value
        elif value.dim() == 0:
            joined[key] = value.clone()
        else:
            a, b = (v, m) if key in rules.GRADIENTS else (v.square(), m.square())
            fit = (value * a + states[1][key] * b) / (a.square() + b.square())
            joined[key] = fit.nan_to_num(0.0, 0.0, 0.0).to(value.dtype)
    return joined


def close(mine: Tensor, theirs: Tensor, what: str) -> None:
    """Compare to within a few units of the last place."""
    rtol = 16 * torch.finfo(mine.dtype).eps if mine.is_floating_point() else 0
    atol = torch.finfo(mine.dtype).eps if mine.is_floating_point() else 0
    torch.testing.assert_close(theirs, mine, rtol=rtol, atol=atol, equal_nan=True,
                               msg=lambda text: f"{what}: {text}")  # fmt: skip


@torch.no_grad()
def sign_in(
    ref: Reference, names: Iterable[str], beta: float, stored: Stored, *, follow: bool
) -> None:
    for name in names:
        weight = ref.weights[name]
        value = weight.effective.detach().clone()
        if weight.form == "sign_in":
            weight.beta = beta
            ref.write(weight, value)
            continue
        (old,), mask = weight.leaves, weight.mask
        if weight.form == "plain":
            mask, weight.enforce = torch.ones_like(old), True
        pair = rules.factors(value, beta)
        if weight.enforce:
            pair[0][mask == 0] = 0
        weight.form, weight.mask, weight.beta, weight.in_step = "sign_in", mask, beta, False
        theirs = stored(weight)
        for mine, factor, letter in zip(pair, theirs, "mv", strict=True):
            close(mine, factor, f"{letter} of {name}")
        m, v = (nn.Parameter(factor.detach().clone()) for factor in theirs)
        m.requires_grad_(old.requires_grad)
        v.requires_grad_(old.requires_grad)
        if old.grad is not None:
            m.grad, v.grad = old.grad * v, old.grad * m
        _swap(ref, weight, (m, v), split(ref.state(old), m, v), follow)


@torch.no_grad()
def merge(ref: Reference, *, follow: bool) -> None:
    if follow:
        ref.forget_pruned(ref.masked().values())
    for weight in ref.weights.values():
        if weight.form == "sign_in":
            m, v = weight.leaves
            new = nn.Parameter(weight.effective.detach().clone(), m.requires_grad)
            if m.grad is not None and v.grad is not None:
                new.grad = join([{"exp_avg": m.grad}, {"exp_avg": v.grad}], m, v)["exp_avg"]
            state = join([ref.state(m), ref.state(v)], m, v)
            _swap(ref, weight, (new,), [state], follow)
            weight.rounded = True
        elif weight.masked and weight.enforce:
            ref.write(weight, weight.effective.detach().clone())
        weight.form, weight.mask, weight.initial, weight.in_step = "plain", None, None, False
        weight.compact = False
        weight.enforce = True
    ref.stream = None


def _swap(
    ref: Reference, weight: Weight, new: tuple[nn.Parameter, ...], states: list[Any], follow: bool
) -> None:
    if follow:
        ref.replace(weight, new, states)
    else:
        weight.leaves = new


@torch.no_grad()
def rescale(ref: Reference, momentum: str, stored: Stored) -> None:
    for weight in ref.masked().values():
        if weight.form != "sign_in":
            continue
        old = [leaf.clone() for leaf in weight.leaves]
        states = [ref.state(leaf) for leaf in weight.leaves]
        value = (old[0] * old[1]).detach()
        ref.write(weight, value)
        for leaf, theirs in zip(weight.leaves, stored(weight), strict=True):
            close(leaf, theirs, f"rescaled {weight.name}")
            leaf.copy_(theirs)
        if momentum == "transform" and all(states):
            parts = split(join(states, *old), *weight.leaves)
            for state, part in zip(states, parts, strict=True):
                for key, each in part.items():
                    if isinstance(each, Tensor) and each.dim() > 0:
                        state[key].copy_(each)
            weight.rounded = True
        elif momentum == "zero":
            for leaf, state in zip(weight.leaves, states, strict=True):
                for each in state.values():
                    if isinstance(each, Tensor) and each.dim() > 0 and each.shape == leaf.shape:
                        each.zero_()


@torch.no_grad()
def interpolate(ref: Reference, names: Iterable[str], generator: torch.Generator | None) -> None:
    names = list(names)
    if names and ref.stream is None:
        ref.stream = rules.Stream(*torch.randint(1, 2147483399, (2,), generator=generator).tolist())
    for name in names:
        weight = ref.weights[name]
        weight.form, weight.initial = "norm", weight.leaves[0].detach().clone()
