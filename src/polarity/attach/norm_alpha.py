"""See and set the value between trained and initial norms that a model trains at."""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from typing_extensions import Self

from polarity._checks import (
    check_fraction,
    check_mapping,
    check_module,
    check_names,
    check_type,
)
from polarity._running import outside_inference_mode
from polarity.parametrizations.norm_interp import NormInterp
from polarity.parametrizations.shared_alpha import MODULI, SharedAlpha
from polarity.targets.wrappers import unwrapped

__all__ = [
    "check_stream",
    "load_norm_alpha_state",
    "norm_alpha",
    "norm_alpha_state",
    "norm_interps",
    "set_norm_alpha",
    "shared_alphas",
]


@outside_inference_mode
def norm_alpha(model: nn.Module) -> dict[str, Tensor]:
    """Return the value that every interpolated layer last trained at, by layer name.

    The values are 0-dim copies, which the next forward pass does not change. They are equal unless
    the model was interpolated with ``per_layer=True``.

    Raises:
        ValueError: if the model has no interpolated norms.
        TypeError: if an argument is of another type.

    Example:
        >>> from torch import nn
        >>> import polarity as pol
        >>> model = pol.interpolate_norms(nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2)))
        >>> norm_alpha(model)
        {'1': tensor(1.)}
    """
    return {name: each.alpha.clone() for name, each in _alphas_by_layer(model).items()}


@outside_inference_mode
def norm_alpha_state(model: nn.Module) -> dict[str, Tensor]:
    """Return the state of the stream that each interpolated layer's values are drawn from.

    A run that is resumed from its weights needs it to continue the stream. A ``state_dict`` holds
    it too; this is for runs that store their weights in another form, as :class:`RewindPoint` does.

    Returns:
        Copies by layer name, int64 of shape (2,). They are equal unless the model was interpolated
        with ``per_layer=True``.

    Raises:
        ValueError: if the model has no interpolated norms.
        TypeError: if an argument is of another type.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> import polarity as pol
        >>> model = pol.interpolate_norms(nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2)))
        >>> state = norm_alpha_state(model)
        >>> _ = model(torch.zeros(1, 3))
        >>> drawn = norm_alpha(model)
        >>> _ = load_norm_alpha_state(model, state)
        >>> _ = model(torch.zeros(1, 3))
        >>> norm_alpha(model) == drawn
        True
    """
    return {name: each.stream.clone() for name, each in _alphas_by_layer(model).items()}


@outside_inference_mode
def load_norm_alpha_state(model: nn.Module, state: Mapping[str, Tensor]) -> nn.Module:
    """Continue the streams of a model's interpolated norms where :func:`norm_alpha_state` was.

    The next training forward pass draws the value it would have drawn then. The present value, and
    whether it is fixed, stay as they are.

    Args:
        model: a model with interpolated norms.
        state: the result of :func:`norm_alpha_state` for a model interpolated in the same way, on
            any device.

    Returns:
        The model.

    Raises:
        ValueError: if the model has no interpolated norms; if a layer is missing or unknown; if a
            state has another shape or dtype, holds values that no stream reaches, or differs
            between layers that share their values. The model is left as it was.
        TypeError: if an argument is of another type.

    Example:
        >>> from torch import nn
        >>> import polarity as pol
        >>> model, resumed = (nn.Sequential(nn.LayerNorm(2)) for _ in range(2))
        >>> state = norm_alpha_state(pol.interpolate_norms(model))
        >>> resumed = load_norm_alpha_state(pol.interpolate_norms(resumed), state)
        >>> bool((norm_alpha_state(resumed)["0"] == state["0"]).all())
        True
    """
    alphas = _alphas_by_layer(model)
    check_mapping("state", state, "what norm_alpha_state returns")
    check_names("state", state, alphas, what="interpolated")
    chosen: dict[SharedAlpha, Tensor] = {}
    for name, alpha in alphas.items():
        check_stream(f"state[{name!r}]", state[name])
        if not torch.equal(chosen.setdefault(alpha, state[name]).cpu(), state[name].cpu()):
            raise ValueError(
                f"state[{name!r}] differs from that of a layer that shares its values, expected "
                "one for both: interpolate with the same per_layer as when it was taken"
            )
    for alpha, stream in chosen.items():
        alpha.stream.copy_(stream)
    return model


