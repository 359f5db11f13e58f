"""Leaves known to be zero outside a mask: what such a leaf holds need not be masked again."""

import weakref
from typing import Any

import torch
from torch import Tensor, nn

from polarity.parametrizations.keep_where import BITS, clear_outside, is_transformed, keep_where

__all__ = ["KeptZeros", "can_rely", "is_due", "leaks", "seen_directly", "zeros_of"]

_of_leaf: dict[int, "KeptZeros"] = {}


class KeptZeros:
    """What is known of the zeros of one trained leaf.

    A certificate says: the leaf, at this version of its memory, is zero outside this mask, at this
    version of the mask. Any write through PyTorch raises a version and so voids it; only what was
    looked at, or what an optimizer known to leave zeros alone has done, gives a new one.

    Attributes:
        refused: True once zeros were lost behind a valid certificate; there will be no other.
        used: whether a forward pass has relied on the certificate since it was given.
        noted: the gradient as it was accumulated last, by identity and version.
        steps: how many steps of optimizers were followed.
        treated: how often the last of them wrote to the leaf, and others to its gradient.
        left: what tells the optimizer's state as that step has left it.
    """

    def __init__(self, leaf: Tensor) -> None:
        key = id(leaf)
        self._leaf = weakref.ref(leaf, lambda _: _of_leaf.pop(key, None))
        self._mask: Any = _nothing
        self._at: tuple[int, int, int] | None = None
        self._looked: tuple[int, int, int] | None = None
        self._looks = 0
        self._awaited: Tensor | None = None
        self._fresh = False
        self.refused = False
        self.used = False
        self.noted: tuple[int, int] | None = None
        self.steps = 0
        self.treated: tuple[int, bool, int] | None = None
        self.left: tuple[int, ...] | None = None
        leaf.register_post_accumulate_grad_hook(self._accumulated)  # type: ignore[no-untyped-call]
        _of_leaf[key] = self

    @property
    def leaf(self) -> Tensor | None:
        """The leaf, while it exists."""
        return self._leaf()

    @property
    def mask(self) -> Tensor | None:
        """The mask that the certificate is about, while it exists."""
        mask: Tensor | None = self._mask()
        return mask

    def hold(self, leaf: Tensor, mask: Tensor) -> bool:
        """Whether there is a valid certificate for this leaf and this mask."""
        # The leaf is compared too: another one may have got the ``id`` of one that is gone.
        return self._leaf() is leaf and self._mask() is mask and self._at == _moment(leaf, mask)

    def certify(self, leaf: Tensor, mask: Tensor) -> None:
        """Give a certificate for this moment; the caller knows that the zeros are there."""
        self._mask, self._at, self.used = weakref.ref(mask), _moment(leaf, mask), False

    def void(self) -> None:
        """Withdraw the certificate until the leaf has been looked at again."""
        self._at = None

    def look(self, leaf: Tensor, mask: Tensor) -> bool:
        """Give a certificate if the leaf is zero outside the mask, and return whether.

        Looks at most once at the same values, so that a recomputed forward pass decides alike, and
        ever more rarely where the values were written by others again and again.
        """
        moment = _moment(leaf, mask)
        if self.refused or self._looked == moment:
            return False
        if self._mask() is not mask or (self._looked or moment)[2] != moment[2]:
            self._looks = 0
        self._mask, self._looked = weakref.ref(mask), moment
        self._looks += 1
        shared = leaf.is_shared()  # type: ignore[no-untyped-call]
        if not is_due(self._looks) or shared or leaks(leaf, mask, signed=True):
            return False
        self.certify(leaf, mask)
        self._looked = None
        return True

    def await_gradient(self, leaf: Tensor, mask: Tensor) -> bool:
        """Promise to mask the gradient in place once it lies in ``leaf.grad``, if nobody sees it.

        Returns:
            False where a hook of somebody else would see it unmasked before.
        """
        hooks = leaf._post_accumulate_grad_hooks
        if leaf._backward_hooks or hooks is None or len(hooks) > 1:
            return False
        self._awaited, self._fresh = mask, leaf.grad is None
        return True

    def _accumulated(self, leaf: Tensor) -> None:
        mask, self._awaited = self._awaited, None
        gradient = leaf.grad
        if gradient is None:
            return
        if mask is not None:
            if self._fresh and not _is_sole_owner(gradient):
                leaf.grad = gradient = keep_where(mask, gradient)
            else:
                clear_outside(mask, gradient)
        self.noted = (id(gradient), gradient._version)


