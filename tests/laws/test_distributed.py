"""Two processes under DistributedDataParallel prune and re-sign alike, with buffers sent or not."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import polarity as pol
from polarity import Delta, Epsilon, Phi
from polarity.attach.norms import attached_norms
from tests.forms import random_masks
from tests.helpers import from_ranks, plain_state, same_state, train_step
from tests.models import CROSS_ENTROPY
from tests.models import small_conv as small

WORLD = 2
MOMENTS = ("pruned", "resigned", "trained", "revived", "pruned_again", "rewound", "drawn", "merged")
MOMENTS += ("signed_in", "interpolated")  # new wrappings: what is converted is wrapped afterwards
SENT = [True, False]
BATCHES = [(torch.linspace(-1, 1, 6 * 32).view(6, 2, 4, 4), torch.arange(6) % 3)]
SCORES: dict[str, Any] = {
    "magnitude": pol.scores.magnitude,
    "random": pol.scores.random,
    "magnitude_increase": lambda m, start: pol.scores.magnitude_increase(start),
    "large_final_same_sign": lambda m, start: pol.scores.large_final_same_sign(start),
    "large_final_diff_sign": lambda m, start: pol.scores.large_final_diff_sign(start),
    "snip": lambda m, start: pol.scores.snip(m, CROSS_ENTROPY, BATCHES),
    "grasp": lambda m, start: pol.scores.grasp(m, CROSS_ENTROPY, BATCHES),
    "synflow": lambda m, start: pol.scores.synflow(m, BATCHES[0][0][:1], density=0.3, steps=3),
}
STRATEGIES = ("mask1", "mask0", "gradual", "standard", "initial", "trained")
PERTURB: dict[str, Any] = {
    "nothing": None,
    "phi": Phi(1e-3),
    "epsilon": Epsilon(0.3),
    "delta": Delta(0.4),
    "all three": [Phi(1e-3), Epsilon(0.3), Delta(0.4)],
}


def life(rank: int, sent: bool) -> dict[str, Any]:
    """Prune, re-sign and train on this rank's own data; return what is held at each moment."""
    # Each rank starts from weights of its own, and from masks of its own if these are sent.
    model = small(rank)
    pol.mask_weights(model, masks=random_masks(model, 0.9, seed=rank if sent else 0))
    parallel = DistributedDataParallel(model, broadcast_buffers=sent)
    inputs = (torch.randn(6, 2, 4, 4, generator=torch.Generator().manual_seed(10 + rank)),)
    sgd = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=0.01)
    start = pol.RewindPoint.capture(model, sgd)
    draw = torch.Generator().manual_seed(7)
    moments: dict[str, Any] = {}

    def train(steps: int = 3) -> None:
        for _ in range(steps):
            train_step(parallel, sgd, inputs)

    def note(moment: str) -> None:
        moments[moment] = plain_state(model)

    train()
    pol.imp_prune(model, 0.3, optimizer=sgd)
    note("pruned")
    pol.reinit_signs(model, "gradual", PERTURB["all three"], init=start, generator=draw)
    note("resigned")
    train()
    note("trained")
    now = pol.RewindPoint.capture(model)
    pol.reinit_signs(
        model,
        "standard",
        Epsilon(0.2),
        init=start,
        trained=now,
        scope="global",
        generator=draw,
    )
    note("revived")
    train()
    pol.imp_prune(model, density=0.4, optimizer=sgd, scope="layer")
    note("pruned_again")
    train()
    pol.imp_prune(model, 0.2, rewind=start, optimizer=sgd)
    note("rewound")
    train()
    pol.imp_prune(model, 0.5, score=pol.scores.random, generator=draw, optimizer=sgd)
    train()
    note("drawn")
    pol.merge(model, optimizer=sgd)
    note("merged")

    pol.sign_in(model)
    parallel = DistributedDataParallel(model, broadcast_buffers=sent)
    sgd = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    schedule = pol.RescaleSchedule(model, every=2, optimizer=sgd, momentum="transform")
    for _ in range(3):
        schedule.step()
        train()
    note("signed_in")

    pol.merge(model)
    pol.interpolate_norms(model)
    parallel = DistributedDataParallel(model, broadcast_buffers=sent)
    sgd = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    train()
    note("interpolated")
    moments["interpolated"] |= attached_norms(model)
    return moments


def calls(rank: int) -> dict[str, Any]:
    """Make many calls on copies of one trained model, drawing from rank 0's seeds."""
    model = small(rank)
    pol.mask_weights(model)
    parallel = DistributedDataParallel(model, broadcast_buffers=False)
    inputs = (torch.randn(6, 2, 4, 4, generator=torch.Generator().manual_seed(10 + rank)),)
    sgd = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    start = pol.RewindPoint.capture(model, sgd)
    for _ in range(3):
        train_step(parallel, sgd, inputs)
    model.eval()  # scores of a loss would follow the running statistics, which are the rank's own
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
    now = pol.RewindPoint.capture(model)
    done: dict[str, Any] = {}

    def made(name: str, call: Callable[[nn.Module], object]) -> None:
        twin = copy.deepcopy(model)
        report = call(twin)
        done[name] = {"report": str(report), "state": parameters_and_masks(plain_state(twin))}

    for name, score in SCORES.items():
        by = score if name in ("magnitude", "random") else score(model, start)
        made(f"prune by {name}", lambda m, by=by: pol.prune(m, by, density=0.4, ties="random"))
    for strategy in STRATEGIES:
        for name, perturb in PERTURB.items():
            made(
                f"{strategy}, {name}",
                lambda m, strategy=strategy, perturb=perturb: (
                    pol.imp_prune(m, 0.4),
                    pol.reinit_signs(m, strategy, perturb, init=start, trained=now),
                ),
            )
    for rewind in ("weights", "schedule", None):
        made(f"rounds, {rewind}", lambda m, rewind=rewind: one_round(m, rewind))
    made("lrr_step", lambda m: pol.lrr_step(m, 0.5, rewind=start, ties="random"))
    made("imp_prune, layers", lambda m: pol.imp_prune(m, 0.5, scope="layer", rewind=start))
    return done


