"""Ranks under DistributedDataParallel that would prune differently are told so, on every rank."""

from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor, distributed
from torch.nn.parallel import DistributedDataParallel

import polarity as pol
from polarity.dense_to_sparse import ACDC, GradualMagnitude, RigL
from polarity.selection.ranks import Ranks
from tests.forms import random_masks
from tests.helpers import from_ranks, train_step
from tests.laws.refusals import fingerprint
from tests.models import mlp, seeded

WORLD = 2
REMEDY = "Load rank 0's model.state_dict() on every rank"
INPUTS = (torch.randn(8, 6, generator=torch.Generator().manual_seed(1)),)


class Copy:
    """One rank's copy of a masked model, wrapped without sending buffers, and its optimizer."""

    def __init__(self, rank: int, alike: bool) -> None:
        self.other = int(rank == 1 and not alike)
        self.model = seeded(mlp(6, 8, 3)).train()
        pol.mask_weights(self.model)
        self.parallel = DistributedDataParallel(self.model, broadcast_buffers=False)
        self.sgd = torch.optim.SGD(self.model.parameters(), lr=0.05, momentum=0.9)
        for _ in range(2):
            train_step(self.parallel, self.sgd, INPUTS)
        self.start = pol.RewindPoint.capture(self.model, self.sgd)

    def moved(self) -> "Copy":
        """Give this rank other weights, if it is to differ."""
        if self.other:
            with torch.no_grad():
                for each in self.model.parameters():
                    each.copy_(each.flip(0))
        return self

    def draw(self) -> torch.Generator:
        return torch.Generator().manual_seed(3 + self.other)

    def everything(self) -> str:
        state = [self.model.state_dict(), self.sgd.state_dict(), torch.get_rng_state()]
        return str(fingerprint(state))