def zeros_of(leaf: Tensor) -> KeptZeros | None:
    """Return what is known of the zeros of a leaf, or None if nothing is."""
    kept = _of_leaf.get(id(leaf))
    return kept if kept is not None and kept.leaf is leaf else None


def can_rely(mask: Tensor, *leaves: Tensor) -> bool:
    """Whether all ``leaves`` are known to be zero outside ``mask`` and no mask is needed.

    The first time, and after somebody other than a known optimizer wrote to a leaf, the leaf is
    looked at. Never under a compiler, a transform of torch.func, a tracer or a dispatch mode, while
    a CUDA graph is captured, without autograd, or for a tensor that is no leaf: there the mask is
    always applied.
    """
    if (
        is_transformed(mask)
        or not torch.is_grad_enabled()
        or torch._C._len_torch_dispatch_stack()
        or torch._C._get_tracing_state() is not None
        or (mask.is_cuda and torch.cuda.is_current_stream_capturing())
    ):
        return False
    for leaf in leaves:
        kept = _of_leaf.get(id(leaf))
        if kept is None or not kept.hold(leaf, mask):
            if not _is_ordinary(leaf, mask):
                return False
            kept = zeros_of(leaf) or KeptZeros(leaf)
            if not kept.look(leaf, mask):
                return False
        kept.used = True
    return True


def seen_directly(leaf: Tensor, mask: Tensor) -> Tensor:
    """Return the leaf's own values, as a tensor that passes on no gradient outside the mask."""
    result: Tensor = _SeenDirectly.apply(leaf, mask, _of_leaf[id(leaf)])
    return result


@torch.no_grad()
def leaks(values: Tensor, mask: Tensor, *, signed: bool = False) -> bool:
    """Whether anything but zero stands outside the mask; with ``signed``, anything but ``+0.0``."""
    held = values.view(BITS[values.dtype]) if signed and values.dtype in BITS else values
    return bool((held != 0).logical_and_(~mask.to(values.device)).any())


def is_due(count: int) -> bool:
    """Whether to look at the ``count``-th occasion: 1, 2, 4, …, 64, and every 64th."""
    return count & (count - 1) == 0 if count < 64 else count % 64 == 0


class _SeenDirectly(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, leaf: Tensor, mask: Tensor, kept: KeptZeros) -> Tensor:
        ctx.mask, ctx.kept = mask, kept
        return leaf.view_as(leaf)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        # In place is cheapest, but a gradient is our own only after it was accumulated.
        if not torch.is_grad_enabled() and _accumulates(ctx.next_functions[0][0]):
            leaf = ctx.kept.leaf
            if leaf is not None and ctx.kept.await_gradient(leaf, ctx.mask):
                return grads[0], None, None
        return keep_where(ctx.mask, grads[0]), None, None


def _accumulates(node: Any) -> bool:
    """Whether the gradient will be added to ``leaf.grad``, and not be returned by autograd.grad."""
    try:
        return bool(torch._C._will_engine_execute_node(node))
    except (AttributeError, RuntimeError):  # autograd.grad has asked for this very gradient
        return False


def _is_sole_owner(gradient: Tensor) -> bool:
    """Whether no other tensor shares the memory; autograd may hand one gradient to two leaves."""
    uses = getattr(torch._C, "_storage_Use_Count", None)
    # One is the gradient, one the storage object made to ask.
    return uses is not None and uses(gradient.untyped_storage()._cdata) <= 2


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
