"""Ranks whose global generators differ draw the same, and talk no more than they have to."""

import copy
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor, distributed, nn
from torch.nn.utils import parametrize
from torch.utils.data import DataLoader

import polarity as pol
from polarity import Delta, Epsilon
from polarity._bits.random import seed_from
from polarity.parametrizations.shared_alpha import draw_seeds
from polarity.scores import grasp, random, snip, synflow
from tests.helpers import everything_of, start_processes
from tests.models import CROSS_ENTROPY, conv_net, generator, mlp, noisy
from tests.norm_nets import NETS, X, alphas, moved

WORLD = 2
BATCHES = [(torch.ones(4, 6), torch.tensor([0, 1, 2, 0]))]
SIGNS, SIZES = torch.ones(500, dtype=torch.int8), torch.arange(500.0)
WEIGHTS = torch.arange(-400.0, 400.0)
MASKS = {"w": torch.arange(800) % 8 < 5}
Draw = torch.Generator | None
Case = Callable[[Draw], list[Tensor]]


# Built once: to initialise a layer draws from the global generator.
PLAIN, NOISY, NORMED, WITH_NORM = mlp(20, 30, 10), noisy(), NETS["batch"](), conv_net()
FLAT = nn.Linear(6, 8, bias=False)
nn.init.ones_(FLAT.weight)
DROPPED = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(6))
START = pol.RewindPoint.capture(PLAIN)
HALF = moved(copy.deepcopy(PLAIN))
pol.imp_prune(HALF, density=0.5)
BROKEN = copy.deepcopy(PLAIN)
BROKEN[2].weight.data[0, 0] = float("nan")
UNWRITABLE = copy.deepcopy(HALF)
parametrize.register_parametrization(UNWRITABLE[2], "weight", nn.Tanh(), unsafe=True)
NAN = {name: w / 0 if name == "2.weight" else w for name, w in START.weights.items()}


def signs(strategy: str, perturb: Any = None, scope: str = "layer") -> Case:
    def case(draw: Draw) -> list[Tensor]:
        model = copy.deepcopy(HALF)
        pol.reinit_signs(model, strategy, perturb, init=START, scope=scope, generator=draw)
        return [each.weight for each in pol.find_targets(model).values()]

    return case


def constants(draw: Draw) -> list[Tensor]:
    weights, masks = {"w": WEIGHTS}, MASKS
    return list(
        pol.signed_constants(weights, weights, masks, "mask0", Epsilon(0.5), generator=draw)[
            0
        ].values()
    )


def pruned(how: str) -> Case:
    def case(draw: Draw) -> list[Tensor]:
        model = copy.deepcopy(PLAIN)
        if how == "prune":
            pol.prune(model, random, density=0.5, generator=draw)
        elif how == "imp":
            pol.imp_prune(model, 0.5, score=random, rewind=START, generator=draw)
        elif how == "lrr":
            sgd = torch.optim.SGD(model.parameters(), lr=0.1)
            start = pol.RewindPoint.capture(model, sgd)
            pol.lrr_step(model, 0.5, score=random, rewind=start, optimizer=sgd, generator=draw)
        elif how == "rounds":
            pol.PruneRounds(model, 0.5, every=1, rounds=1, score=random, generator=draw).step()
        elif how == "ties":
            pol.imp_prune(model, 0.5, score=zeros, ties="random", generator=draw)
        else:
            given = pol.densities.balanced(model, 0.5)
            pol.prune(model, random, densities=given, generator=draw)
        return list(pol.masks(model).values())

    return case


def started(draw: Draw) -> list[Tensor]:
    model = copy.deepcopy(PLAIN)
    masks = {name: target.mask for name, target in pol.find_targets(model).items()}
    pol.start_from_magnitudes(model, START, masks, generator=draw)
    return [model.get_parameter(name.replace("weight", "parametrizations.weight.original"))
            for name in masks]  # fmt: skip


def zeros(name: str, weight: Tensor) -> Tensor:
    return torch.zeros_like(weight)


def norms(draw: Draw, **options: bool) -> list[Tensor]:
    model = pol.interpolate_norms(copy.deepcopy(NORMED), generator=draw, **options).train()
    model(X)
    return [torch.tensor(alphas(model), dtype=torch.float64, device="cpu")]


def barrier(draw: Draw) -> list[Tensor]:
    """Dropout before a norm whose statistics are run in the official code's way."""
    curve = pol.error_barrier(
        DROPPED, DROPPED, DROPPED, lambda network: float(network[1].running_mean.sum()),
        points=2, bn="aws", batches=[BATCHES[0][0]], generator=draw,
    ).curve  # fmt: skip
    return [torch.tensor(curve, dtype=torch.float64, device="cpu")]


