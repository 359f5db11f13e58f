"""Two ranks that do not share buffers: masks, weights and optimizer state stay the same on both."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

import polarity as pol
from polarity.dense_to_sparse import ACDC, SET, GradualMagnitude, RigL
from tests.dense_to_sparse.cases import OPTIMIZERS, masked, network, parts, snapshot
from tests.helpers import from_ranks

WORLD, STEPS = 2, 10
KINDS = (
    *("rigl", "rigl, steps kept", "rigl, random ties", "set", "acdc", "gradual"),
    *("rigl, adam", "acdc, adam"),
)
RUNS = [(kind, product) for kind in KINDS for product in (False, True)]
DRAWN = [("set, seed of rank 0", False)]  # without a generator
IDS = [f"{kind}, Sign-In {product}" for kind, product in RUNS + DRAWN]


def scheduled(kind: str, model: nn.Module, optimizer: Any) -> Any:
    """Return a schedule; it draws from a generator that is the same on every rank, or from none."""
    generator = None if kind.endswith("seed of rank 0") else torch.Generator().manual_seed(0)
    if kind.startswith("rigl"):
        return RigL(
            model,
            optimizer,
            every=2,
            end=30,
            fraction=0.5,
            replace_step=kind != "rigl, steps kept",
            ties="random" if kind.endswith("ties") else "index",
            generator=generator,
        )
    if kind.startswith("set"):
        return SET(model, optimizer, every=2, fraction=0.3, generator=generator)
    if kind.startswith("acdc"):
        return ACDC(model, optimizer, density=0.25, switches=(2, 5, 8))
    return GradualMagnitude(model, optimizer, density=0.1, begin=0, end=9, every=2)


def trained(kind: str, product: bool, rank: int | None) -> list[Any]:
    """Train on a rank's batches, half of them in two micro-batches, and return all states."""
    model = masked(product=product).double()
    if rank is None:
        outer: Any = model
    else:
        outer = DistributedDataParallel(model, broadcast_buffers=False)
    built = OPTIMIZERS["adam" if kind.endswith("adam") else "sgd"](model.parameters())
    schedule = scheduled(kind, outer, built)
    states = []
    for step, (x, y) in zip(range(STEPS), parts(rank), strict=False):
        built.zero_grad()
        if step % 4 == 1:
            half = len(x) // 2
            if rank is None:
                (cross_entropy(outer(x[:half]), y[:half]) / 2).backward()
            else:
                with outer.no_sync():
                    (cross_entropy(outer(x[:half]), y[:half]) / 2).backward()
            (cross_entropy(outer(x[half:]), y[half:]) / 2).backward()
        else:
            cross_entropy(outer(x), y).backward()
        if kind == "rigl, steps kept":
            schedule.collect()
            nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        built.step()
        schedule.step()
        states.append(snapshot(model, built, schedule))
    return states


def one_rank(rank: int, folder: str) -> Any:
    torch.manual_seed(rank)  # what is drawn from the global generator would differ
    plain = DistributedDataParallel(network())
    try:
        RigL(plain, torch.optim.SGD(plain.parameters(), 0.1), every=1, end=3)
        refused = ""
    except TypeError as error:
        refused = str(error)
    results = [trained(*run, rank) for run in [*RUNS, *DRAWN]]
    return [refused, results]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    return from_ranks(one_rank, tmp_path_factory.mktemp("ranks"), WORLD)


def differences(one: Any, other: Any, where: str = "") -> list[str]:
    """Return where two nested states differ."""
    if isinstance(one, Tensor):
        return [] if torch.equal(one, other) else [where]
    if isinstance(one, dict):
        assert list(one) == list(other)
        return [d for key in one for d in differences(one[key], other[key], f"{where}/{key}")]
    if isinstance(one, list):
        pairs = enumerate(zip(one, other, strict=True))
        return [d for i, pair in pairs for d in differences(*pair, f"{where}/{i}")]
    return [] if one == other else [where]


@pytest.mark.parametrize("run", range(len(RUNS + DRAWN)), ids=IDS)
def test_ranks_hold_the_same_masks_weights_and_optimizer_state(ranks: Any, run: int) -> None:
    assert differences(ranks[0][1][run], ranks[1][1][run]) == []


@pytest.mark.parametrize("run", range(len(RUNS)), ids=IDS[: len(RUNS)])
def test_ranks_have_the_masks_of_one_process_with_all_the_data(ranks: Any, run: int) -> None:
    alone = trained(*RUNS[run], None)
    moved = 0
    for theirs, ours, before in zip(ranks[0][1][run], alone, [None, *alone], strict=False):
        for key, value in ours[0].items():
            if key.endswith(".mask"):
                assert torch.equal(theirs[0][key], value), key
                moved += before is not None and not torch.equal(before[0][key], value)
    assert moved > 1


def test_a_plain_model_is_masked_before_it_is_wrapped(ranks: Any) -> None:
    assert all("attach before wrapping" in refused for refused, _ in ranks)
    assert "RigL" in ranks[0][0]


def test_a_difference_would_be_seen() -> None:
    assert differences([{"a": torch.ones(1)}], [{"a": torch.zeros(1)}]) == ["/0/a"]


def test_wrapped_models_keep_plain_names() -> None:
    model = masked()
    wrapped = nn.DataParallel(model)
    sgd = OPTIMIZERS["sgd"](model.parameters())
    schedule = scheduled("rigl", wrapped, sgd)
    assert list(schedule.state_dict()["explored"]) == list(pol.masks(model))
