"""How much every entry of a weight matters: functions ``(name, weight) -> score tensor``.

Any function of that form can be given to :func:`polarity.imp_prune` as ``score=``; the entries with
the highest scores survive. Those that look at the initial weights too are made from them::

    imp_prune(model, 0.2, score=large_final_same_sign(start))
"""

from collections.abc import Callable, Mapping
from typing import TypeAlias

import torch
from torch import Tensor

from polarity.rewind import RewindPoint, weights_of

__all__ = [
    "Score",
    "large_final_diff_sign",
    "large_final_same_sign",
    "magnitude",
    "magnitude_increase",
    "random",
]

Score: TypeAlias = Callable[[str, Tensor], Tensor]
Initial: TypeAlias = RewindPoint | Mapping[str, Tensor]


def magnitude(name: str, weight: Tensor) -> Tensor:
    r"""Score by :math:`|w|`, the criterion of iterative magnitude pruning.

    Example:
        >>> import torch
        >>> magnitude("layer.weight", torch.tensor([-2.0, 1.0]))
        tensor([2., 1.])

    Source: Frankle & Carbin (2019); *large final* in Zhou et al. (2019), section 2.
    """
    return weight.abs()


def random(name: str, weight: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
    """Score by a uniform draw, the control that every criterion has to beat.

    The draw is made on the generator's device (CPU without one) in float64, so that the same seed
    gives the same mask whatever the model's device and dtype.

    Example:
        >>> import torch
        >>> draw = torch.Generator().manual_seed(0)
        >>> random("layer.weight", torch.zeros(2, 3), generator=draw).shape
        torch.Size([2, 3])
    """
    device = generator.device if generator is not None else torch.device("cpu")
    draw = torch.rand(weight.shape, generator=generator, dtype=torch.float64, device=device)
    return draw.to(weight.device)


def large_final_same_sign(init: Initial) -> Score:
    r"""Score by :math:`\max(0, w_f\,\operatorname{sign}(w_i))`: large, and of its initial sign.

    An entry whose sign changed while it trained scores 0 and goes first.

    Args:
        init: the initial weights, a :class:`RewindPoint` or ``{name: tensor}``.

    Raises:
        ValueError: when scoring, if ``init`` lacks the weight or holds it in another shape.

    Example:
        >>> import torch
        >>> score = large_final_same_sign({"w": torch.tensor([1.0, 1.0, -1.0])})
        >>> score("w", torch.tensor([2.0, -3.0, -4.0]))
        tensor([2., 0., 4.])

    Source: Zhou et al. (2019), section 2, criterion *large final, same sign*.
    """

    def score(name: str, weight: Tensor) -> Tensor:
        return (weight * initial_like(init, name, weight).sign()).clamp_min(0)

    return score


def large_final_diff_sign(init: Initial) -> Score:
    r"""Score by :math:`\max(0, -w_f\,\operatorname{sign}(w_i))`: large, and of a changed sign.

    The control of :func:`large_final_same_sign`.

    Args:
        init: the initial weights, a :class:`RewindPoint` or ``{name: tensor}``.

    Raises:
        ValueError: when scoring, if ``init`` lacks the weight or holds it in another shape.

    Example:
        >>> import torch
        >>> score = large_final_diff_sign({"w": torch.tensor([1.0, 1.0, -1.0])})
        >>> score("w", torch.tensor([2.0, -3.0, -4.0]))
        tensor([0., 3., 0.])

    Source: Zhou et al. (2019), section 2, criterion *large final, different sign*.
    """

    def score(name: str, weight: Tensor) -> Tensor:
        return (-weight * initial_like(init, name, weight).sign()).clamp_min(0)

    return score


def magnitude_increase(init: Initial) -> Score:
    r"""Score by :math:`|w_f| - |w_i|`: how much an entry grew while it trained. May be negative.

    Args:
        init: the initial weights, a :class:`RewindPoint` or ``{name: tensor}``.

    Raises:
        ValueError: when scoring, if ``init`` lacks the weight or holds it in another shape.

    Example:
        >>> import torch
        >>> score = magnitude_increase({"w": torch.tensor([1.0, -3.0])})
        >>> score("w", torch.tensor([-2.0, 0.5]))
        tensor([ 1.0000, -2.5000])

    Source: Zhou et al. (2019), section 2, criterion *magnitude increase*.
    """

    def score(name: str, weight: Tensor) -> Tensor:
        return weight.abs() - initial_like(init, name, weight).abs()

    return score


def initial_like(init: Initial, name: str, weight: Tensor) -> Tensor:
    """Return the initial value of ``name`` on the device and in the dtype of ``weight``.

    Raises:
        ValueError: if ``init`` lacks it or holds it in another shape.
    """
    known = weights_of(init)
    if name not in known:
        raise ValueError(f"init lacks {name!r}, which the model has")
    if known[name].shape != weight.shape:
        raise ValueError(
            f"init holds {name!r} in shape {tuple(known[name].shape)}, "
            f"expected the model's {tuple(weight.shape)}"
        )
    return known[name].to(weight.device, weight.dtype)
