"""A linear layer that stores only its non-zero weights."""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from polarity._csr import CSR, csr_linear, decode, encode, has_kernel, why_invalid

__all__ = ["SparseLinear", "make_dense", "make_sparse", "sparse_twin"]

BUFFERS = ("values", "crow_indices", "col_indices")


class SparseLinear(nn.Module):
    r"""A linear layer that computes a sparse product.

    Computes :math:`x W^\top + b` for inputs with any number of dimensions. The weight is stored in
    three buffers, ``values``, ``crow_indices`` and ``col_indices`` (compressed sparse rows, 32-bit
    indices), which are also the entries of the ``state_dict``; :attr:`weight` is computed when
    read.

    It is for inference: the weight is constant. Gradients reach the input and the bias. Where
    PyTorch has no sparse product (under autocast, in half precision on CPU, for nested tensors) the
    layer computes with the dense weight, as ``nn.Linear`` does, and slowly.

    :func:`polarity.deploy.compress` and :func:`polarity.deploy.restore` create these layers; the
    class cannot be instantiated.
    """

    in_features: int
    out_features: int
    bias: nn.Parameter | None
    values: Tensor
    crow_indices: Tensor
    col_indices: Tensor
    dense_class: type[nn.Linear]
    weight_requires_grad: bool

    def __init__(self) -> None:
        raise TypeError("SparseLinear is created from a nn.Linear by polarity.deploy.compress")

    @property
    def shape(self) -> tuple[int, int]:
        """Features out and in."""
        return self.out_features, self.in_features

    @property
    def matrix(self) -> CSR:
        """The buffers as one value."""
        return CSR(self.values, self.crow_indices, self.col_indices)

    @property
    def weight(self) -> Tensor:
        """The dense weight (out, in), computed at every access; not a parameter."""
        return decode(self.matrix, self.shape)

    def forward(self, x: Tensor) -> Tensor:
        """Return the layer's output, (..., out) for x of (..., in).

        Raises:
            ValueError: if the last dimension of ``x`` is not ``in_features``.
        """
        device = x.device.type
        bias = self._parameters["bias"]
        if (
            x.is_nested
            or x.layout is not torch.strided
            or not has_kernel(device, x.dtype)
            or torch.is_autocast_enabled(device)
        ):
            return F.linear(x, self.weight, bias)
        shape = self.out_features, self.in_features
        if x.dim() == 0 or x.shape[-1] != shape[1]:
            raise ValueError(
                f"x has the shape {tuple(x.shape)}, expected its last dimension to be "
                f"in_features={self.in_features}"
            )
        # Faster than nn.Module's __getattr__: a small product takes microseconds.
        buffers: Any = self._buffers
        matrix = CSR(buffers["values"], buffers["crow_indices"], buffers["col_indices"])
        return csr_linear(x, matrix, bias, shape)

    def extra_repr(self) -> str:
        """Return the text between the brackets when the layer is printed."""
        density = self.values.numel() / max(1, self.in_features * self.out_features)
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"bias={self.bias is not None}, density={density:.4g}"
        )

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        has_kernel(self.values.device.type, self.values.dtype)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, metadata: Any, strict: bool,
        missing: list[str], unexpected: list[str], errors: list[str],
    ) -> None:  # fmt: skip
        """Load this layer's buffers, with any number of entries, or the weight of a dense layer."""
        dense = state_dict.get(f"{prefix}weight")
        if isinstance(dense, Tensor) and f"{prefix}values" not in state_dict:
            if dense.shape != self.shape:
                errors.append(
                    f"size mismatch for {prefix}weight: {tuple(dense.shape)} in the checkpoint, "
                    f"{self.shape} in the layer"
                )
                return
            state_dict = {k: v for k, v in state_dict.items() if k != f"{prefix}weight"}
            given = encode(dense)
            state_dict.update(zip((prefix + name for name in BUFFERS), given, strict=True))
        else:
            held: list[Any] = [state_dict.get(f"{prefix}{name}") for name in BUFFERS]
            given = CSR(*held) if all(isinstance(each, Tensor) for each in held) else self.matrix
            wrong = why_invalid(given, self.shape)
            if wrong is not None:
                errors.append(f"the sparse weight of {prefix.removesuffix('.')!r} is bad: {wrong}")
                return
        if given.values.shape != self.values.shape:
            self.values = self.values.new_empty(given.values.shape)
            self.col_indices = self.col_indices.new_empty(given.col.shape)
        super()._load_from_state_dict(
            state_dict, prefix, metadata, strict, missing, unexpected, errors
        )


def make_sparse(linear: nn.Linear, matrix: CSR | None = None) -> SparseLinear:
    """Turn a linear layer into a sparse one in place.

    The module object stays the same, so it is swapped wherever it is referenced: in several places,
    in a list, or as the model itself.

    Args:
        linear: a layer with a plain weight.
        matrix: its weight as a sparse matrix; encoded here if not given.
    """
    weight = linear.weight
    has_kernel(weight.device.type, weight.dtype)  # cache the answer for forward
    matrix = encode(weight) if matrix is None else matrix
    del linear._parameters["weight"]
    kind = type(linear)
    module: Any = linear
    module.__class__ = SparseLinear
    for name, value in zip(BUFFERS, matrix, strict=True):
        module.register_buffer(name, value)
    module.dense_class = kind
    module.weight_requires_grad = weight.requires_grad
    return cast(SparseLinear, module)


def sparse_twin(linear: nn.Linear, matrix: CSR) -> SparseLinear:
    """Return a sparse layer with the given weight, which shares the bias of a dense layer."""
    twin = nn.Linear(linear.in_features, linear.out_features, device="meta")
    twin.weight, twin.bias = linear.weight, linear.bias
    return make_sparse(twin, matrix)


def make_dense(sparse: SparseLinear, weight: nn.Parameter | None = None) -> nn.Linear:
    """Undo :func:`make_sparse` in place.

    Args:
        sparse: the layer.
        weight: the parameter to put back; by default a new one with the same values.
    """
    if weight is None:
        weight = nn.Parameter(sparse.weight, requires_grad=sparse.weight_requires_grad)
    kind = sparse.dense_class
    module: Any = sparse
    for name in BUFFERS:
        del module._buffers[name]
    del module.dense_class, module.weight_requires_grad
    module.__class__ = kind
    bias = module._parameters.pop("bias")
    module._parameters["weight"] = weight
    module._parameters["bias"] = bias
    return cast(nn.Linear, module)
