"""A weight of which only the entries under a boolean mask live."""

import torch
from torch import Tensor, nn

from polarity.parametrizations.keep_where import SMALL, keep_where
from polarity.parametrizations.kept_zeros import can_rely, forget
from polarity.parametrizations.masked_gradient import seen_directly
from polarity.parametrizations.zeros_in_steps import follow_steps

__all__ = ["MaskedWeight"]


class MaskedWeight(nn.Module):
    r"""Parametrization that keeps the masked entries of a weight and zeroes the rest.

    With stored values :math:`s` and mask :math:`M` the layer computes with

    .. math:: w = s \text{ where } M, \quad 0 \text{ elsewhere},

    a clean ``+0.0`` whatever is stored there (a product would give ``-0.0``, and ``NaN`` for a
    stored ``NaN``), and no gradient reaches an entry outside the mask.

    The mask is a buffer of the same shape as the weight, so it is saved, moved and copied with the
    model. It can be changed in place at any time.

    In training the mask is not applied again to stored values that are known to be zero outside it
    already: the weight is then a view of what is stored, see :func:`polarity.mask_shortcut`.

    Attributes:
        mask: bool tensor of the weight's shape, True where the entry lives.
        enforce: with False the mask is remembered but not applied: the weight is what is stored
            (strategy ``standard``, dense phases). Part of the ``state_dict``.
        shortcut: with False the mask is applied in every forward pass, whatever is stored. Copied
            and pickled with the module, but no part of the ``state_dict``.

    Args:
        mask: bool tensor, or a tensor of zeros and ones, of the weight's shape. It is copied.
        enforce: initial value of the attribute.

    Raises:
        ValueError: if the mask holds anything but zeros and ones, or, when the parametrization is
            registered, if its shape is not the weight's.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from torch.nn.utils.parametrize import register_parametrization
        >>> layer = nn.Linear(3, 1, bias=False)
        >>> _ = nn.init.ones_(layer.weight)
        >>> mask = torch.tensor([[True, False, True]])
        >>> _ = register_parametrization(layer, "weight", MaskedWeight(mask))
        >>> layer.weight.detach()
        tensor([[1., 0., 1.]])
    """

    mask: Tensor

    def __init__(self, mask: Tensor, *, enforce: bool = True) -> None:
        super().__init__()
        self.register_buffer("mask", as_mask(mask).clone())
        self.enforce = bool(enforce)
        self.shortcut = True

    def forward(self, stored: Tensor) -> Tensor:
        """Return the effective weight, same shape and dtype as ``stored``."""
        if not self.enforce:
            forget(stored)
            return stored
        mask = self.mask
        if self.may_rely_on(mask, stored):
            return seen_directly(stored, mask)
        return keep_where(mask, stored)

    def may_rely_on(self, mask: Tensor, *stored: Tensor) -> bool:
        """Whether the stored tensors are known to be zero outside the mask; in training only.

        Never of small ones: to mask them costs less than to know.
        """
        if not (self.training and self.shortcut and mask.numel() > SMALL):
            return False
        if not can_rely(mask, *stored):
            return False
        follow_steps()
        return True

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Return what to store so that :meth:`forward` gives ``weight`` inside the mask.

        Always a new tensor: ``module.weight = x`` must not tie the module to the storage of ``x``.

        Raises:
            ValueError: if the shape of ``weight`` is not the mask's.
        """
        if weight.shape != self.mask.shape:
            raise ValueError(
                f"mask has shape {tuple(self.mask.shape)}, "
                f"expected the weight's {tuple(weight.shape)}"
            )
        return keep_where(self.mask, weight) if self.enforce else weight.clone()

    @torch.no_grad()
    def clear(self, leaves: tuple[Tensor, ...], born: Tensor) -> None:
        """Zero what is stored outside the mask; entries just ``born`` start at zero too."""
        for leaf in leaves:
            leaf.masked_fill_(~self.mask, 0)

    def get_extra_state(self) -> Tensor:
        """Return ``enforce`` as a 0-dim bool tensor, the form every checkpoint format can hold."""
        return torch.tensor(self.enforce)

    def set_extra_state(self, state: Tensor) -> None:
        """Take ``enforce`` from a checkpoint."""
        self.enforce = bool(state)

    def extra_repr(self) -> str:
        """Return the shape, the real density, and whether the mask is applied."""
        total = self.mask.numel()
        density = int(self.mask.count_nonzero()) / total if total else 1.0
        remembered = "" if self.enforce else ", enforce=False"
        return f"{tuple(self.mask.shape)}, density={density:.4g}{remembered}"


def as_mask(mask: Tensor) -> Tensor:
    """Return ``mask`` as a bool tensor; zeros and ones of any dtype are accepted.

    Raises:
        TypeError: if ``mask`` is not a tensor.
        ValueError: if it holds anything but zeros and ones.
    """
    if not isinstance(mask, Tensor):
        raise TypeError(f"mask must be a tensor, got {type(mask).__name__}")
    if mask.dtype == torch.bool:
        return mask
    if not bool(((mask == 0) | (mask == 1)).all()):
        raise ValueError("mask must hold zeros and ones only, got other values")
    return mask != 0
