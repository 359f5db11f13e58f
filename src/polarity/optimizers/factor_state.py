"""Carry an optimizer's state over from a weight to its two factors, and back."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

__all__ = ["foreign_state", "join_state", "split_state"]

# Averages of gradients follow the chain rule; averages of their squares its square.
_GRADIENTS = ("momentum_buffer", "exp_avg", "grad_avg")
_SQUARES = ("exp_avg_sq", "max_exp_avg_sq", "square_avg", "sum")


def foreign_state(state: Mapping[str, Any], shape: torch.Size) -> list[str]:
    """Return the keys of an optimizer's state that follow no known rule, such as a mean weight's.

    Example:
        >>> import torch
        >>> state = {"step": torch.tensor(3.0), "ax": torch.ones(2), "exp_avg": torch.ones(2)}
        >>> foreign_state(state, torch.Size([2]))
        ['ax']
    """
    return [
        key
        for key, value in state.items()
        if isinstance(value, Tensor) and value.dim() > 0 and not _follows(key, value, shape)
    ]


@torch.no_grad()
def split_state(
    state: Mapping[str, Any], m: Tensor, v: Tensor
) -> tuple[dict[str, Any], dict[str, Any]]:
    r"""Return the state of the factors from the state of their product :math:`w = m v`.

    By the chain rule :math:`\partial_m L = v\,\partial_w L` and
    :math:`\partial_v L = m\,\partial_w L`; an average of gradients is multiplied likewise, an
    average of squared gradients by the square. Step counts are copied.

    Args:
        state: the optimizer's state of the product.
        m: the first factor.
        v: the second factor, of the same shape.

    Returns:
        New states of ``m`` and of ``v``; empty where ``state`` is, or where an entry follows no
        known rule (:func:`foreign_state`).

    Example:
        >>> import torch
        >>> split_state({"momentum_buffer": torch.ones(2)}, torch.full((2,), 3.0), torch.zeros(2))
        ({'momentum_buffer': tensor([0., 0.])}, {'momentum_buffer': tensor([3., 3.])})
    """
    if foreign_state(state, m.shape):
        return {}, {}
    return _scaled(state, v), _scaled(state, m)


@torch.no_grad()
def join_state(
    state_m: Mapping[str, Any], state_v: Mapping[str, Any], m: Tensor, v: Tensor
) -> dict[str, Any]:
    r"""Return the state of the product from that of its factors, undoing :func:`split_state`.

    The factors' averages need not come from one gradient of the product. The least-squares fit is
    :math:`(v\,u_m + m\,u_v) / (m^2 + v^2)`, and for squares
    :math:`(v^2 s_m + m^2 s_v) / (m^4 + v^4)`. Where both factors are zero it is zero.

    Args:
        state_m: the optimizer's state of the first factor.
        state_v: that of the second.
        m: the first factor.
        v: the second factor, of the same shape.

    Returns:
        A new state; empty where either one is, or where an entry follows no known rule.

    Example:
        >>> import torch
        >>> m, v = torch.tensor([3.0]), torch.tensor([1.0])
        >>> join_state({"exp_avg": 2 * v}, {"exp_avg": 2 * m}, m, v)
        {'exp_avg': tensor([2.])}
    """
    if state_m.keys() != state_v.keys() or foreign_state(state_m, m.shape):
        return {}
    joined = {}
    for key, value in state_m.items():
        if not isinstance(value, Tensor):
            joined[key] = value
        elif value.dim() == 0:
            joined[key] = value.clone()
        else:
            by_m, by_v = (v, m) if key in _GRADIENTS else (v.square(), m.square())
            fit = (value * by_m + state_v[key] * by_v) / (by_m.square() + by_v.square())
            joined[key] = fit.nan_to_num_(0.0, 0.0, 0.0).to(value.dtype)
    return joined


def _follows(key: str, value: Tensor, shape: torch.Size) -> bool:
    return value.shape == shape and key in _GRADIENTS + _SQUARES


def _scaled(state: Mapping[str, Any], factor: Tensor) -> dict[str, Any]:
    """Carry a state over to a parameter whose gradient is ``factor`` times as large."""
    scaled: dict[str, Any] = {}
    for key, value in state.items():
        if not isinstance(value, Tensor):
            scaled[key] = value
        elif value.dim() == 0:
            scaled[key] = value.clone()
        else:
            scaled[key] = value * (factor if key in _GRADIENTS else factor.square())
    return scaled
