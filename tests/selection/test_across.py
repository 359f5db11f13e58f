"""Entries that several ranks hold: chosen as one process would choose them, by counts alone."""

import math
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor, distributed

from polarity.selection.top_k import keep_top, keep_top_by_sorting
from tests.helpers import from_ranks
from tests.selection.cases import FLOATS

Tensors = dict[str, Tensor]
# How many ranks choose from how many drawn cases.
RANKS_AND_CASES = [
    (2, 80),
    pytest.param(2, 200, marks=pytest.mark.slow),
    pytest.param(4, 200, marks=pytest.mark.slow),
]


def case_of(number: int) -> dict[str, Any]:
    """Draw tensors, masks, counts and splits; many entries are equal, and some pieces empty."""
    draw = torch.Generator().manual_seed(number)

    def integer(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (), generator=draw))

    several = integer(0, 1)
    dtypes = [FLOATS[integer(0, 3)]] * 4 if integer(0, 1) else FLOATS
    scores: Tensors = {}
    for at in range(integer(1, 4)):
        shape = [integer(0, 9), *(integer(1, 5) for _ in range(integer(0, 2)))]
        if number % 20 == 0:  # more entries than a chunk has
            shape = [50, 6_000]
        values = torch.randn(shape, generator=draw, dtype=torch.float64)
        kind = integer(0, 3)
        if kind == 0:
            values = values.round()
        elif kind == 1:
            values = values.sign() * 0.0
        elif kind == 2:
            values = values * torch.finfo(torch.float32).smallest_normal / 8
        scores[f"t{at}"] = values.to(dtypes[at])
    share = (0.1, 0.5, 0.9, 1.0)[integer(0, 3)]
    live = {name: torch.rand(each.shape, generator=draw) < share for name, each in scores.items()}
    counts = {name: int(each.sum()) for name, each in live.items()}
    keep: Any = integer(0, sum(counts.values()))
    if several:
        keep = {name: integer(0, count) for name, count in counts.items()}
    splits = {
        name: sorted(integer(0, len(each)) for _ in range(3)) for name, each in scores.items()
    }
    ties = "random" if integer(0, 1) else "index"
    return {"scores": scores, "live": live, "keep": keep, "splits": splits, "ties": ties}


def piece(whole: Tensor, borders: list[int], rank: int, world: int) -> Tensor:
    """Return the rows of a rank: all borders for four ranks, the middle one for two."""
    inner = borders if world == 4 else borders[1:2]
    return torch.tensor_split(whole, inner)[rank]


def pieces_of(case: dict[str, Any], rank: int, world: int) -> tuple[Tensors, Tensors]:
    scores, live = (
        {name: piece(each, case["splits"][name], rank, world) for name, each in case[key].items()}
        for key in ("scores", "live")
    )
    return scores, live


def choose_all(rank: int, folder: str) -> Any:
    world, cases = distributed.get_world_size(), int(Path(folder, "cases").read_text())
    found = []
    for number in range(cases):
        case = case_of(number)
        scores, live = pieces_of(case, rank, world)
        draw = torch.Generator().manual_seed(number)
        found.append(
            keep_top(
                scores,
                case["keep"],
                live,
                ties=case["ties"],
                generator=draw,
                group=distributed.group.WORLD,
            )
        )
    return found


def by_the_rule(case: dict[str, Any], number: int) -> Tensors:
    draw = torch.Generator().manual_seed(number)
    scores, live, keep = case["scores"], case["live"], case["keep"]
    if isinstance(keep, int):
        return keep_top_by_sorting(scores, keep, live, ties=case["ties"], generator=draw)
    seed = draw.get_state()
    kept = {}
    for name, count in keep.items():
        draw.set_state(seed)  # one seed for the whole call
        one = {name: scores[name]}
        kept |= keep_top_by_sorting(one, count, live, ties=case["ties"], generator=draw)
    return kept