class set_norm_alpha:
    r"""Fix the value :math:`\alpha` that the interpolated norms of a model train at, or free it.

    It takes effect at once and stays. As a context manager it ends with the block, which restores
    the earlier mode, and the value if that was fixed. Evaluation mode does not depend on it.

    Args:
        model: a model with interpolated norms.
        alpha: a number in [0, 1] to fix it, 1 being the trained side and 0 the initial one;
            ``"hold"`` to draw one value now and keep it (for the micro-batches of one step);
            ``"random"`` to draw at every training forward again.

    Raises:
        ValueError: if the model has no interpolated norms, or ``alpha`` is none of these.
        TypeError: if ``model`` is not a module, or ``alpha`` neither a number nor a string.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> import polarity as pol
        >>> model = pol.interpolate_norms(nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2)))
        >>> _ = set_norm_alpha(model, 0.25)
        >>> _ = model(torch.zeros(1, 3))
        >>> norm_alpha(model)
        {'1': tensor(0.2500)}
        >>> with set_norm_alpha(model, "hold"):
        ...     first = [norm_alpha(model) for _ in range(2) if model(torch.ones(1, 3)).any()]
        >>> first[0] == first[1]
        True
    """

    def __init__(self, model: nn.Module, alpha: float | Literal["hold", "random"]) -> None:
        self._alphas = shared_alphas(model)
        if not isinstance(alpha, str):
            check_fraction("alpha", alpha)
        elif alpha not in ("hold", "random"):
            raise ValueError(f"alpha={alpha!r}, expected a number in [0, 1], 'hold' or 'random'")
        self._before = [(each.redraw, each.alpha.clone()) for each in self._alphas]
        for each in self._alphas:
            each.redraw = alpha == "random"
            if alpha == "hold":
                each.draw_()
            elif not isinstance(alpha, str):
                each.alpha.fill_(alpha)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for each, (redraw, value) in zip(self._alphas, self._before, strict=True):
            each.redraw = redraw
            if not redraw:
                each.alpha.copy_(value)


def _alphas_by_layer(model: nn.Module) -> dict[str, SharedAlpha]:
    """Return the value that each interpolated layer reads, by layer name."""
    shared_alphas(model)
    found: dict[str, SharedAlpha] = {}
    for name, module in unwrapped(model).named_modules():
        if parametrize.is_parametrized(module):
            for each in norm_interps(module.parametrizations):
                found.setdefault(name, each.shared)
    return found


def check_stream(what: str, stream: Tensor) -> None:
    """Raise unless a tensor is the state of a stream."""
    check_type(what, stream, Tensor, "a tensor, as norm_alpha_state returns")
    if stream.dtype != torch.int64 or stream.shape != (2,):
        raise ValueError(
            f"{what} has shape {tuple(stream.shape)} and dtype {stream.dtype}, "
            "expected int64 of shape (2,), as norm_alpha_state returns"
        )
    if not all(0 < value < modulus for value, modulus in zip(stream.tolist(), MODULI, strict=True)):
        raise ValueError(
            f"{what} is {stream.tolist()}, expected values from 1 to {MODULI[0] - 1} and "
            f"to {MODULI[1] - 1}, as norm_alpha_state returns"
        )


def norm_interps(model: nn.Module) -> list[NormInterp]:
    """Return every NormInterp of a model, in its order."""
    check_module(model)
    return [module for module in model.modules() if isinstance(module, NormInterp)]


def shared_alphas(model: nn.Module) -> list[SharedAlpha]:
    """Return the values of a model's interpolated norms, each once, and raise if there are none."""
    found = list(dict.fromkeys(each.shared for each in norm_interps(model)))
    if not found:
        raise ValueError(
            f"{type(model).__name__} has no interpolated norms: call interpolate_norms(model) first"
        )
    return found
