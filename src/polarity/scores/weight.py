"""Scores that look at the weight alone."""

import torch
from torch import Tensor

__all__ = ["magnitude", "random"]


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