@pytest.mark.parametrize(("world", "cases"), RANKS_AND_CASES)
def test_ranks_keep_what_one_process_keeps(world: int, cases: int, tmp_path: Path) -> None:
    (tmp_path / "cases").write_text(str(cases))
    found = from_ranks(choose_all, tmp_path, world)
    for number in range(cases):
        case = case_of(number)
        whole = {name: torch.cat([each[number][name] for each in found]) for name in case["scores"]}
        draw = torch.Generator().manual_seed(number)
        alone = keep_top(
            case["scores"], case["keep"], case["live"], ties=case["ties"], generator=draw
        )
        rule = by_the_rule(case, number)
        for name in case["scores"]:
            assert torch.equal(whole[name], alone[name]), (number, name)
            assert torch.equal(whole[name], rule[name]), (number, name)


def count_bytes(rank: int, folder: str) -> Any:
    told = []

    def counted(tensor: Tensor, *arguments: Any, **named: Any) -> None:
        told.append(tensor.numel() * tensor.element_size())
        plain(tensor, *arguments, **named)

    plain, sums = distributed.all_reduce, []
    with mock.patch.object(distributed, "all_reduce", counted):
        for dtype in (torch.float32, torch.float64):
            for rows in (100, 100_000):
                told.clear()
                scores = {
                    "a": torch.randn(rows, 10, dtype=dtype),
                    "b": torch.randn(rows, dtype=dtype),
                }
                live = {
                    name: torch.ones_like(each, dtype=torch.bool) for name, each in scores.items()
                }
                keep_top(scores, rows, live, group=distributed.group.WORLD)
                sums.append((len(told), sum(told)))
    return sums


def test_the_bytes_exchanged_do_not_depend_on_the_number_of_entries(tmp_path: Path) -> None:
    for single, single_more, double, double_more in from_ranks(count_bytes, tmp_path, 2):
        assert single == single_more
        assert double == double_more
        # A few numbers for the ranks to agree, and 4,096 counts for each 12 bits.
        for (calls, told), bits in ((single, 32), (double, 64)):
            passes = math.ceil(bits / 12)
            assert calls <= passes + 5
            assert told <= passes * 4097 * 8 + 500


def refuse(rank: int, folder: str) -> Any:
    ones = {"a": torch.ones(4, 2), "b": torch.ones(3)}
    live = {name: each.bool() for name, each in ones.items()}
    nan = {**ones, "b": torch.tensor([1.0, math.nan, math.inf])}
    mine = rank == 1
    texts = []
    for scores, keep, masks in (
        (nan if mine else ones, 3, live),
        (ones, 4 if mine else 3, live),
        (ones, 100, live),
        ({"a": ones["a"].int()} if mine else ones, 3, live),
        ({"a": ones["a"].double(), "b": ones["b"]} if mine else ones, 3, live),
        (ones, 3, {"a": live["a"][:2], "b": live["b"]} if mine else live),
    ):
        draw = torch.Generator().manual_seed(0)
        before = draw.get_state()
        try:
            keep_top(
                scores, keep, masks, ties="random", generator=draw, group=distributed.group.WORLD
            )
            texts.append("nothing")
        except ValueError as error:
            texts.append(str(error))
        assert torch.equal(draw.get_state(), before)
    return texts


def test_an_error_on_one_rank_is_an_error_on_all(tmp_path: Path) -> None:
    first, second = from_ranks(refuse, tmp_path, 2)
    assert first[0] == second[0]
    assert "'b'" in first[0]
    assert "2" in first[0]  # NaN and infinity are counted
    assert "ranks 0 and 1 of the group differ" in first[1] == second[1]
    assert first[2] == second[2] == "keep=100, expected a number from 0 to the 22 live entries"
    assert "rank 1 of the group refused" in first[3]
    assert "torch.int32" in second[3]
    assert "ranks 0 and 1 of the group differ" in first[4] == second[4]
    assert "rank 1 of the group refused" in first[5]
    assert "shape" in second[5]
