"""A weight of which only the survivors exist, seen as the dense weight that it stands for."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn.functional import linear
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from polarity._csr import csr_linear, csr_times, has_gradients, in_one_piece, sampled_product
from polarity._running import map_tensors, under_transform
from polarity.parametrizations.places import Places

__all__ = ["SurvivorWeight", "weight_of"]


def weight_of(values: Tensor, places: Places, mask: Tensor) -> Tensor:
    """Return the weight with these survivors: a :class:`SurvivorWeight` where it is of use.

    That is in plain eager mode, for a weight that takes the sparse product, in a dtype that has
    one. While compiling, tracing, exporting or under a functional transform it is the dense weight.
    An ensemble's members have masks of their own, which ``vmap`` hands in.
    """
    if _is_plain_eager():
        if places.multiplies and has_gradients(values.device.type, values.dtype):
            return SurvivorWeight(values, places)
    elif not torch.compiler.is_compiling() and torch._C._functorch.is_batchedtensor(mask):
        return _scattered_by(mask, values)
    return places.scatter(values)


def _scattered_by(mask: Tensor, values: Tensor) -> Tensor:
    """Return the dense tensor with these survivors of a mask that has no values to read."""
    live = mask != 0
    if not values.numel():
        return torch.zeros_like(mask, dtype=values.dtype)
    rank = live.reshape(-1).cumsum(0).sub(1).clamp(0, values.shape[0] - 1)
    return values.gather(0, rank).view(mask.shape).where(live, 0.0)


class SurvivorWeight(Tensor):
    r"""The dense shape of a weight that is stored as its survivors.

    ``nn.functional.linear`` multiplies by the survivors alone: forward
    :math:`x W^\top` and the gradients of :math:`x` and of the survivors are three sparse products.
    Every other function, and every attribute but shape, dtype and device, gets the dense weight;
    gradients reach the survivors all the same. :func:`polarity.compact` makes layers read it, in
    plain eager mode alone: while compiling, tracing, exporting or under a functional transform they
    read the dense weight.

    Attributes:
        stored: (survivors,), in row-major order.
        places: where they are.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> import polarity as pol
        >>> layer = nn.Linear(3, 2)
        >>> _ = pol.load_masks(layer, {"weight": torch.tensor([[1, 0, 0], [0, 0, 1]])})
        >>> _ = pol.compact(layer, break_even=1.0)
        >>> type(layer.weight).__name__, layer.weight.stored.shape, layer.weight.shape
        ('SurvivorWeight', torch.Size([2]), torch.Size([2, 3]))
        >>> layer.weight.dense.count_nonzero()
        tensor(2)
    """

    stored: Tensor
    places: Places

    @staticmethod
    def __new__(cls, values: Tensor, places: Places) -> "SurvivorWeight":
        """Return a tensor of the dense shape without memory of its own."""
        return Tensor._make_wrapper_subclass(
            cls,
            places.shape,
            dtype=values.dtype,
            device=values.device,
            requires_grad=values.requires_grad,
        )

    def __init__(self, values: Tensor, places: Places) -> None:
        self.stored, self.places = values, places

    @property
    def dense(self) -> Tensor:
        """The dense weight, a new tensor; gradients reach the survivors."""
        return self.places.scatter(self.stored)

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Multiply by the survivors, or hand on the dense weight."""
        kwargs = kwargs or {}
        if func in _DESCRIBING:
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **kwargs)
        if func is linear:
            return _linear(*args, **kwargs)
        if func in _ON_GRADIENTS:
            raise RuntimeError(
                f"{func.__name__} of a compact weight, which has no gradient of its own: call it "
                "on what is stored (weight.stored, or the layer's parameters), or call "
                "expand(model, optimizer=optimizer) first"
            )
        return func(*map_tensors(_dense, tuple(args)), **map_tensors(_dense, dict(kwargs)))

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Hand on the dense weight to what goes past ``__torch_function__``."""
        return func(*map_tensors(_dense, tuple(args)), **map_tensors(_dense, dict(kwargs or {})))


# What a weight can say of itself without being computed.
_DESCRIBING = {
    *(getattr(Tensor, name) for name in ("size", "dim", "ndimension", "numel", "element_size")),
    *(getattr(Tensor, name) for name in ("is_floating_point", "is_complex", "__len__")),
    *(
        getattr(Tensor, name).__get__
        for name in ("shape", "dtype", "device", "ndim", "layout", "requires_grad", "itemsize")
    ),
    *(
        getattr(Tensor, name).__get__
        for name in ("is_cuda", "is_cpu", "is_meta", "is_sparse", "is_nested", "is_quantized")
    ),
}


# What would be done to a dense weight that nothing else sees.
_ON_GRADIENTS = {Tensor.register_hook, Tensor.retain_grad}


def _dense(value: Tensor) -> Tensor:
    return value.dense if isinstance(value, SurvivorWeight) else value


def _linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Do what ``nn.functional.linear`` does, by the sparse product where there is one."""
    kind = input.device.type
    if not isinstance(weight, SurvivorWeight) or not _multiplies(input, weight, bias):
        given = None if bias is None else _dense(bias)
        return linear(_dense(input), _dense(weight), given)
    values, places = weight.stored, weight.places
    if not torch.is_autocast_enabled(kind):
        return _SparseLinear.apply(input, values, bias, places)  # type: ignore[no-any-return]
    dtype = torch.get_autocast_dtype(kind)
    with torch.autocast(kind, enabled=False):
        bias = None if bias is None else bias.to(dtype)
        return _SparseLinear.apply(input.to(dtype), values.to(dtype), bias, places)  # type: ignore[no-any-return]


