"""Two processes under DistributedDataParallel prune and re-sign alike without talking about it."""

from typing import Any

import pytest
import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

import polarity as pol
from tests.helpers import from_ranks, same_state, train_step
from tests.models import random_masks, seeded

WORLD = 2
MOMENTS = ("pruned", "resigned", "trained", "revived", "pruned_again", "rewound", "drawn", "merged")
MOMENTS += ("signed_in",)  # a new wrapping: what is converted is wrapped afterwards


def small(seed: int) -> nn.Sequential:
    return seeded(
        nn.Sequential(
            nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3)
        ),
        seed,
    ).train()


def one_rank(rank: int, folder: str) -> None:
    """Prune, re-sign and train on this rank's own data; write what the model holds at each step."""
    torch.set_num_threads(1)
    torch.manual_seed(rank)  # a draw that passes by its generator would differ between the ranks
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=WORLD
    )
    # Each rank starts from weights and masks of its own: DDP makes them rank 0's.
    model = small(rank)
    pol.mask_weights(model, masks=random_masks(model, 0.9, seed=rank))
    parallel = DistributedDataParallel(model)
    inputs = (torch.randn(6, 2, 4, 4, generator=torch.Generator().manual_seed(10 + rank)),)
    sgd = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=0.01)
    start = pol.RewindPoint.capture(model, sgd)
    draw = torch.Generator().manual_seed(7)
    moments = {}

    def train(steps: int = 3) -> None:
        for _ in range(steps):
            train_step(parallel, sgd, inputs)

    def note(moment: str) -> None:
        moments[moment] = {k: v.detach().clone() for k, v in model.state_dict().items()}

    train()
    pol.imp_prune(model, 0.3, optimizer=sgd)
    note("pruned")
    perturb = [pol.Phi(1e-3), pol.Epsilon(0.3), pol.Delta(0.4)]
    pol.reinit_signs(model, "gradual", perturb, init=start, generator=draw)
    note("resigned")
    train()
    note("trained")
    now = pol.RewindPoint.capture(model)
    pol.reinit_signs(
        model,
        "standard",
        pol.Epsilon(0.2),
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
    parallel = DistributedDataParallel(model)
    sgd = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    schedule = pol.RescaleSchedule(model, every=2, optimizer=sgd, momentum="transform")
    for _ in range(3):
        schedule.step()
        train()
    note("signed_in")
    torch.save(moments, f"{folder}/rank{rank}.pt")
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return from_ranks(one_rank, tmp_path_factory.mktemp("ranks"), WORLD)


def parameters_and_masks(state: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in state.items() if "running" not in name}


@pytest.mark.parametrize("moment", MOMENTS)
def test_both_ranks_hold_the_same_masks_and_weights(ranks: Any, moment: str) -> None:
    first, second = (parameters_and_masks(rank[moment]) for rank in ranks)
    assert same_state(first, second)


def test_what_the_ranks_agree_on_is_what_one_process_would_do(ranks: Any) -> None:
    counts = []
    for moment in ("pruned", "pruned_again", "rewound", "drawn"):
        state = ranks[0][moment]
        masks = [state[f"{layer}.parametrizations.weight.0.mask"] for layer in (0, 4)]
        stored = [state[f"{layer}.parametrizations.weight.original"] for layer in (0, 4)]
        assert all(torch.equal(w != 0, mask) for w, mask in zip(stored, masks, strict=True))
        counts.append(sum(int(mask.sum()) for mask in masks))
    alive = sum(int(mask.sum()) for mask in random_masks(small(0), 0.9, seed=0).values())
    first = alive - round(0.3 * alive)
    second = round(0.4 * 72) + round(0.4 * 48)
    third = second - round(0.2 * second)
    assert counts == [first, second, third, third - round(0.5 * third)]


def test_rewinding_under_ddp_returns_to_the_weights_that_ddp_shared(ranks: Any) -> None:
    initial = small(0).state_dict()
    state = ranks[1]["rewound"]
    assert torch.equal(state["4.bias"], initial["4.bias"])
    mask = state["4.parametrizations.weight.0.mask"] != 0
    mask_at_start = random_masks(small(0), 0.9, seed=0)["4.weight"]
    expected = initial["4.weight"].masked_fill(~(mask & mask_at_start), 0.0)
    assert torch.equal(state["4.parametrizations.weight.original"], expected)


def test_the_ranks_really_trained_together(ranks: Any) -> None:
    before, after = ranks[0]["resigned"], ranks[0]["trained"]
    assert not torch.equal(before["4.bias"], after["4.bias"])
    assert not same_state(ranks[0]["pruned"], before)


def test_factors_really_trained_together_after_conversion(ranks: Any) -> None:
    before, after = ranks[0]["merged"], ranks[0]["signed_in"]
    m, v = (after[f"4.parametrizations.weight.original{i}"] for i in (0, 1))
    assert not torch.equal(before["4.weight"], m * v)