CASES: dict[str, Case] = {
    "gradual": signs("gradual"),
    "epsilon": signs("mask1", Epsilon(0.3)),
    "delta": signs("mask0", Delta(0.4)),
    "all": signs("gradual", [Epsilon(0.3), Delta(0.4)], "global"),
    "signed_constants": constants,
    "Epsilon": lambda draw: [Epsilon(0.5)(SIGNS, SIZES, draw)],
    "Delta": lambda draw: [Delta(0.5)(SIGNS, SIZES, draw, masks=MASKS)],
    "random": lambda draw: [random("w", SIZES, generator=draw)],
    "prune": pruned("prune"),
    "imp": pruned("imp"),
    "lrr": pruned("lrr"),
    "densities": pruned("densities"),
    "rounds": pruned("rounds"),
    "ties": pruned("ties"),
    "ties of Delta": lambda draw: [Delta(0.5, ties="random")(SIGNS, SIZES * 0, draw)],
    "ties of synflow": lambda draw: list(
        synflow(FLAT, WEIGHTS[:6], density=0.5, steps=2, ties="random", generator=draw).values()
    ),
    "starts": started,
    "reinitialize": lambda draw: [
        p.detach() for p in pol.reinitialize(copy.deepcopy(HALF), generator=draw).parameters()
    ],
    "norms": norms,
    "norms per layer": lambda draw: norms(draw, per_layer=True),
    "seeds": lambda draw: [draw_seeds(draw)],
}
# Those that restore the global random state; alone, they follow it instead of drawing a seed.
DROPOUT: dict[str, Case] = {
    "snip": lambda draw: list(snip(NOISY, CROSS_ENTROPY, BATCHES, generator=draw).values()),
    "grasp": lambda draw: list(grasp(NOISY, CROSS_ENTROPY, BATCHES, generator=draw).values()),
    "barrier": barrier,
}
EVERY = {**CASES, **DROPOUT}


# Each would draw, and is refused for what can be seen before.
BAD: dict[str, Callable[[], object]] = {
    "init": lambda: pol.reinit_signs(HALF, "gradual", init=NAN),
    "trained": lambda: pol.reinit_signs(HALF, "gradual", init=START, trained=NAN),
    "perturbed": lambda: pol.reinit_signs(HALF, "mask1", Epsilon(0.3), init=NAN),
    "generator": lambda: pol.reinit_signs(HALF, "gradual", init=START, generator=3),
    "unwritable": lambda: pol.reinit_signs(UNWRITABLE, "gradual", init=START),
    "prune": lambda: pol.prune(BROKEN, random, density=0.5),
    "density": lambda: pol.prune(PLAIN, random, density=1.5),
    "imp": lambda: pol.imp_prune(BROKEN, 0.5, score=random),
    "masks": lambda: Epsilon(0.5)(SIGNS, SIZES, masks={"w": torch.ones(3, dtype=torch.bool)}),
    "magnitudes": lambda: Delta(0.5)(SIGNS, SIZES[:7]),
    "none": lambda: Delta(0.5)(SIGNS[:0], SIZES[:0]),
    "norms": lambda: pol.interpolate_norms(NORMED, initial={}),
    "mode": lambda: snip(NOISY, CROSS_ENTROPY, BATCHES, mode="test"),
    "temperature": lambda: grasp(NOISY, CROSS_ENTROPY, BATCHES, temperature=0),
    "targets": lambda: snip(NOISY, CROSS_ENTROPY, BATCHES, targets="9"),
    "barrier": lambda: pol.error_barrier(
        WITH_NORM, {}, {}, lambda network: 0.0, bn="aws", batches=BATCHES
    ),
}


class Drawn(torch.utils.data.Dataset[int]):
    """Items that are drawn in the worker that loads them."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> int:
        return seed_from(None)


def noted(case: Case, draw: Draw, seed: int) -> dict[str, Any]:
    """Return what a call gives from a global seed, and the global state that it leaves."""
    torch.manual_seed(seed)
    results = [each.detach().clone() for each in case(draw)]
    return {"results": results, "state": torch.get_rng_state()}


def silent() -> Any:
    """Fail at the first word to other ranks."""
    told = AssertionError("talked to the other ranks")
    return mock.patch.object(distributed, "broadcast_object_list", side_effect=told)


def refused(call: Callable[[], object]) -> str:
    """Return what a call says that must neither draw nor talk."""
    before = torch.get_rng_state()
    try:
        with silent():
            call()
    except (TypeError, ValueError) as error:
        assert torch.equal(torch.get_rng_state(), before)
        return str(error)
    raise AssertionError("not refused")


def left_waiting(rank: int, folder: str) -> list[str]:
    """Return what rank 0's calls say if rank 1 never makes them; they must change nothing."""
    late, limit = f"file://{folder}/late", timedelta(seconds=5)
    distributed.init_process_group(
        "gloo", init_method=late, rank=rank, world_size=WORLD, timeout=limit
    )
    said: list[str] = []
    if rank == 1:
        refused(BAD["prune"])
        time.sleep(8)
        return said
    model = copy.deepcopy(PLAIN)
    before = everything_of(model)
    for call in (lambda: pol.prune(model, random, density=0.5), lambda: Epsilon(0.5)(SIGNS, SIZES)):
        try:
            call()
        except RuntimeError as error:
            said.append(str(error))
        assert everything_of(model) == before
    return said


