"""Sparse products with a batch: the ways in which small and large ones are taken agree."""

import pytest
import torch
from torch import Tensor

from polarity import _csr
from polarity._csr import csr_linear, encode, in_one_piece, sampled_product

ROWS = [1, 2, 33, 700]  # 700 x 300 numbers are above the limit of one piece


def weight(seed: int = 0) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    dense = torch.randn(200, 300, generator=draw, dtype=torch.float64)
    return dense * (torch.rand(200, 300, generator=draw) < 0.05)


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("rows", ROWS)
def test_a_product_is_that_of_the_dense_weight_in_one_piece_and_in_blocks(
    rows: int, biased: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = torch.randn(rows, 300, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    bias = torch.arange(200.0, dtype=torch.float64) if biased else None
    expected = torch.nn.functional.linear(x, weight(), bias)
    for piece in (0, _csr.PIECE, 2**30):
        monkeypatch.setattr(_csr, "PIECE", piece)
        torch.testing.assert_close(csr_linear(x, encode(weight()), bias, (200, 300)), expected)


def test_a_batch_is_one_piece_up_to_its_limit_and_a_single_row_never_is() -> None:
    columns = 256
    limit = _csr.PIECE // columns
    assert in_one_piece(torch.empty(limit, columns))
    assert not in_one_piece(torch.empty(limit + 1, columns))
    assert not in_one_piece(torch.empty(1, columns))


@pytest.mark.parametrize("rows", ROWS)
def test_a_sampled_product_is_the_dense_one_at_its_places(rows: int) -> None:
    draw = torch.Generator().manual_seed(2)
    left = torch.randn(200, rows, generator=draw, dtype=torch.float64)
    right = torch.randn(rows, 300, generator=draw, dtype=torch.float64)
    matrix = encode(weight())
    expected = (left @ right)[weight() != 0]
    torch.testing.assert_close(sampled_product(left, right, matrix.crow, matrix.col), expected)
