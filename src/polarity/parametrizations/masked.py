"""A weight that is multiplied by its mask."""

import math
import warnings
from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from typing_extensions import Self

from polarity._checks import check_flag, check_floating, check_shape
from polarity._shards import is_sharded, piece_of
from polarity.parametrizations.arithmetic import (
    can_be_read,
    check_mask,
    count_ones,
    zero_gradient_outside_,
    zero_outside_,
)
from polarity.parametrizations.places import Places
from polarity.parametrizations.survivor_weight import weight_of

__all__ = ["MaskedWeight", "NotEnforced"]


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


class NotEnforced:
    """What stands in for enforcement in the step on a sharded mask, until that begins.

    Forward has the whole weight and no rank the whole mask, so that training needs enforcement.
    Without gradients the stored zeros are enough.
    """

    def __init__(self, masking: "MaskedWeight") -> None:
        self._masking = masking

    def covers(self, *stored: Tensor) -> bool:
        """Refuse to train with the whole weight; what is stored is zero outside the mask."""
        if torch.is_grad_enabled() and not is_sharded(stored[0]):
            raise RuntimeError(
                f"the mask of {self._masking.name!r} is sharded and forward cannot apply it, "
                "expected it to be enforced in the optimizer's step: call "
                "enforce_in_step(model, optimizer) after fully_shard"
            )
        return True

    def project(self) -> None:
        """Do nothing: who changes the mask zeroes what is stored outside it."""

    def remove(self) -> None:
        """Leave the mask to forward, as of a weight that is whole again."""
        self._masking.in_step = None


