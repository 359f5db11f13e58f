"""See and set the value between trained and initial norms that a model trains at."""

from typing import Literal

from torch import Tensor, nn
from torch.nn.utils import parametrize
from typing_extensions import Self

from polarity._checks import check_fraction
from polarity.parametrizations.norm_interp import NormInterp
from polarity.parametrizations.shared_alpha import SharedAlpha

__all__ = ["norm_alpha", "norm_interps", "set_norm_alpha", "shared_alphas"]


def norm_alpha(model: nn.Module) -> dict[str, Tensor]:
    """Return the value that every interpolated layer last trained at, by layer name.

    Copies, 0-dim: the next forward does not change them. All the same unless the model was
    interpolated with ``per_layer=True``.

    Raises:
        ValueError: if the model has no interpolated norms.

    Example:
        >>> from torch import nn
        >>> import polarity as pol
        >>> model = pol.interpolate_norms(nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2)))
        >>> norm_alpha(model)
        {'1': tensor(1.)}
    """
    shared_alphas(model)
    found: dict[str, Tensor] = {}
    for name, module in model.named_modules():
        if parametrize.is_parametrized(module):
            for each in norm_interps(module.parametrizations):
                found.setdefault(name, each.alpha.clone())
    return found


class set_norm_alpha:
    r"""Fix the value :math:`\alpha` that the interpolated norms of a model train at, or free it.

    It takes effect at once, and for good; as a context manager, until the block ends, which then
    gives back the mode, and a fixed value, of before. In evaluation mode nothing depends on it.

    Args:
        model: a model with interpolated norms.
        alpha: a number in [0, 1] to fix it, 1 being the trained side and 0 the initial one;
            ``"hold"`` to draw one value now and keep it (for the micro-batches of one step);
            ``"random"`` to draw at every training forward again.

    Raises:
        ValueError: if the model has no interpolated norms, or ``alpha`` is none of these.
        TypeError: if ``alpha`` is neither a number nor a string.

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


def norm_interps(model: nn.Module) -> list[NormInterp]:
    """Return every NormInterp of a model, in its order."""
    return [module for module in model.modules() if isinstance(module, NormInterp)]


def shared_alphas(model: nn.Module) -> list[SharedAlpha]:
    """Return the values of a model's interpolated norms, each once.

    Raises:
        ValueError: if it has none.
    """
    found = list(dict.fromkeys(each.shared for each in norm_interps(model)))
    if not found:
        raise ValueError(
            f"{type(model).__name__} has no interpolated norms: call interpolate_norms(model) first"
        )
    return found