def one_rank(rank: int, folder: str, world: int) -> None:
    torch.set_num_threads(1)
    alone = f"file://{folder}/alone{rank}"
    distributed.init_process_group("gloo", init_method=alone, rank=0, world_size=1)
    with silent():
        notes = {f"alone {n}": noted(case, None, 100 + rank) for n, case in EVERY.items()}
    distributed.destroy_process_group()

    both = f"file://{folder}/both"
    distributed.init_process_group("gloo", init_method=both, rank=rank, world_size=WORLD)
    notes |= {name: noted(case, None, 100 + rank) for name, case in EVERY.items()}
    with silent():
        for name, case in EVERY.items():
            notes[f"own {name}"] = noted(case, generator(100 + rank), 0)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("meta"):
        notes |= {f"odd {name}": noted(case, None, 100 + rank) for name, case in EVERY.items()}
    torch.set_default_dtype(torch.float32)
    notes |= {f"bad {name}": refused(call) for name, call in BAD.items()}
    loader = DataLoader(Drawn(), num_workers=1, multiprocessing_context="fork")
    notes["worker"] = [int(each) for each in loader]
    distributed.barrier()
    distributed.destroy_process_group()
    notes["left waiting"] = left_waiting(rank, folder)
    torch.save(notes, f"{folder}/rank{rank}.pt")


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The ranks form groups of their own: each alone first, then both, then one that is left."""
    if not distributed.is_available():
        pytest.skip("this PyTorch has no torch.distributed")
    folder = tmp_path_factory.mktemp("ranks")
    start_processes(one_rank, folder, WORLD)
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(WORLD)]


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    pairs = zip(one["results"], other["results"], strict=True)
    return all(torch.equal(*pair) for pair in pairs)


@pytest.mark.parametrize("name", EVERY)
def test_every_draw_is_the_same_on_every_rank(ranks: Any, name: str) -> None:
    assert same(ranks[0][name], ranks[1][name])


@pytest.mark.parametrize("name", CASES)
def test_the_draws_are_those_of_rank_0_by_itself(ranks: Any, name: str) -> None:
    assert same(ranks[0][name], noted(CASES[name], None, 100))
    assert not same(ranks[1][name], noted(CASES[name], None, 101))


@pytest.mark.parametrize("name", DROPOUT)
def test_dropout_follows_a_seed_of_rank_0(ranks: Any, name: str) -> None:
    assert same(ranks[0][name], noted(DROPOUT[name], generator(100), 0))
    assert not same(ranks[0][name], noted(DROPOUT[name], generator(101), 0))


@pytest.mark.parametrize("name", EVERY)
def test_the_global_generators_of_all_ranks_advance_alike(ranks: Any, name: str) -> None:
    """Each is where it would be in a process by itself; after dropout, where it was."""
    for rank, notes in enumerate(ranks):
        torch.manual_seed(100 + rank)
        expected = torch.get_rng_state()
        if name in CASES:
            expected = noted(CASES[name], None, 100 + rank)["state"]
        assert torch.equal(notes[name]["state"], expected)


@pytest.mark.parametrize("name", EVERY)
def test_with_a_generator_nothing_is_communicated(ranks: Any, name: str) -> None:
    for rank, notes in enumerate(ranks):
        assert same(notes[f"own {name}"], noted(EVERY[name], generator(100 + rank), 0))
    assert not same(ranks[0][f"own {name}"], ranks[1][f"own {name}"])


@pytest.mark.parametrize("name", EVERY)
def test_one_rank_by_itself_draws_as_without_a_group(ranks: Any, name: str) -> None:
    for rank, notes in enumerate(ranks):
        expected = noted(EVERY[name], None, 100 + rank)
        assert same(notes[f"alone {name}"], expected)
        assert torch.equal(notes[f"alone {name}"]["state"], expected["state"])


@pytest.mark.parametrize("name", BAD)
def test_a_rank_whose_arguments_are_wrong_raises_before_it_draws_or_talks(
    ranks: Any, name: str
) -> None:
    assert ranks[0][f"bad {name}"] == ranks[1][f"bad {name}"] == refused(BAD[name])


@pytest.mark.parametrize("name", EVERY)
def test_neither_the_default_device_nor_the_default_dtype_changes_a_draw(
    ranks: Any, name: str
) -> None:
    for notes in ranks:
        assert same(notes[f"odd {name}"], ranks[0][name])


def test_a_rank_whose_partners_never_draw_raises_at_the_groups_timeout(ranks: Any) -> None:
    assert len(ranks[0]["left waiting"]) == 2
    assert "5000ms" in ranks[0]["left waiting"][0]


def test_a_data_loaders_worker_draws_by_itself(ranks: Any) -> None:
    """It was forked with the group of its rank, over which it cannot talk."""
    assert len({*ranks[0]["worker"], *ranks[1]["worker"]}) == 4
