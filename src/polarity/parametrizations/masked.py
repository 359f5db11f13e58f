"""A weight that is multiplied by its mask."""

from typing import Any, Protocol

import torch
from torch import Tensor, nn

from polarity._checks import check_flag, check_floating, check_shape
from polarity.parametrizations.arithmetic import check_mask, zero_outside_

__all__ = ["MaskedWeight"]


class InStep(Protocol):
    """What keeps a stored weight zero outside its mask between forward passes."""

    def covers(self, *stored: Tensor) -> bool:
        """Return whether these very tensors are kept zero, and their gradients are masked."""
        ...

    def project(self) -> None:
        """Zero what is stored outside the mask, which may be another one than before."""
        ...

    def remove(self) -> None:
        """Give the mask back to forward."""
        ...


class MaskedWeight(nn.Module):
    r"""Parametrization that multiplies a weight by a mask of zeros and ones.

    With stored values :math:`s` and mask :math:`M` the layer computes with

    .. math:: w = s \odot M

    in every forward pass and in every mode of PyTorch (eager, compiled, traced, exported, mapped,
    differentiated any number of times). No gradient reaches an entry outside the mask.

    The mask is a buffer of the shape and dtype of the weight, so it is saved, moved, converted and
    copied with the model, and it can be changed in place at any time. A stored NaN or infinity
    outside the mask shows as NaN; pruning stores zeros there.

    Attributes:
        mask: zeros and ones in the weight's dtype, 1 for a survivor. :func:`polarity.masks` gives
            bool tensors.
        enforce: with False the mask is remembered but not applied: the weight is what is stored
            (strategy ``standard``, dense phases). Part of the ``state_dict``.

    Args:
        mask: bool tensor, or a tensor of zeros and ones, of the weight's shape. It is copied.
        enforce: initial value of the attribute.

    Raises:
        ValueError: if the mask holds values other than 0 and 1, or, when the parametrization is
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
        check_mask(mask)
        check_flag("enforce", enforce)
        dtype = mask.dtype if mask.is_floating_point() else torch.float32
        self.register_buffer("mask", mask.detach().to(dtype, copy=True))
        self.enforce = bool(enforce)
        # Set by polarity.enforce_in_step, which takes the mask out of eager forward passes.
        self.in_step: InStep | None = None

    def forward(self, stored: Tensor) -> Tensor:
        """Return the effective weight, same shape and dtype as ``stored``."""
        if not self.applies(stored):
            return stored
        return stored * self.mask.to(stored.dtype)

    def applies(self, *stored: Tensor) -> bool:
        """Return whether forward multiplies by the mask."""
        return self.enforce and (self.in_step is None or not self.in_step.covers(*stored))

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Return what to store so that :meth:`forward` gives ``weight`` inside the mask.

        Always a new tensor: ``module.weight = x`` must not tie the module to the storage of ``x``.
        The mask takes the dtype of ``weight``.

        Raises:
            ValueError: if the shape of ``weight`` is not the mask's.
        """
        stored = self.to_store(weight, self.mask if self.enforce else None)
        self.mask = self.mask.to(weight.dtype)
        return stored

    def to_store(self, weight: Tensor, mask: Tensor | None) -> Tensor:
        """Return what to store for a weight under a mask that is enforced, None for none."""
        check_floating("weight", weight)
        check_shape("mask", None, self.mask.shape, weight.shape, "weight")
        stored = weight.clone()
        return stored if mask is None else zero_outside_(stored, mask)

    @torch.no_grad()
    def clear(self, leaves: tuple[Tensor, ...], born: Tensor | None = None) -> None:
        """Zero what is stored outside the mask; entries just ``born`` start at zero too."""
        for leaf in leaves:
            zero_outside_(leaf, self.mask)
        if self.in_step is not None:
            self.in_step.project()

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        """Load the mask; the stored weight, loaded before, is zeroed outside it."""
        super()._load_from_state_dict(*args, **kwargs)
        if self.in_step is not None:
            self.in_step.project()

    def get_extra_state(self) -> Tensor:
        """Return ``enforce`` as a 0-dim bool tensor, the form every checkpoint format can hold."""
        return torch.tensor(self.enforce)

    def set_extra_state(self, state: Tensor) -> None:
        """Take ``enforce`` from a checkpoint."""
        self.enforce = bool(state)

    def extra_repr(self) -> str:
        """Return the shape, the density, and whether the mask is applied."""
        described = str(tuple(self.mask.shape))
        if not self.mask.is_meta:
            total = self.mask.numel()
            density = int(self.mask.count_nonzero()) / total if total else 1.0
            described += f", density={density:.4g}"
        return described if self.enforce else f"{described}, enforce=False"

    def __getstate__(self) -> dict[str, Any]:
        """Leave enforcement in the step to the original: a copy masks in forward."""
        return {**self.__dict__, "in_step": None}
