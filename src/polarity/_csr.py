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
    "csr_times",
    "decode",
    "encode",
    "has_gradients",
    "has_kernel",
    "in_one_piece",
    "sampled_product",
    "why_invalid",
]

BLOCK = 32  # rows of a product on a processor; of 16 to 64 the fastest at densities from 0.05
PIECE = 2**17  # numbers of a batch that stay in a processor's cache and are not taken in blocks


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
    the rows of a large x are taken in blocks that stay in its cache.

    Args:
        x: (..., in), strided, of the matrix's dtype.
        matrix: the entries of :math:`W`.
        bias: (out,) or None.
        shape: (out, in).

    Returns:
        (..., out), contiguous.
    """
    flat = x if x.dim() == 2 else x.reshape(-1, shape[1])
    rows = flat.shape[0]
    if rows == 1:
        vector, weight = flat[0], _weight(matrix, shape)
        single = torch.mv(weight, vector) if bias is None else torch.addmv(bias, weight, vector)
        return single.view(*x.shape[:-1], shape[0])
    if x.is_cuda or in_one_piece(flat):
        product = csr_times(matrix, flat.t(), bias, shape).t().contiguous()
        return product.view(*x.shape[:-1], shape[0])
    result = x.new_empty(rows, shape[0])
    size = math.ceil(rows / math.ceil(rows / BLOCK))
    for start in range(0, rows, size):
        block = flat[start : start + size].t()
        result[start : start + size] = csr_times(matrix, block, bias, shape).t()
    return result.view(*x.shape[:-1], shape[0])


def in_one_piece(rows: Tensor) -> bool:
    """Whether a processor takes a batch of rows as a whole, its features first in memory."""
    return not rows.is_cuda and rows.shape[0] != 1 and rows.numel() <= PIECE


def csr_times(matrix: CSR, columns: Tensor, bias: Tensor | None, shape: tuple[int, int]) -> Tensor:
    """Return W X + b, (out, n), for a sparse W and X of n columns, best contiguous."""
    weight = _weight(matrix, shape)
    if bias is None:
        return torch.mm(weight, columns)
    return torch.addmm(bias.unsqueeze(1), weight, columns)


def _weight(matrix: CSR, shape: tuple[int, int]) -> Tensor:
    return torch.sparse_csr_tensor(
        matrix.crow, matrix.col, matrix.values, shape, check_invariants=False
    )


def sampled_product(left: Tensor, right: Tensor, crow: Tensor, col: Tensor) -> Tensor:
    r"""Return the entries of ``left @ right`` at the places of a sparse matrix, row by row.

    Args:
        left: (rows, k); on a processor one that is not contiguous is copied.
        right: (k, columns); one whose transpose is not contiguous is copied.
        crow: (rows + 1,), int32, the first entry of each row, and the number of entries at the end.
        col: (entries,), int32, the column of each entry.

    Returns:
        (entries,).

    Example:
        >>> crow, col = torch.tensor([0, 1, 2]).int(), torch.tensor([1, 0]).int()
        >>> sampled_product(torch.ones(2, 3), torch.arange(6.0).view(3, 2), crow, col)
        tensor([9., 6.])
    """
    places = torch.sparse_csr_tensor(
        crow, col, left.new_zeros(col.numel()), (left.shape[0], right.shape[1]),
        check_invariants=False,
    )  # fmt: skip
    # In place, because a result of its own begins as a copy of the indices.
    torch.sparse.sampled_addmm(places, left, right, beta=0.0, out=places)
    return places.values()


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
    sampled_product(eye, eye, *encode(eye)[1:])