def one_round(model: nn.Module, rewind: Any) -> Any:
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    return pol.PruneRounds(
        model, 0.5, every=1, rounds=1, rewind=rewind, optimizer=sgd, ties="random"
    ).step()


CALLS = (
    *(f"prune by {name}" for name in SCORES),
    *(f"{strategy}, {name}" for strategy in STRATEGIES for name in PERTURB),
    *(f"rounds, {rewind}" for rewind in ("weights", "schedule", None)),
    *("lrr_step", "imp_prune, layers"),
)


def one_rank(rank: int, folder: str) -> Any:
    torch.manual_seed(rank)  # a draw that passes by its generator would differ between the ranks
    results = {"lives": [life(rank, sent) for sent in SENT], "calls": calls(rank)}
    return results


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return from_ranks(one_rank, tmp_path_factory.mktemp("ranks"), WORLD)


def parameters_and_masks(state: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in state.items() if "running" not in name}


@pytest.fixture(params=SENT, ids=["buffers sent", "buffers not sent"])
def lives(ranks: Any, request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    return [rank["lives"][SENT.index(request.param)] for rank in ranks]


@pytest.mark.parametrize("moment", MOMENTS)
def test_both_ranks_hold_the_same_masks_and_weights(lives: Any, moment: str) -> None:
    first, second = (parameters_and_masks(rank[moment]) for rank in lives)
    assert same_state(first, second)


@pytest.mark.parametrize("name", CALLS)
def test_a_call_has_the_same_outcome_and_report_on_both_ranks(ranks: Any, name: str) -> None:
    first, second = (rank["calls"][name] for rank in ranks)
    assert first["report"] == second["report"]
    assert same_state(first["state"], second["state"])


def test_calls_that_differ_have_different_outcomes(ranks: Any) -> None:
    """Equal masks are no accident of one density, nor equal signs of one strategy."""
    done = ranks[0]["calls"]
    states = [str(each["state"]) for each in done.values()]
    assert len(set(states)) > 25
    assert list(done) == list(CALLS)


def test_running_statistics_that_are_not_sent_are_the_rank_s_own(ranks: Any) -> None:
    for at, sent in enumerate(SENT):
        means = [rank["lives"][at]["pruned"]["1.running_mean"] for rank in ranks]
        assert not torch.equal(*means), sent


def test_what_the_ranks_agree_on_is_what_one_process_would_do(lives: Any) -> None:
    counts = []
    for moment in ("pruned", "pruned_again", "rewound", "drawn"):
        state = lives[0][moment]
        masks = [state[f"{layer}.parametrizations.weight.0.mask"] for layer in (0, 4)]
        stored = [state[f"{layer}.parametrizations.weight.original"] for layer in (0, 4)]
        assert all(torch.equal(w != 0, mask) for w, mask in zip(stored, masks, strict=True))
        counts.append(sum(int(mask.sum()) for mask in masks))
    alive = sum(int(mask.sum()) for mask in random_masks(small(0), 0.9, seed=0).values())
    first = alive - round(0.3 * alive)
    second = round(0.4 * 72) + round(0.4 * 48)
    third = second - round(0.2 * second)
    assert counts == [first, second, third, third - round(0.5 * third)]


def test_rewinding_under_ddp_returns_to_the_weights_that_ddp_shared(lives: Any) -> None:
    initial = small(0).state_dict()
    state = lives[1]["rewound"]
    assert torch.equal(state["4.bias"], initial["4.bias"])
    mask = state["4.parametrizations.weight.0.mask"] != 0
    mask_at_start = random_masks(small(0), 0.9, seed=0)["4.weight"]
    expected = initial["4.weight"].masked_fill(~(mask & mask_at_start), 0.0)
    assert torch.equal(state["4.parametrizations.weight.original"], expected)


def test_the_ranks_really_trained_together(lives: Any) -> None:
    before, after = lives[0]["resigned"], lives[0]["trained"]
    assert not torch.equal(before["4.bias"], after["4.bias"])
    assert not same_state(lives[0]["pruned"], before)


def test_factors_really_trained_together_after_conversion(lives: Any) -> None:
    before, after = lives[0]["merged"], lives[0]["signed_in"]
    m, v = (after[f"4.parametrizations.weight.original{i}"] for i in (0, 1))
    assert not torch.equal(before["4.weight"], m * v)
