"""A normalisation parameter that is interpolated with its initial value while it trains."""

import torch
from torch import Tensor, nn

from polarity._checks import check_floating, check_shape
from polarity.parametrizations.shared_alpha import SharedAlpha

__all__ = ["NormInterp"]


class NormInterp(nn.Module):
    r"""Parametrization that interpolates a parameter with its initial value during training.

    With the trained value :math:`\psi`, its initial value :math:`\psi_\mathrm{init}` and a scalar
    :math:`\alpha` the layer computes with

    .. math:: \alpha\,\psi + (1 - \alpha)\,\psi_\mathrm{init}

    in training mode, and with :math:`\psi` in evaluation mode. The gradient that reaches
    :math:`\psi` is :math:`\alpha` times that of the interpolated value; weight decay acts on
    :math:`\psi` and is not scaled. At :math:`\alpha` = 1 and 0 the result is :math:`\psi` and
    :math:`\psi_\mathrm{init}` exactly, in every dtype.

    :math:`\alpha` is only read here, never drawn, so that activation checkpointing computes again
    with the same value. :func:`polarity.interpolate_norms` attaches this to the normalisation
    layers of a model and draws one value for all of them per training forward.

    What is assigned (``layer.weight = x``) is copied and becomes the trained value. In training
    mode ``layer.weight`` reads back as the interpolated one.

    Args:
        initial: :math:`\psi_\mathrm{init}`, of the parameter's shape and dtype. It is copied.
        alpha: :math:`\alpha` as a number or a 0-dim tensor; such a tensor is kept, so it can be
            changed in place and given to several parametrizations. A
            :class:`~polarity.parametrizations.SharedAlpha` stays common to them when the model
            changes device or dtype.

    Raises:
        ValueError: if ``alpha`` is not a 0-dim floating-point tensor, or, when the parametrization
            is registered, if the shape of ``initial`` is not the parameter's.
        TypeError: if an argument is of another type.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from torch.nn.utils.parametrize import register_parametrization
        >>> norm = nn.LayerNorm(2)
        >>> _ = register_parametrization(norm, "weight", NormInterp(norm.weight, alpha=0.25))
        >>> norm.weight = torch.tensor([5.0, -3.0])
        >>> norm.weight.detach()
        tensor([2., 0.])
        >>> norm.eval().weight.detach()
        tensor([ 5., -3.])

    Source: Oh et al., *Find a Winning Sign*, section 3.3, equation 2.
    """

    initial: Tensor

    def __init__(self, initial: Tensor, alpha: SharedAlpha | Tensor | float = 1.0) -> None:
        super().__init__()
        check_floating("initial", initial)
        self.register_buffer("initial", initial.detach().clone())
        self.shared = alpha if isinstance(alpha, SharedAlpha) else SharedAlpha(alpha)

    @property
    def alpha(self) -> Tensor:
        """The interpolation weight, 0-dim; the same tensor for all that share it."""
        return self.shared.alpha

    def forward(self, trained: Tensor) -> Tensor:
        """Return the value to compute with, same shape and dtype as ``trained``."""
        if not self.training:
            return trained
        # A copy: autograd keeps it for the backward pass, and the next forward draws into it.
        alpha = self.shared.alpha.clone()
        return torch.lerp(self.initial, trained, alpha.to(trained))

    def right_inverse(self, value: Tensor) -> Tensor:
        """Return a copy of ``value``, which becomes the trained value.

        Raises:
            ValueError: if its shape is not that of ``initial``.
        """
        check_floating("value", value)
        check_shape("initial", None, self.initial.shape, value.shape, "parameter")
        return value.clone()

    def extra_repr(self) -> str:
        """Return the shape."""
        return str(tuple(self.initial.shape))
