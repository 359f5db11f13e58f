"""A weight that is shrunk by a threshold which is trained with it."""

import torch
from torch import Tensor, nn

from polarity._checks import check_dtype, check_finite, check_floating

__all__ = ["SoftThreshold", "soft_threshold"]


class SoftThreshold(nn.Module):
    r"""Parametrization that shrinks a weight by a trained threshold, and zeroes what is below it.

    With the given weight :math:`w` and one trained number :math:`s` the layer computes with

    .. math:: \operatorname{sign}(w) \odot \operatorname{relu}(|w| - \sigma(s))

    where :math:`\sigma` is the logistic function. No gradient reaches an entry below the threshold;
    :math:`s` receives that of the entries above it, :math:`-\sigma'(s) \sum_i g_i
    \operatorname{sign}(w_i)`. Weight decay of :math:`s` moves it towards 0, where the threshold is
    0.5.

    It follows :class:`MaskedWeight` or :class:`SignInMW` on the same weight: what they prune stays
    zero. :func:`polarity.dense_to_sparse.threshold_weights` puts it on a whole model, and :math:`s`
    into an optimizer. Registered by hand after a mask it changes the weight by the threshold;
    registered alone it keeps the weight, because torch then stores what :meth:`right_inverse`
    gives.

    :math:`s` is converted with the model. In 16 bits a decay of a few millionths per step rounds to
    nothing; let such a model compute under ``torch.autocast`` instead.

    Attributes:
        s: parameter of shape (1,), because FSDP2 takes no 0-dim one.

    Args:
        s: the initial value. At −8 the threshold is 0.00034; below −100 it is 0 in float32, and so
            is the gradient of :math:`s`.
        dtype: of ``s``; float32 by default.

    Raises:
        TypeError: if ``s`` is not a number, or ``dtype`` not a floating-point one.
        ValueError: if it is not finite.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from torch.nn.utils.parametrize import register_parametrization
        >>> import polarity as pol
        >>> layer = nn.Linear(4, 1, bias=False)
        >>> _ = layer.weight.data.copy_(torch.tensor([[0.75, -0.75, 0.25, -0.5]]))
        >>> mask = torch.tensor([[1, 1, 1, 0]])
        >>> _ = register_parametrization(layer, "weight", pol.MaskedWeight(mask))
        >>> _ = register_parametrization(layer, "weight", pol.SoftThreshold(0.0))
        >>> layer.weight.detach()
        tensor([[ 0.2500, -0.2500,  0.0000,  0.0000]])

    Source: Kusupati et al. (2020), *Soft Threshold Weight Reparameterization for Learnable
    Sparsity*, section 3 (STR).
    """

    s: nn.Parameter

    def __init__(self, s: float = -8.0, *, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        check_finite("s", s)
        check_dtype("dtype", dtype)
        self.s = nn.Parameter(torch.full((1,), float(s), dtype=dtype or torch.float32))

    @property
    def threshold(self) -> float:
        """The present threshold."""
        return float(self.s.detach().sigmoid())

    def forward(self, weight: Tensor) -> Tensor:
        """Return the shrunk weight, same shape and dtype as ``weight``."""
        return soft_threshold(weight, self.s)

    @torch.no_grad()
    def right_inverse(self, weight: Tensor) -> Tensor:
        """Return the weight of which :meth:`forward` makes this one, up to rounding; 0 for 0."""
        check_floating("weight", weight)
        return weight.sign() * (weight.abs() + self.s.sigmoid().to(weight.dtype))

    def extra_repr(self) -> str:
        """Return the present value of s."""
        return "" if self.s.is_meta else f"s={float(self.s.detach()):.4g}"


def soft_threshold(weight: Tensor, s: Tensor) -> Tensor:
    r"""Return :math:`\operatorname{sign}(w) \operatorname{relu}(|w| - \sigma(s))`.

    Example:
        >>> soft_threshold(torch.tensor([0.75, -0.25]), torch.zeros(1))
        tensor([0.2500, -0.0000])
    """
    return weight.sign() * torch.relu(weight.abs() - torch.sigmoid(s).to(weight.dtype))