def _multiplies(x: Tensor, weight: SurvivorWeight, bias: Tensor | None) -> bool:
    """Whether there is a sparse product for these operands, as they are."""
    kind, dtype = x.device.type, weight.stored.dtype
    dtypes = {x.dtype, dtype} | (set() if bias is None else {bias.dtype})
    if torch.is_autocast_enabled(kind):
        dtype = torch.get_autocast_dtype(kind)
        if not dtypes <= _CAST:
            return False
    elif dtypes != {dtype}:
        return False
    return (
        type(x) in _PLAIN
        and (bias is None or (type(bias) in _PLAIN and bias.shape == weight.places.shape[:1]))
        and x.layout is torch.strided
        and not x.is_nested
        and x.dim() > 0
        and x.shape[-1] == weight.places.shape[-1]
        and x.numel() > 0
        and len(weight.places.shape) == 2
        and x.device == weight.stored.device
        and has_gradients(kind, dtype)
        and _is_plain_eager()
    )


_PLAIN = (Tensor, torch.nn.Parameter)
# What autocast converts; float64 stays as it is.
_CAST = {torch.float32, torch.float16, torch.bfloat16}


class _SparseLinear(torch.autograd.Function):
    """x Wᵀ + b over the survivors of W, and its gradients at them."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, values: Tensor, bias: Tensor | None, places: Places) -> Tensor:
        ctx.places = places
        matrix, shape = places.matrix(values), (places.shape[0], places.shape[1])
        flat = x.reshape(-1, shape[1])
        if not in_one_piece(flat):
            ctx.save_for_backward(x, values, None)
            return csr_linear(x, matrix, bias, shape)
        # Kept for the gradient of the survivors, which would copy them again.
        columns = flat.t().contiguous()
        ctx.save_for_backward(x, values, columns)
        product = csr_times(matrix, columns, bias, shape).t().contiguous()
        return product.view(*x.shape[:-1], shape[0])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, values, columns = ctx.saved_tensors
        places: Places = ctx.places
        of_x, of_values, of_bias = ctx.needs_input_grad[:3]
        outputs, inputs = places.shape
        rows, seen = gradient.reshape(-1, outputs), x.reshape(-1, inputs)
        grad_x = grad_values = None
        # A gradient that is differentiated or mapped itself is made of functions that can be.
        batched = torch._C._functorch.is_legacy_batchedtensor(gradient)  # is_grads_batched
        if torch.is_grad_enabled() or batched or not _is_plain_eager():
            if of_x:
                grad_x = gradient @ places.scatter(values)
            if of_values:
                grad_values = places.gather(rows.t() @ seen)
        else:
            turned = rows.t()
            if in_one_piece(rows):
                turned = turned.contiguous()
            if of_x and in_one_piece(rows):
                product = csr_times(places.transposed(values), turned, None, (inputs, outputs))
                # In the order of x: a gradient in another one slows down what comes before.
                grad_x = product.t().contiguous().view(x.shape)
            elif of_x:
                grad_x = csr_linear(gradient, places.transposed(values), None, (inputs, outputs))
            if of_values:
                right = seen if columns is None else columns.t()
                grad_values = sampled_product(turned, right, *places.rows)
        grad_bias = rows.sum(0) if of_bias else None
        return grad_x, grad_values, grad_bias, None


def _is_plain_eager() -> bool:
    """Whether tensors are computed here and now, without a transform or a recording around it."""
    return not (under_transform() or is_in_torch_dispatch_mode() or forward_ad._current_level >= 0)
