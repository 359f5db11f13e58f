"""Pruning on many ranks exchanges counts, and needs little memory: as the page of them says."""

import re
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import from_ranks
from tests.ranks.costs import MILLION, one_rank
from tests.ranks.sharded import needs_fsdp_on_cpu

pytestmark = [needs_fsdp_on_cpu, pytest.mark.slow]

PAGE = Path(__file__).parents[2] / "docs" / "many_ranks.md"


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    return from_ranks(one_rank, tmp_path_factory.mktemp("costs"), 2)


def test_the_page_states_the_bytes_that_a_selection_exchanges(ranks: list[Any]) -> None:
    rows = re.findall(r"^\| (\d+) M \| (\d+) \| ([\d,]+) \|", PAGE.read_text("utf-8"), re.M)
    stated = {
        int(weights) * MILLION // MILLION: (int(calls), int(size.replace(",", "")))
        for weights, calls, size in rows
    }
    for rank in ranks:
        found = {n: (each["calls"], each["bytes"]) for n, each in rank["bytes"].items()}
        assert found == stated


def test_bytes_do_not_grow_with_the_number_of_weights(ranks: list[Any]) -> None:
    for rank in ranks:
        sizes = {each["bytes"] for each in rank["bytes"].values()}
        assert len(sizes) == 1


def test_pruning_needs_at_most_two_bytes_for_each_weight_of_the_shard(ranks: list[Any]) -> None:
    for rank in ranks:
        assert rank["memory"] <= 2
