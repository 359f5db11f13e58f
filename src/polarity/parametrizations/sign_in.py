"""A masked weight that is a product of two factors, so that its sign can change more easily."""

import math
from typing import Any

import torch
from torch import Tensor

from polarity._checks import check_dtype, check_floating, check_number
from polarity.parametrizations.arithmetic import zero_outside_
from polarity.parametrizations.masked import MaskedWeight
from polarity.parametrizations.survivor_weight import weight_of

__all__ = ["SignInMW", "balanced_factors", "check_factors", "checked_beta"]


class SignInMW(MaskedWeight):
    r"""Parametrization of a weight as the masked product of two trained factors.

    With factors :math:`m, v` and mask :math:`M` the layer computes with

    .. math:: w = m \odot v \odot M

    and :meth:`right_inverse` chooses, among all factors of a weight, those with the inner scaling
    :math:`m^2 - v^2 = \beta`, see :func:`~polarity.parametrizations.balanced_factors`. (The paper
    writes :math:`w` for what is :math:`v` here.) Gradient descent on the factors moves a weight
    near zero, where signs change, at :math:`\sqrt{4w^2+\beta^2}` times the speed of gradient
    descent on the weight.

    It is a :class:`MaskedWeight`: it owns the mask, and masks behave as described there. Outside
    the mask both factors are zero, and elementwise optimizers keep them so; an entry that becomes
    live starts as a zero with :math:`m = \sqrt\beta`. As it is made of two tensors it must be the
    first parametrization of its weight. :func:`polarity.sign_in` attaches it to a whole model, and
    to an optimizer that exists already.

    Attributes:
        mask: zeros and ones in the weight's shape and dtype, 1 for a survivor.
        enforce: with False the mask is remembered but not applied.
        beta: 0-dim buffer, the inner scaling; float64 in a model of any dtype.

    Args:
        mask: bool tensor, or a tensor of zeros and ones, of the weight's shape. It is copied.
        beta: the inner scaling, a positive number.
        enforce: initial value of the attribute.

    Raises:
        ValueError: if ``beta`` is not positive and finite, or the mask holds values other than
            zeros and ones; or, when the parametrization is registered, if the shapes differ.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from torch.nn.utils.parametrize import register_parametrization
        >>> layer = nn.Linear(3, 1, bias=False)
        >>> _ = nn.init.constant_(layer.weight, -2.0)
        >>> mask = torch.tensor([[True, False, True]])
        >>> _ = register_parametrization(layer, "weight", SignInMW(mask, beta=3.0))
        >>> layer.weight.detach()
        tensor([[-2.,  0., -2.]])
        >>> m, v = layer.parametrizations.weight.original0, layer.parametrizations.weight.original1
        >>> m.detach(), v.detach()
        (tensor([[2., 0., 2.]]), tensor([[-1.,  0., -1.]]))

    Source: *Sign-In to the Lottery*, section 4, Algorithm 1 and appendix B.
    """

    beta: Tensor

    def __init__(self, mask: Tensor, beta: float = 1.0, *, enforce: bool = True) -> None:
        super().__init__(mask, enforce=enforce)
        self.register_buffer("beta", checked_beta(beta).to(self.mask.device))

    def forward(self, m: Tensor, v: Tensor) -> Tensor:  # type: ignore[override]
        """Return the effective weight: of the mask's shape, and the dtype of the factors."""
        if (places := self.stored_places) is not None:
            return weight_of(m * v, places, self.mask)
        if not self.applies(m, v):
            return m * v
        return m * v * self.mask.to(m.dtype)

    def of_pieces(self, stored: tuple[Tensor, ...], mask: Tensor | None) -> Tensor:
        """Return this rank's piece of the effective weight, under a piece of the mask or none."""
        m, v = stored
        return m * v if mask is None else m * v * mask.to(m.dtype)

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Return factors ``(m, v)`` of ``weight`` with the inner scaling ``beta``; zeros outside.

        Always new tensors. Computed in float32 or better, and returned in the dtype of ``weight``.

        Raises:
            ValueError: if the shape of ``weight`` is not the mask's.
        """
        factors = self.to_store(weight, self.mask if self.enforce else None)
        self._take_dtype(weight)
        return factors

    def to_store(  # type: ignore[override]
        self, weight: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return the factors to store for a weight under a mask that is enforced, None for none."""
        m, v = balanced_factors(super().to_store(weight, mask), self.beta)
        if mask is not None and self.stored_places is None:
            zero_outside_(m, mask)
        return m, v

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        """Move ``beta`` with the model, but never to another dtype: it is a setting."""
        beta = self.beta
        del self.beta
        super()._apply(fn, recurse)
        moved = fn(beta if beta.is_meta else beta.float())
        exact = moved.device.type == "mps"  # which has no float64
        self.register_buffer("beta", moved if beta.is_meta or exact else beta.to(moved.device))
        return self

    def extra_repr(self) -> str:
        """Return the description of a masked weight, and the inner scaling."""
        described = super().extra_repr()
        return described if self.beta.is_meta else f"{described}, beta={float(self.beta):.4g}"


