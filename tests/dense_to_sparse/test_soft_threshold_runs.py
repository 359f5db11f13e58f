"""Soft thresholds on two ranks, under a GradScaler, in micro-batches, and where writes fail."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, optim
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

import polarity as pol
from polarity.dense_to_sparse import (
    extract_soft_mask,
    soft_density,
    soft_mask,
    threshold_weights,
)
from tests.dense_to_sparse.cases import batches, masked, network, parts
from tests.helpers import from_ranks
from tests.laws.refusals import fingerprint
from tests.laws.test_failing_writes import Injected, failing_at

WORLD = 2


def trained(product: bool, rank: int | None) -> dict[str, Tensor]:
    model = masked(0.8, product=product).double()
    sgd = optim.SGD(model.parameters(), 0.1, momentum=0.9)
    threshold_weights(model, sgd, decay=0.01, s0=-3.0)
    outer: Any = model
    if rank is not None:
        outer = DistributedDataParallel(model, broadcast_buffers=False)
    for _, (x, y) in zip(range(10), parts(rank), strict=False):
        sgd.zero_grad()
        cross_entropy(outer(x), y).backward()
        sgd.step()
    support = soft_mask(outer)
    assert soft_density(outer) < pol.density(model)
    extract_soft_mask(model, sgd)
    momentum = [sgd.state[p]["momentum_buffer"] for p in model.parameters()]
    return support | dict(model.state_dict()) | {f"momentum {i}": m for i, m in enumerate(momentum)}


def one_rank(rank: int, folder: str) -> list[dict[str, Tensor]]:
    return [trained(product, rank) for product in (False, True)]


def test_two_ranks_end_with_the_same_support_weights_and_state_as_one_process(tmp_path: Path):
    ranks = from_ranks(one_rank, tmp_path, WORLD)
    for product in (False, True):
        alone = trained(product, None)
        for key, value in alone.items():
            assert torch.equal(ranks[0][product][key], ranks[1][product][key]), key
            torch.testing.assert_close(ranks[0][product][key], value, rtol=1e-9, atol=1e-12)


def test_a_step_that_a_scaler_skips_moves_no_threshold():
    model = network()
    sgd = optim.SGD(model.parameters(), 0.1, momentum=0.9)
    s = threshold_weights(model, sgd, decay=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**4)
    (x, y), start = next(batches()), [p.item() for p in s.values()]
    for poisoned in (True, False):
        sgd.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = cross_entropy(model(x).float(), y)
        scaler.scale(loss * (torch.inf if poisoned else 1)).backward()
        scaler.step(sgd)
        scaler.update()
        assert ([p.item() for p in s.values()] == start) == poisoned


def test_micro_batches_give_the_gradient_of_the_whole_batch():
    found = []
    for pieces in (1, 3):
        model = network().double()
        s = threshold_weights(model, None, decay=0.1, s0=-2.0)
        x, y = next(parts(None))
        for a, b in zip(x[:6].chunk(pieces), y[:6].chunk(pieces), strict=True):
            (cross_entropy(model(a), b) / pieces).backward()
        found.append([p.grad for p in s.values()])
    torch.testing.assert_close(found[0], found[1])


@pytest.mark.parametrize("product", [False, True])
def test_a_failure_in_any_write_of_the_extraction_leaves_everything_as_it_was(product):
    model = masked(0.8, product=product)
    sgd = optim.SGD(model.parameters(), 0.1, momentum=0.9)
    threshold_weights(model, sgd, decay=0.01, s0=-3.0)
    x, y = next(batches())
    cross_entropy(model(x), y).backward()
    sgd.step()

    def everything() -> Any:
        return fingerprint([model.state_dict(), sgd.state_dict()])

    before = everything()
    for place in range(20):
        with failing_at(place) as made, suppress(Injected):
            extract_soft_mask(model, sgd)
        if len(made) <= place:
            break
        assert everything() == before, f"write {place}, {made[-1]}"
    else:
        pytest.fail("the call never succeeded")
    assert everything() != before
