"""Ranks that measure different times store the same weights compactly: rank 0 decides."""

from pathlib import Path

import polarity as pol
from tests.helpers import dense_wins, from_ranks, sparse_wins
from tests.models import x_of
from tests.survivors.test_compact import W0, W2, pruned


def one_rank(rank: int, folder: str) -> list[str]:
    model = pruned()
    measure = sparse_wins if rank == 0 else dense_wins
    report = pol.compact(model, x_of(4, 6), measure=measure)
    return list(report.compact)


def test_the_measurement_of_rank_0_decides(tmp_path: Path) -> None:
    assert from_ranks(one_rank, tmp_path, 2) == [[W0, W2], [W0, W2]]