def balanced_factors(
    weight: Tensor, beta: Tensor | float, dtype: torch.dtype | None = None
) -> tuple[Tensor, Tensor]:
    r"""Return the factors :math:`m > 0` and :math:`v` of a weight that have inner scaling beta.

    .. math:: m = \sqrt{\alpha + \sqrt{w^2 + \alpha^2}}, \quad v = w / m, \quad \alpha = \beta / 2,

    so that :math:`m v = w` and :math:`m^2 - v^2 = \beta`. The paper's appendix B has two forms that
    are equal in exact arithmetic. This one is free of cancellation and loses no sign; the other one
    gets 10 % of a small layer's signs wrong in bfloat16.

    Args:
        weight: floating tensor. The arithmetic is done in float32 or better.
        beta: the inner scaling, positive.
        dtype: of the factors; that of ``weight`` if not given.

    Returns:
        ``(m, v)``, new tensors of the shape of ``weight``.

    Example:
        >>> import torch
        >>> m, v = balanced_factors(torch.tensor([0.0, -2.0]), beta=3.0)
        >>> m, v
        (tensor([1.7321, 2.0000]), tensor([ 0., -1.]))

    Source: *Sign-In to the Lottery*, appendix B, first form.
    """
    check_floating("weight", weight)
    check_dtype("dtype", dtype)
    if not isinstance(beta, Tensor):
        checked_beta(beta)
    dtype = weight.dtype if dtype is None else dtype
    wide = weight.to(torch.promote_types(weight.dtype, torch.float32))
    alpha = torch.as_tensor(beta, dtype=torch.float64, device=wide.device) / 2
    alpha = alpha.to(wide.dtype)
    m = wide.abs().hypot(alpha).add_(alpha).sqrt_().to(dtype)
    # Dividing by m as it was rounded leaves one rounding error in the product, not two.
    return m, wide.div(m.to(wide.dtype)).to(dtype)


def checked_beta(beta: float, parameter: str = "beta") -> Tensor:
    """Return ``beta``, a positive finite number, as a 0-dim float64 tensor."""
    check_number(parameter, beta, above=0, below=math.inf)
    return torch.tensor(float(beta), dtype=torch.float64, device="cpu")


@torch.no_grad()
def check_factors(name: str, beta: Tensor, weight: Tensor) -> None:
    """Raise if the factors of a weight's largest entry, or of zero, overflow or vanish.

    The first factor grows with the weight's magnitude and with beta.
    """
    if weight.is_meta or not weight.numel():
        return
    largest = weight.abs().amax()
    m, v = balanced_factors(torch.stack([largest, largest.new_zeros(())]), beta)
    if not (m.isfinite().all() and v.isfinite().all()):
        raise ValueError(
            f"beta={float(beta)!r} gives {name!r} factors that {weight.dtype} cannot hold, "
            "expected one nearer to 1"
        )