def rigl(copy: Copy) -> object:
    schedule = RigL(
        copy.parallel, copy.sgd, densities=dict.fromkeys(pol.masks(copy.model), 0.5),
        every=2, end=9, generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    copy.sgd.step()
    schedule.step()
    # Gradients that no rank averaged, as by mistake under no_sync.
    (copy.model(INPUTS[0] * (2 + copy.other)) - copy.other).square().mean().backward()
    copy.sgd.step()
    return copy, schedule.step


def gradual(copy: Copy) -> object:
    schedule = GradualMagnitude(copy.parallel, copy.sgd, density=0.2, begin=0, end=1, every=1)
    copy.sgd.step()
    copy.moved()
    return copy, schedule.step


def acdc(copy: Copy) -> object:
    schedule = ACDC(copy.parallel, copy.sgd, density=0.2, switches=(1, 9))
    copy.sgd.step()
    schedule.step()
    copy.moved()
    return copy, schedule.switch


def masked_anew(copy: Copy) -> object:
    masks = random_masks(seeded(mlp(6, 8, 3)), seed=copy.other)
    return copy, lambda: pol.load_masks(copy.parallel, masks)


def pruned(call: Callable[[Copy], object]) -> Callable[[Copy], object]:
    return lambda copy: (copy.moved(), lambda: call(copy))


def by_given_scores(copy: Copy) -> object:
    draw = copy.draw()
    scores = {n: torch.rand(m.shape, generator=draw) for n, m in pol.masks(copy.model).items()}
    return copy, lambda: pol.prune(copy.parallel, scores, density=0.5)


def rounds(copy: Copy) -> object:
    schedule = pol.PruneRounds(copy.parallel, 0.5, every=1, rounds=2, optimizer=copy.sgd)
    return copy.moved(), schedule.step


CALLS: dict[str, Any] = {
    "imp_prune": pruned(lambda c: pol.imp_prune(c.parallel, 0.5, optimizer=c.sgd)),
    "imp_prune, rewound": pruned(lambda c: pol.imp_prune(c.parallel, 0.5, rewind=c.start)),
    "lrr_step": pruned(lambda c: pol.lrr_step(c.parallel, 0.5, rewind=c.start, optimizer=c.sgd)),
    "prune": pruned(lambda c: pol.prune(c.parallel, pol.scores.magnitude, density=0.5)),
    "prune by given scores": by_given_scores,
    "prune by a generator in another state": lambda c: (
        c,
        lambda: pol.prune(c.parallel, pol.scores.random, density=0.5, generator=c.draw()),
    ),
    "prune another share": lambda c: (c, lambda: pol.imp_prune(c.parallel, 0.5 + 0.1 * c.other)),
    "load_masks": masked_anew,
    "PruneRounds": rounds,
    "RigL": rigl,
    "GradualMagnitude": gradual,
    "ACDC": acdc,
}


def outcome(name: str, rank: int, *, alike: bool) -> dict[str, Any]:
    """Make a call on this rank, and return what it said, changed, and told the other rank."""
    copy, call = CALLS[name](Copy(rank, alike))
    before, told = copy.everything(), []

    def counted(tensor: Tensor, *arguments: Any, **named: Any) -> Any:
        told.append(tensor.numel() * tensor.element_size())
        return plain(tensor, *arguments, **named)

    plain, said = distributed.all_reduce, ""
    with mock.patch.object(distributed, "all_reduce", counted):
        try:
            call()
        except ValueError as error:
            said = str(error)
    return {
        "said": said,
        "changed": copy.everything() != before,
        "told": told,
        "masks": pol.masks(copy.model),
    }


def refused_on_one(rank: int) -> list[Any]:
    """Prune where one rank's weights are not finite, then where they are again."""
    copy = Copy(rank, alike=True)
    weight = copy.model[0].parametrizations.weight.original
    kept = weight.detach().clone()
    if rank == 1:
        weight.data[0, 0] = float("nan")
    before = copy.everything()
    try:
        pol.imp_prune(copy.parallel, 0.5)
        said = ""
    except ValueError as error:
        said = str(error)
    same = copy.everything() == before
    weight.data.copy_(kept)
    return [said, same, str(pol.imp_prune(copy.parallel, 0.5))]


def by_itself(rank: int) -> float:
    """Prune the model inside, which nothing compares, on one rank."""
    copy = Copy(rank, alike=True)
    if rank == 1:
        pol.imp_prune(copy.model, 0.5)
    return pol.density(copy.model)


def one_rank(rank: int, folder: str) -> Any:
    results: dict[str, Any] = {
        f"{name}, {alike}": outcome(name, rank, alike=alike)
        for name in CALLS
        for alike in (True, False)
    }
    results["refused"] = refused_on_one(rank)
    results["inside"] = by_itself(rank)
    return results


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return from_ranks(one_rank, tmp_path_factory.mktemp("ranks"), WORLD)


@pytest.mark.parametrize("name", CALLS)
def test_copies_that_would_differ_are_refused_on_every_rank_and_nothing_is_changed(
    ranks: Any, name: str
) -> None:
    first, second = (rank[f"{name}, False"] for rank in ranks)
    for each in (first, second):
        assert "ranks 0 and 1 of the group differ, expected the same masks" in each["said"]
        assert REMEDY in each["said"]
        assert not each["changed"]


@pytest.mark.parametrize("name", CALLS)
def test_copies_that_are_alike_are_pruned_and_exchange_96_bytes_at_most(
    ranks: Any, name: str
) -> None:
    first, second = (rank[f"{name}, True"] for rank in ranks)
    assert first["said"] == second["said"] == ""
    assert first["changed"]
    assert second["changed"]
    assert set(first["told"]) == set(second["told"]) == {32}
    assert len(first["told"]) == len(second["told"]) <= 3
    assert first["masks"].keys() == second["masks"].keys()
    for weight, mask in first["masks"].items():
        assert torch.equal(mask, second["masks"][weight])
    assert not all(bool(mask.all()) for mask in first["masks"].values())


def test_what_one_copy_refuses_all_refuse(ranks: Any) -> None:
    (first, same, after), (second, also, later) = (rank["refused"] for rank in ranks)
    assert "rank 1 of the group refused its part of this call" in first
    assert "0.weight" in second
    assert same
    assert also
    assert after == later


def test_the_model_inside_the_wrapper_is_pruned_without_a_word_to_others(ranks: Any) -> None:
    assert [rank["inside"] for rank in ranks] == [1.0, 0.5]


def test_a_rank_raises_its_own_error_also_where_the_others_are_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def gone(*_: object) -> None:
        raise RuntimeError("connection closed")

    def mine() -> tuple[int, int]:
        raise ValueError("mine")

    monkeypatch.setattr(Ranks, "table", gone)
    ranks = object.__new__(Ranks)
    with pytest.raises(ValueError, match="mine") as caught:
        ranks.agree(mine, "anything")
    assert str(caught.value.__cause__) == "connection closed"
    with pytest.raises(RuntimeError, match="connection closed"):
        ranks.agree(lambda: (1, 1), "anything")
