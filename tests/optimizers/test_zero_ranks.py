"""Two ranks that divide their optimizer's state prune and rewind as two that keep all of it."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

import polarity as pol
from polarity.dense_to_sparse import RigL
from polarity.optimizers.states import state_of
from tests.helpers import from_ranks, leaf_and_mask, plain_state, same_state, train_step
from tests.models import seeded

pytestmark = pytest.mark.slow

WORLD = 2
FORMS = ["masks in forward", "masks in the step", "Sign-In"]
MOMENTS = ["pruned", "rewound", "schedule rewound", "rewired"]


def net() -> nn.Module:
    widths = (6, 8, 9, 3)
    layers = [nn.Linear(*pair) for pair in pairwise(widths)]
    return seeded(nn.Sequential(layers[0], nn.Tanh(), layers[1], nn.Tanh(), layers[2])).train()


def captured(model: nn.Module, adam: Any, divided: bool) -> pol.RewindPoint:
    """Capture model and optimizer; of a divided one the ranks are given the whole state in turn."""
    if not divided:
        return pol.RewindPoint.capture(model, adam)
    points = []
    for rank in range(WORLD):
        adam.consolidate_state_dict(to=rank)
        if rank == distributed.get_rank():
            points.append(pol.RewindPoint.capture(model, adam))
    return points[0]


def zeros_outside(model: nn.Module, adam: Any) -> list[int]:
    """Check this rank's state of all parameters, and return which it keeps."""
    here = []
    for at, (leaf, mask) in enumerate(leaf_and_mask(model)):
        for key, value in state_of(adam).get(leaf, {}).items():
            if value.shape == leaf.shape:
                assert not value[~mask].any(), key
                assert value[mask].any(), key
                here.append(at)
    return sorted(set(here))


def life(form: str, divided: bool, rank: int) -> dict[str, Any]:
    """Train, prune and rewind under DDP; return the weights at each moment, and what is where."""
    from torch.distributed.optim import ZeroRedundancyOptimizer

    model = pol.mask_weights(net())
    if form == "Sign-In":
        pol.sign_in(model)
    parallel = DistributedDataParallel(model, broadcast_buffers=False)
    if divided:
        adam: Any = ZeroRedundancyOptimizer(model.parameters(), torch.optim.Adam, lr=0.02)
    else:
        adam = torch.optim.Adam(model.parameters(), lr=0.02)
    if form == "masks in the step":
        pol.enforce_in_step(parallel, adam)
    draw = torch.Generator().manual_seed(10 + rank)
    moments: dict[str, Any] = {}

    def train(steps: int = 2) -> None:
        for _ in range(steps):
            train_step(parallel, adam, (torch.randn(4, 6, generator=draw),))

    def note(moment: str) -> None:
        train(1)
        moments[moment] = plain_state(model)

    train()
    start = captured(model, adam, divided)
    train()
    report = pol.imp_prune(parallel, 0.3, optimizer=adam)
    kept = zeros_outside(model, adam)
    note("pruned")
    train()
    rewound = pol.imp_prune(parallel, 0.3, rewind=start, optimizer=adam)
    zeros_outside(model, adam)
    note("rewound")
    adam.param_groups[0]["lr"] = 1.0
    pol.lrr_step(parallel, 0.3, rewind=start, optimizer=adam)
    rate = adam.param_groups[0]["lr"]
    note("schedule rewound")
    if form == "masks in forward":
        schedule = RigL(
            parallel, adam, every=2, end=9, fraction=0.3, generator=torch.Generator().manual_seed(0)
        )
        for _ in range(3):
            train(1)
            schedule.step()
    note("rewired")
    return {"moments": moments, "kept": kept, "notes": list(report.notes),
            "rewound": list(rewound.notes), "rate": rate}  # fmt: skip


def refusals(rank: int) -> list[str]:
    """Return what calls say of a state that is not on this rank."""
    from torch.distributed.optim import ZeroRedundancyOptimizer

    model = pol.mask_weights(net())
    zero = ZeroRedundancyOptimizer(model.parameters(), torch.optim.Adam, lr=0.02)
    train_step(DistributedDataParallel(model), zero, (torch.ones(4, 6),))
    zero.consolidate_state_dict(to=0)
    said = []
    for call in (
        lambda: pol.RewindPoint.capture(model, zero),
        lambda: pol.sign_in(model, optimizer=zero),
    ):
        try:
            call()
            said.append("")
        except (RuntimeError, ValueError) as error:
            said.append(f"{type(error).__name__}: {error}")
    return said


def one_rank(rank: int, folder: str) -> Any:
    results: dict[str, Any] = {
        f"{form}, {divided}": life(form, divided, rank) for form in FORMS for divided in (0, 1)
    }
    results["refusals"] = refusals(rank)
    return results


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return from_ranks(one_rank, tmp_path_factory.mktemp("ranks"), WORLD)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("moment", MOMENTS)
def test_weights_and_masks_are_those_of_an_optimizer_that_is_whole(
    ranks: Any, form: str, moment: str
) -> None:
    states: list[dict[str, Tensor]] = [
        rank[f"{form}, {divided}"]["moments"][moment] for rank in ranks for divided in (0, 1)
    ]
    assert all(same_state(states[0], other) for other in states[1:])


@pytest.mark.parametrize("form", FORMS)
def test_each_rank_zeroes_what_it_keeps_and_together_they_keep_everything(
    ranks: Any, form: str
) -> None:
    first, second = (rank[f"{form}, 1"]["kept"] for rank in ranks)
    count = len(ranks[0][f"{form}, 0"]["kept"])
    assert sorted(first + second) == list(range(count))
    assert first
    assert second


def test_the_report_names_what_is_on_other_ranks_and_rewinding_reaches_it(ranks: Any) -> None:
    for rank in ranks:
        divided, whole = rank["masks in forward, 1"], rank["masks in forward, 0"]
        (note,) = divided["notes"]
        assert note.startswith("not zeroed: the state that ZeroRedundancyOptimizer keeps on other")
        assert whole["notes"] == []
        assert "rewound: optimizer" in divided["rewound"]
        assert divided["rate"] == 0.02


def test_state_that_is_on_other_ranks_is_not_captured_and_factors_are_refused(ranks: Any) -> None:
    first, second = (rank["refusals"] for rank in ranks)
    assert first[0] == ""
    assert "consolidate_state_dict(to=1)" in second[0]
    for said in (first[1], second[1]):
        assert said.startswith("ValueError: optimizer=ZeroRedundancyOptimizer has divided its")
