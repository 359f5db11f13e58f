"""Where the survivors of a mask are, and the sparse matrices that they are the entries of."""

from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor
from typing_extensions import Self

from polarity._csr import CSR

__all__ = ["Places"]


class _Transposed(NamedTuple):
    """The places of a transposed matrix, and the order in which it has the survivors."""

    crow: Tensor
    col: Tensor
    order: Tensor


class Places:
    """The places of a mask's survivors, in row-major order; nothing here is ever changed.

    It is derived from a mask and is no part of a ``state_dict``. A weight of more than two
    dimensions counts as a matrix of its first dimension by all others.

    Attributes:
        shape: of the weight.
        index: (survivors,), int64, where each of them is in the flattened weight.
        multiplies: whether ``nn.functional.linear`` takes the sparse product; otherwise it gets the
            dense weight, as all other functions do.
    """

    def __init__(self, shape: torch.Size, index: Tensor, *, multiplies: bool) -> None:
        self.shape, self.index, self.multiplies = shape, index, multiplies

    @classmethod
    @torch.no_grad()
    def of(cls, mask: Tensor, *, multiplies: bool, known: Self | None = None) -> Self:
        """Return the survivors of a mask of zeros and ones.

        If ``known`` is the same, it is returned: it has its sparse matrices already.

        Example:
            >>> Places.of(torch.tensor([[0, 1], [1, 0]]), multiplies=False).index
            tensor([1, 2])
        """
        found = cls(mask.shape, mask.reshape(-1).nonzero().view(-1), multiplies=multiplies)
        return known if known is not None and known.same_as(found) else found

    def __len__(self) -> int:
        """Return the number of survivors."""
        return self.index.numel()

    def __bool__(self) -> bool:
        """Return True, also for a weight of which none is left."""
        return True

    def same_as(self, other: "Places") -> bool:
        """Whether these are the same places of the same weight, used in the same way."""
        mine, theirs = (self.shape, self.multiplies), (other.shape, other.multiplies)
        return mine == theirs and torch.equal(self.index, other.index)

    def gather(self, dense: Tensor) -> Tensor:
        """Return the entries of a dense tensor that survive, (survivors,); differentiable."""
        return dense.reshape(-1).index_select(0, self.index)

    def scatter(self, values: Tensor) -> Tensor:
        """Return the dense tensor with these survivors and zeros elsewhere; differentiable."""
        flat = values.new_zeros(self.shape.numel())
        return flat.index_put((self.index,), values).view(self.shape)

    def matrix(self, values: Tensor) -> CSR:
        """Return the weight as a sparse matrix, with 32-bit indices as MKL computes with."""
        return CSR(values, *self.rows)

    def transposed(self, values: Tensor) -> CSR:
        """Return the transposed weight as a sparse matrix."""
        crow, col, order = self._columns
        return CSR(values.index_select(0, order), crow, col)

    @cached_property
    def rows(self) -> tuple[Tensor, Tensor]:
        """The first entry of each row and the column of each entry, int32."""
        rows, columns = self._split()
        return _starts(rows, self.shape[0]).int(), columns.int()

    @cached_property
    def _columns(self) -> _Transposed:
        rows, columns = self._split()
        order = columns.argsort(stable=True)
        crow = _starts(columns, self.shape[1:].numel())
        return _Transposed(crow.int(), rows[order].int(), order.int())

    def _split(self) -> tuple[Tensor, Tensor]:
        width = max(1, self.shape[1:].numel())
        return self.index.div(width, rounding_mode="floor"), self.index.remainder(width)

    def to(self, device: torch.device) -> "Places":
        """Return the same on another device; those that were on meta become the first ones."""
        if device == self.index.device:
            return self
        index = torch.arange(len(self), device=device) if self.index.is_meta else self.index
        return Places(self.shape, index.to(device), multiplies=self.multiplies)

    def __deepcopy__(self, memo: Any) -> "Places":
        """Share what is never changed."""
        return self


def _starts(sorted_or_not: Tensor, count: int) -> Tensor:
    """Return the first entry of each of ``count`` rows, and the number of entries at the end."""
    lengths = torch.bincount(sorted_or_not, minlength=count)
    starts = lengths.new_zeros(count + 1)
    torch.cumsum(lengths, 0, out=starts[1:])
    return starts
