"""Leaves known to be zero outside a mask: what such a leaf holds need not be masked again."""

import warnings
import weakref
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from polarity.parametrizations.keep_where import BITS

__all__ = ["KeptZeros", "can_rely", "forget", "is_due", "leaks", "zeros_of"]

_of_leaf: dict[int, "KeptZeros"] = {}
_WIDE_UP_TO = 2**18
_PART = 2**16
_LOOK_AFTER = 64


class KeptZeros:
    """What is known of the zeros of one trained leaf.

    A certificate says: the leaf, at this version of its memory, is zero outside this mask, at this
    version of the mask. Any write through PyTorch raises a version and so voids it; only what was
    looked at, or what an optimizer known to leave zeros alone has done, gives a new one.

    Attributes:
        at: the certificate, the versions of leaf and mask and the leaf's address; None without.
        leaf_ref: a weak reference to the leaf.
        mask_ref: one to the mask that the certificate is about, or was.
        bits: the mask as wide integers, for gradients.
        bits_at: the version of the mask and the dtype of the leaf that they were made for.
        refused: True once zeros were lost behind a valid certificate; there will be no other.
        used: how many forward passes have relied on the certificate since it was given.
        masked: address and version of the gradient that was masked last.
        arrived: those of the gradient that came to be accumulated last.
        arrivals: how many came since the last step.
        mixed: whether one of them was not the one that was masked, alone.
        steps: how many steps of optimizers were followed.
        versions: those of the optimizer's state as the last of them left it.
        usual: what that step did: who, and how often it wrote to what.
        made: how many leaves something was ever known of.
    """

    __slots__ = (
        *("__weakref__", "_looked", "_looks", "arrivals", "arrived", "at", "bits", "bits_at"),
        *("leaf_ref", "mask_ref", "masked", "mixed", "refused", "steps", "used", "usual"),
        "versions",
    )
    made: ClassVar[int] = 0

    def __init__(self, leaf: Tensor) -> None:
        key = id(leaf)
        self.leaf_ref = weakref.ref(leaf, lambda _: _of_leaf.pop(key, None))
        self.mask_ref: Any = _nothing
        self.at: tuple[int, int, int] | None = None
        self._looked: tuple[int, int, int] | None = None
        self._looks = 0
        self.bits: Tensor | None = None
        self.bits_at: tuple[int, torch.dtype] | None = None
        self.refused = self.mixed = False
        self.masked: tuple[int, int] | None = None
        self.arrived: tuple[int, int] | None = None
        self.used = self.arrivals = self.steps = 0
        self.versions: dict[str, int] = {}
        self.usual: list[int] = []
        leaf.register_hook(self._arriving)  # type: ignore[no-untyped-call]
        _of_leaf[key] = self
        KeptZeros.made += 1

    def certify(self, leaf: Tensor, mask: Tensor) -> None:
        """Give a certificate for this moment; the caller knows that the zeros are there."""
        self._turn_to(mask)
        self.at, self.used = _moment(leaf, mask), 0

    def void(self) -> None:
        """Withdraw the certificate until the leaf has been looked at again."""
        self.at = None

    def check(self) -> None:
        """Withdraw the certificate if somebody wrote to the leaf since it was given."""
        leaf = self.leaf_ref()
        if self.at is None or leaf is None or leaf._version != self.at[0]:
            self.at = None

    def look(self, leaf: Tensor, mask: Tensor) -> bool:
        """Give a certificate if the leaf is zero outside the mask, and return whether.

        Looks at most once at the same values, so that a recomputed forward pass decides alike, and
        ever more rarely where the values were written by others again and again.
        """
        moment = _moment(leaf, mask)
        if self.refused or self._looked == moment:
            return False
        if self.mask_ref() is not mask or (self._looked or moment)[2] != moment[2]:
            self._looks = 0
        self._turn_to(mask)
        self._looked = moment
        self._looks += 1
        shared = leaf.is_shared()  # type: ignore[no-untyped-call]
        if not is_due(self._looks) or shared or leaks(leaf, mask, signed=True):
            return False
        self.certify(leaf, mask)
        self._looked = None
        return True

    def still(self, leaf: Tensor, mask: Tensor) -> bool:
        """Look once more, where no step of an optimizer has for long, and return whether to rely.

        Writes that raise no version are found so too.
        """
        if leaks(leaf, mask):
            self.refuse("something that PyTorch does not note moved")
            return False
        self.used = 1
        return True

    def refuse(self, what: str) -> None:
        """Give no certificate any more, and say why."""
        self.refused, self.at = True, None
        leaf = self.leaf_ref()
        shape = "" if leaf is None else f" of a weight of shape {tuple(leaf.shape)}"
        warnings.warn(
            f"{what} pruned entries{shape}, where all had been zero: were gradients changed "
            "between backward and step, by noise for example? The mask of this weight is applied "
            "in every forward pass from here on, see polarity.mask_shortcut",
            stacklevel=2,
        )

    def mask_of_gradients(self, leaf: Tensor, mask: Tensor) -> Tensor:
        """Return the mask, or one of integers as wide as the leaf's entries, 0 and -1.

        Bitwise they mask faster. They are kept for leaves that fit in a cache; beyond, reading so
        much more costs what it saves.
        """
        at = mask._version, leaf.dtype
        if self.bits is not None and self.bits_at == at and self.mask_ref() is mask:
            return self.bits
        if leaf.numel() > _WIDE_UP_TO or leaf.dtype not in BITS or not leaf.is_cpu:
            return mask
        self.bits, self.bits_at = mask.to(BITS[leaf.dtype]).neg_(), at
        return self.bits

    def _turn_to(self, mask: Tensor) -> None:
        if self.mask_ref() is not mask:
            self.mask_ref, self.bits, self.at = weakref.ref(mask, self._forget), None, None

    def _forget(self, _: object) -> None:
        self.bits = None

    def _arriving(self, gradient: Tensor) -> None:
        self.arrived = gradient.data_ptr(), gradient._version
        self.arrivals += 1
        if self.arrived != self.masked:
            self.mixed = True


