"""Sparse matrices and their products with a batch, as pure functions on tensors."""

import math
import warnings
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = [
    "CSR",
    "csr_linear",
    "decode",
    "encode",
    "has_gradients",
    "has_kernel",
    "sampled_product",
    "why_invalid",
]

BLOCK = 32  # rows of a product on a processor; of 16 to 64 the fastest at densities from 0.05


class CSR(NamedTuple):
    """A matrix in compressed sparse rows: row i has the entries ``crow[i]`` to ``crow[i + 1]``.

    Attributes:
        values: the non-zero entries, row by row.
        crow: int32, the first entry of each row, and the number of entries at the end.
        col: int32, the column of each entry.
    """

    values: Tensor
    crow: Tensor
    col: Tensor


def encode(weight: Tensor) -> CSR:
    """Return the non-zero entries of a matrix, with 32-bit indices.

    MKL computes with 32-bit indices; PyTorch converts 64-bit indices in every product.

    Example:
        >>> encode(torch.tensor([[0.0, 2.0], [0.0, 0.0], [3.0, 4.0]]))
        CSR(values=tensor([2., 3., 4.]), crow=tensor([0, 1, 1, 3], dtype=torch.int32), col=tensor([1, 0, 1], dtype=torch.int32))
    """  # noqa: E501
    live = weight.detach() != 0
    crow = torch.zeros(weight.shape[0] + 1, dtype=torch.int32, device=weight.device)
    crow[1:] = live.sum(1).cumsum(0)
    rows, col = live.nonzero(as_tuple=True)
    return CSR(weight.detach()[rows, col], crow, col.int())


def decode(matrix: CSR, shape: tuple[int, int]) -> Tensor:
    """Return the dense matrix of a given shape, the inverse of :func:`encode`.

    Example:
        >>> decode(encode(torch.eye(2)), (2, 2))
        tensor([[1., 0.],
                [0., 1.]])
    """
    rows = torch.arange(shape[0], device=matrix.crow.device)
    rows = rows.repeat_interleave(matrix.crow.diff(), output_size=matrix.col.numel())
    dense = matrix.values.new_zeros(shape)
    return dense.index_put((rows, matrix.col.long()), matrix.values)


def csr_linear(x: Tensor, matrix: CSR, bias: Tensor | None, shape: tuple[int, int]) -> Tensor:
    r"""Return :math:`x W^\top + b` for a sparse :math:`W`, computed as :math:`(W x^\top)^\top + b`.

    The sparse matrix stands on the left, because the kernels are fast only there. On a processor
    the rows of x are taken in blocks that stay in its cache.

    Args:
        x: (..., in), strided, of the matrix's dtype.
        matrix: the entries of :math:`W`.
        bias: (out,) or None.
        shape: (out, in).

    Returns:
        (..., out), contiguous.
    """
    weight = torch.sparse_csr_tensor(
        matrix.crow, matrix.col, matrix.values, shape, check_invariants=False
    )
    flat = x if x.dim() == 2 else x.reshape(-1, shape[1])
    leading = x.shape[:-1]
    if flat.shape[0] == 1:
        vector = flat[0]
        single = torch.mv(weight, vector) if bias is None else torch.addmv(bias, weight, vector)
        return single.view(*leading, shape[0])
    blocks = 1 if x.is_cuda else math.ceil(flat.shape[0] / BLOCK)
    if blocks <= 1:
        return _times(weight, flat, bias).contiguous().view(*leading, shape[0])
    result = x.new_empty(flat.shape[0], shape[0])
    size = math.ceil(flat.shape[0] / blocks)
    for start in range(0, flat.shape[0], size):
        result[start : start + size] = _times(weight, flat[start : start + size], bias)
    return result.view(*leading, shape[0])


def _times(weight: Tensor, rows: Tensor, bias: Tensor | None) -> Tensor:
    """Return the product, transposed in memory as it is computed."""
    if bias is None:
        return torch.mm(weight, rows.t()).t()
    return torch.addmm(bias.unsqueeze(1), weight, rows.t()).t()


def sampled_product(left: Tensor, right: Tensor, crow: Tensor, col: Tensor) -> Tensor:
    r"""Return the entries of ``left @ right`` at the places of a sparse matrix, row by row.

    Args:
        left: (rows, k).
        right: (k, columns).
        crow: (rows + 1,), int64, the first entry of each row, and the number of entries at the end.
        col: (entries,), int64, the column of each entry.

    Returns:
        (entries,).

    Example:
        >>> crow, col = torch.tensor([0, 1, 2]), torch.tensor([1, 0])
        >>> sampled_product(torch.ones(2, 3), torch.arange(6.0).view(3, 2), crow, col)
        tensor([9., 6.])
    """
    places = torch.sparse_csr_tensor(
        crow, col, left.new_zeros(col.numel()), (left.shape[0], right.shape[1]),
        check_invariants=False,
    )  # fmt: skip
    sampled: Tensor = torch.sparse.sampled_addmm(places, left, right, beta=0.0)
    return sampled.values()


def why_invalid(matrix: CSR, shape: tuple[int, int]) -> str | None:
    """Return what is wrong with a CSR matrix from a file, or None; kernels do not check."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.sparse_csr_tensor(
                matrix.crow, matrix.col, matrix.values, shape, check_invariants=True
            )
    except RuntimeError as error:
        return str(error).splitlines()[0]
    return None


# torch.compile cannot trace a cached function.
_kernels: dict[tuple[str, torch.dtype], bool] = {}
_gradients: dict[tuple[str, torch.dtype], bool] = {}


def has_kernel(device_type: str, dtype: torch.dtype) -> bool:
    """Whether PyTorch multiplies sparse with dense matrices of this dtype on such a device."""
    known = _kernels.get((device_type, dtype))
    if known is None:
        known = _kernels[device_type, dtype] = _works(_try_products, device_type, dtype)
    return known


def has_gradients(device_type: str, dtype: torch.dtype) -> bool:
    """Whether it also has the product of the weight's gradient, at the places of a mask."""
    known = _gradients.get((device_type, dtype))
    if known is None:
        known = has_kernel(device_type, dtype) and _works(_try_sampled, device_type, dtype)
        _gradients[device_type, dtype] = known
    return known


def _works(attempt: Callable[[str, torch.dtype], object], kind: str, dtype: torch.dtype) -> bool:
    try:
        with (
            warnings.catch_warnings(),  # PyTorch warns once that sparse tensors are in beta
            torch.no_grad(),
            torch.autocast(kind, enabled=False),
        ):
            warnings.simplefilter("ignore")
            attempt(kind, dtype)
    except (RuntimeError, AssertionError, NotImplementedError):
        return False
    return True


def _try_products(device_type: str, dtype: torch.dtype) -> None:
    eye = encode(torch.eye(2, device=device_type).to(dtype))
    bias = torch.zeros(2, dtype=dtype, device=device_type)
    for rows in (1, 3):
        csr_linear(bias.expand(rows, 2), eye, bias, (2, 2))


def _try_sampled(device_type: str, dtype: torch.dtype) -> None:
    eye = torch.eye(2, device=device_type).to(dtype)
    crow, col = torch.arange(3, device=device_type), torch.arange(2, device=device_type)
    sampled_product(eye, eye, crow, col)