class MaskedWeight(nn.Module):
    r"""Parametrization that multiplies a weight by a mask of zeros and ones.

    With stored values :math:`s` and mask :math:`M` the layer computes with

    .. math:: w = s \odot M

    in every forward pass and in every mode of PyTorch (eager, compiled, traced, exported, mapped,
    differentiated any number of times). No gradient reaches an entry outside the mask.

    The mask is a buffer of the shape and dtype of the weight, so it is saved, moved, converted and
    copied with the model, and it can be changed in place at any time. A stored NaN or infinity
    outside the mask shows as NaN; pruning stores zeros there. A mask that others gave back pruned
    entries, or values between 0 and 1 (averages of models do both), is reported once: by the next
    polarity call, by ``train()`` or ``eval()`` when the mode changes, by ``state_dict()``, or by
    the ``load_state_dict`` that brings fractions.

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
        # How many ones polarity last wrote; None where that is unknown, or once reported.
        self.written = check_mask(mask)
        check_flag("enforce", enforce)
        dtype = mask.dtype if mask.is_floating_point() else torch.float32
        self.register_buffer("mask", mask.detach().to(dtype, copy=True))
        self.enforce = bool(enforce)
        # The plain name of the weight, and whether the mask has taken the weight's dtype.
        self.name = ""
        self.placed = False
        # Set by polarity.enforce_in_step, which takes the mask out of eager forward passes.
        self.in_step: InStep | None = None
        # Where the survivors are if nothing else is stored (polarity.compact), or None; and whether
        # a call has spread them out, so that what is stored is dense until it ends.
        self.places: Places | None = None
        self.spread = False

    def forward(self, stored: Tensor) -> Tensor:
        """Return the effective weight: of the mask's shape, and the dtype of ``stored``."""
        if (places := self.stored_places) is not None:
            return weight_of(stored, places, self.mask)
        if not self.applies(stored):
            return stored
        return stored * self.mask.to(stored.dtype)

    def of_pieces(self, stored: tuple[Tensor, ...], mask: Tensor | None) -> Tensor:
        """Return this rank's piece of the effective weight, under a piece of the mask or none."""
        (weight,) = stored
        return weight if mask is None else weight * mask.to(weight.dtype)

    @property
    def stored_places(self) -> Places | None:
        """Where the entries are that are stored; None if all are."""
        return None if self.spread else self.places

    def applies(self, *stored: Tensor) -> bool:
        """Return whether forward multiplies by the mask."""
        return self.enforce and (self.in_step is None or not self.in_step.covers(*stored))

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Return what to store so that :meth:`forward` gives ``weight`` inside the mask.

        Always a new tensor: ``module.weight = x`` must not tie the module to the storage of ``x``.
        When the parametrization is registered, the mask takes the dtype of the weight.

        Raises:
            ValueError: if the shape of ``weight`` is not the mask's.
        """
        stored = self.to_store(weight, self.mask if self.enforce else None)
        self._take_dtype(weight)
        return stored

    def _take_dtype(self, weight: Tensor) -> None:
        """Give the mask the dtype of the weight that it is registered on; assignments do not."""
        if not self.placed:
            self.mask = self.mask.to(weight.dtype)
            self.placed = True

    def to_store(self, weight: Tensor, mask: Tensor | None) -> Tensor:
        """Return what to store for a weight under a mask that is enforced, None for none."""
        check_floating("weight", weight)
        expected = piece_of(self.mask if mask is None else mask).shape
        check_shape("mask", None, expected, weight.shape, "weight")
        if (places := self.stored_places) is not None:
            return places.gather(weight)
        stored = weight.clone()
        return stored if mask is None else zero_outside_(stored, mask)

    @torch.no_grad()
    def clear(self, leaves: tuple[Tensor, ...], ones: int | None = None) -> None:
        """Zero what is stored outside a mask just written, and its gradients.

        Args:
            leaves: what the weight is stored as.
            ones: how many ones the mask has now; by default as many as are noted. Not counted
                here, because what comes after a write must not fail.
        """
        if ones is not None:
            self.written = ones
        if self.stored_places is not None:
            return
        for leaf in leaves:
            zero_outside_(leaf, self.mask)
        self.clear_gradients(leaves)
        if self.in_step is not None:
            self.in_step.project()

    @torch.no_grad()
    def clear_gradients(self, leaves: tuple[Tensor, ...]) -> None:
        """Zero the gradients that the leaves have accumulated outside an enforced mask."""
        for leaf in leaves if self.enforce and self.stored_places is None else ():
            zero_gradient_outside_(leaf, self.mask)

    def take_as_written(self, leaves: tuple[Tensor, ...]) -> None:
        """Take a mask that a file brought for polarity's own, and zero gradients outside it."""
        self.written = self._ones()
        self.clear_gradients(leaves)

    def notice(self, ones: int | None, name: str) -> None:
        """Report once that the mask is not as polarity wrote it.

        Args:
            ones: how many ones it has now, None if it holds other values than zeros and ones.
            name: of the weight, for the report.
        """
        if self.written is None or (ones is not None and ones <= self.written):
            return
        what = (
            "holds values other than 0 and 1"
            if ones is None
            else f"has {ones} ones, {ones - self.written} more than polarity last wrote"
        )
        self.written = None
        warnings.warn(
            f"the mask of {name!r} was changed from outside: it {what}, as after averaging models "
            "or copying buffers. Restore it with pol.load_masks(average, pol.masks(model))",
            stacklevel=3,
        )

    def _ones(self) -> int | None:
        """Count the ones here; None if the mask holds other values, or its values are unknown."""
        mask = piece_of(self.mask)
        try:
            return count_ones(mask) if can_be_read(mask) else None
        except ValueError:
            return None

    def _look(self) -> None:
        """Report a mask that was changed from outside, where that can be seen."""
        if self.written is not None and can_be_read(piece_of(self.mask)):
            self.notice(self._ones(), self.name)

    def train(self, mode: bool = True) -> Self:
        """Change the mode; a change is an occasion to look at the mask, forward passes are not."""
        if mode != self.training:
            self._look()
        return super().train(mode)

    def _save_to_state_dict(self, *args: Any, **kwargs: Any) -> None:
        """Look at the mask before it goes into a checkpoint."""
        self._look()
        super()._save_to_state_dict(*args, **kwargs)

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        """Load the mask; with enforcement in the step, what is stored is zeroed outside it."""
        given, before = state_dict.get(f"{prefix}mask"), self.mask
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        if given is not None and given is not before:  # a dense checkpoint brings none
            self.written = self._ones()
            if self.written is None and can_be_read(piece_of(self.mask)):
                self.written = 0
                self.notice(None, self.name)
        if self.in_step is not None:
            self.in_step.project()

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        """Move the mask; one without values (meta) that was all ones is so again in real memory."""
        unknown = self.mask.is_meta
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if unknown and not self.mask.is_meta:
            self.mask.fill_(1 if self.written == self.mask.numel() else math.nan)
        if self.places is not None:
            self.places = self.places.to(self.mask.device)
        return self

    def get_extra_state(self) -> Tensor:
        """Return ``enforce`` as a 0-dim bool tensor, the form every checkpoint format can hold."""
        return torch.tensor(self.enforce, device="cpu")

    def set_extra_state(self, state: Tensor) -> None:
        """Take ``enforce`` from a checkpoint."""
        self.enforce = bool(state)

    def extra_repr(self) -> str:
        """Return the shape, the density, and whether the mask is applied."""
        described = str(tuple(self.mask.shape))
        if is_sharded(self.mask):  # counting would make other ranks wait
            described += ", sharded"
        elif not self.mask.is_meta:
            total = self.mask.numel()
            density = int(self.mask.count_nonzero()) / total if total else 1.0
            described += f", density={density:.4g}"
        if self.places is not None:
            described += ", compact"
        return described if self.enforce else f"{described}, enforce=False"

    def __getstate__(self) -> dict[str, Any]:
        """Leave enforcement in the step to the original: a copy masks in forward."""
        return {**self.__dict__, "in_step": None}