def zeros_of(leaf: Tensor) -> KeptZeros | None:
    """Return what is known of the zeros of a leaf, or None if nothing is."""
    kept = _of_leaf.get(id(leaf))
    return kept if kept is not None and kept.leaf_ref() is leaf else None


def can_rely(mask: Tensor, *leaves: Tensor) -> bool:
    """Whether all ``leaves`` are known to be zero outside ``mask`` and no mask is needed.

    The first time, and after somebody other than a known optimizer wrote to a leaf, the leaf is
    looked at. Never under a compiler, a transform of torch.func, a tracer or a dispatch mode, while
    a CUDA graph is captured, without autograd, or for a tensor that is no leaf: there the mask is
    always applied.
    """
    if (
        torch.compiler.is_compiling()
        or not torch.is_grad_enabled()
        or torch._C._are_functorch_transforms_active()
        or torch._C._len_torch_dispatch_stack()
        or torch._C._get_tracing_state() is not None
        or (mask.is_cuda and torch.cuda.is_current_stream_capturing())
    ):
        return False
    for leaf in leaves:
        kept = _of_leaf.get(id(leaf))
        # Done for every weight in every forward, where a call costs as much as what it does.
        # The leaf is compared too: another one may have got the ``id`` of one that is gone.
        if (
            kept is None
            or kept.at != (leaf._version, leaf.data_ptr(), mask._version)
            or kept.mask_ref() is not mask
            or kept.leaf_ref() is not leaf
        ):
            if not _is_ordinary(leaf, mask):
                return False
            kept = zeros_of(leaf) or KeptZeros(leaf)
            if not kept.look(leaf, mask):
                return False
        kept.used += 1
        if kept.used >= _LOOK_AFTER and not kept.still(leaf, mask):
            return False
    return True


def forget(*leaves: Tensor) -> None:
    """Let go of what is known of leaves that are about to be trained without a mask."""
    if not torch.compiler.is_compiling():
        for leaf in leaves:
            if (kept := _of_leaf.get(id(leaf))) is not None:
                kept.void()


@torch.no_grad()
def leaks(values: Tensor, mask: Tensor, *, signed: bool = False) -> bool:
    """Whether anything but zero stands outside the mask; with ``signed``, anything but ``+0.0``."""
    mask, dtype = mask.to(values.device), BITS.get(values.dtype)
    if dtype is None or not (values.is_cpu and values.is_contiguous() and mask.is_contiguous()):
        whole = values.view(dtype) if signed and dtype is not None else values
        return bool((whole != 0).logical_and_(~mask).any())
    # In parts that fit a cache, and by numpy, five times as fast.
    bits, inside = values.view(dtype).view(-1).numpy(), mask.view(-1).numpy()
    for start in range(0, bits.size, _PART):
        part = slice(start, start + _PART)
        held = bits[part] if signed else bits[part] << 1  # without the sign
        outside = held != 0
        if np.greater(outside, inside[part], out=outside).any():
            return True
    return False


def is_due(count: int) -> bool:
    """Whether to look at the ``count``-th occasion: 1, 2, 4, …, 64, and every 64th."""
    return count & (count - 1) == 0 if count < 64 else count % 64 == 0


def _moment(leaf: Tensor, mask: Tensor) -> tuple[int, int, int]:
    # The address betrays ``leaf.data = …``, which no version does.
    return leaf._version, leaf.data_ptr(), mask._version


def _is_ordinary(leaf: Tensor, mask: Tensor) -> bool:
    return (
        type(leaf) in (Tensor, nn.Parameter)
        and leaf.is_leaf
        and leaf.requires_grad
        and leaf.layout == torch.strided
        and leaf.is_floating_point()
        and leaf.shape == mask.shape
        and leaf.device == mask.device
        and not (leaf.is_meta or leaf.is_inference() or mask.is_inference())
    )


def _nothing() -> None:
    return None
