"""Two processes under DistributedDataParallel: masks in the step train as masks in forward do."""

from typing import Any

import pytest
import torch
from torch import Tensor, distributed, nn, optim
from torch.nn.parallel import DistributedDataParallel

import polarity as pol
from tests.forms import random_masks
from tests.helpers import from_ranks, leaf_and_mask, same_state
from tests.models import seeded

WORLD = 2
RUNS = [(view, product) for view in (False, True) for product in (False, True)]


def trained(bucket_view: bool, product: bool, in_step: bool, batches: list[Tensor]) -> Any:
    """Train on this rank's batches and return the state of the model."""
    model = seeded(nn.Sequential(nn.Linear(8, 9), nn.ReLU(), nn.Linear(9, 3))).train()
    # The ranks start from masks of their own: wrapping makes them rank 0's.
    pol.mask_weights(model, masks=random_masks(model, seed=distributed.get_rank()))
    if product:
        pol.sign_in(model)
    parallel = DistributedDataParallel(model, gradient_as_bucket_view=bucket_view)
    sgd = optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=0.01)
    if in_step:
        pol.enforce_in_step(parallel, sgd)
    for step, batch in enumerate(batches):
        sgd.zero_grad(set_to_none=step % 2 == 0)
        parallel(batch).square().mean().backward()
        for leaf, mask in leaf_and_mask(model):
            assert leaf.grad.any()
            assert not leaf.grad[~mask].any(), "an unmasked gradient was averaged"
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        sgd.step()
        if step == 5:
            pol.imp_prune(model, 0.3, optimizer=sgd)
    return model.state_dict()


def one_rank(rank: int, folder: str) -> Any:
    draw = torch.Generator().manual_seed(rank)
    batches = [torch.randn(6, 8, generator=draw) for _ in range(12)]
    results = [[trained(*run, in_step, batches) for in_step in (True, False)] for run in RUNS]
    return results


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    return from_ranks(one_rank, tmp_path_factory.mktemp("ranks"), WORLD)


@pytest.mark.parametrize("run", range(len(RUNS)), ids=[f"view {v}, Sign-In {p}" for v, p in RUNS])
def test_both_ways_of_masking_train_alike_on_two_ranks(ranks: Any, run: int) -> None:
    states = [state for rank in ranks for state in rank[run]]
    assert all(same_state(states[0], state) for state in states[1:])


def test_bucket_views_change_nothing(ranks: Any) -> None:
    assert same_state(ranks[0][0][0], ranks[0][2][0])
    assert same_state(ranks[0][1][0], ranks[0][3][0])
