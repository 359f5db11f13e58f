"""Rounds of pruning as a schedule."""

import io
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import polarity as pol
from tests.models import seeded


def build() -> nn.Sequential:
    return seeded(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)), 0)


def trained(model: nn.Module, optimizer: torch.optim.Optimizer, epoch: int) -> None:
    draw = torch.Generator().manual_seed(epoch)
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.randn(5, 6, generator=draw)).square().mean().backward()
        optimizer.step()


def started(rewind: Any, **more: Any) -> tuple[nn.Module, Any, Any, pol.PruneRounds]:
    model = build()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
    given = {} if rewind is None else {"scheduler": scheduler}
    rounds = pol.PruneRounds(
        model, 0.5, every=2, rounds=2, rewind=rewind, optimizer=optimizer, **given, **more
    )
    return model, optimizer, scheduler, rounds


def values(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in pol.dense_state_dict(model).items()}


@pytest.mark.parametrize("rewind", ["weights", "schedule", None])
def test_rounds_do_what_the_calls_do_by_hand(rewind: Any) -> None:
    model, optimizer, scheduler, rounds = started(rewind)
    other = pol.mask_weights(build())
    sgd = torch.optim.SGD(other.parameters(), lr=0.1, momentum=0.9)
    halving = torch.optim.lr_scheduler.StepLR(sgd, 1, 0.5)
    start = pol.RewindPoint.capture(other, sgd, halving)
    for epoch in range(1, 7):
        trained(model, optimizer, epoch)
        scheduler.step()
        report = rounds.step()
        trained(other, sgd, epoch)
        halving.step()
        if epoch in (2, 4):
            if rewind == "weights":
                pol.imp_prune(other, 0.5, rewind=start, optimizer=sgd, scheduler=halving)
            elif rewind == "schedule":
                pol.lrr_step(other, 0.5, rewind=start, optimizer=sgd, scheduler=halving)
            else:
                pol.imp_prune(other, 0.5, optimizer=sgd)
        assert (report is not None) == (epoch in (2, 4))
        torch.testing.assert_close(values(model), values(other), rtol=0, atol=0)
        assert optimizer.param_groups[0]["lr"] == sgd.param_groups[0]["lr"]
    assert rounds.report is not None
    assert pol.density(model) == 0.25


@pytest.mark.parametrize("rewind", ["weights", "schedule", None])
@pytest.mark.parametrize("at", range(1, 6))
def test_a_run_continues_from_the_state_of_its_rounds_with_the_rewind_point(
    rewind: Any, at: int
) -> None:
    model, optimizer, scheduler, rounds = started(rewind)
    for epoch in range(1, 7):
        trained(model, optimizer, epoch)
        scheduler.step()
        rounds.step()
        if epoch == at:
            kept = [x.state_dict() for x in (model, optimizer, scheduler, rounds)]
            kept = torch.load(_saved(kept), weights_only=True)
    again = started(rewind)
    trained(again[0], again[1], 99)  # its own rewind point is another
    for each, state in zip(again, kept, strict=True):
        each.load_state_dict(state)
    for epoch in range(at + 1, 7):
        trained(again[0], again[1], epoch)
        again[2].step()
        again[3].step()
    torch.testing.assert_close(values(again[0]), values(model), rtol=0, atol=0)
    torch.testing.assert_close(pol.masks(again[0]), pol.masks(model))


def _saved(states: Any) -> Any:
    file = io.BytesIO()
    torch.save(states, file)
    file.seek(0)
    return file


def test_selected_weights_alone_are_masked_and_pruned() -> None:
    model = build()
    rounds = pol.PruneRounds(model, 0.5, every=1, rounds=1, targets=["0.weight"])
    rounds.step()
    assert list(pol.masks(model)) == ["0.weight"]
    assert pol.density(model) == 0.5


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"amount": 1.5}, "amount=1.5"),
        ({"every": 0}, "every=0"),
        ({"rounds": 0}, "rounds=0"),
        ({"rewind": "all"}, "rewind='all'"),
        ({"rewind": "schedule"}, "optimizer=None is given with rewind='schedule'"),
        ({"scope": "row"}, "scope='row'"),
        ({"ties": "first"}, "ties='first'"),
    ],
)
def test_what_is_out_of_range_is_refused_when_the_schedule_is_made(given: Any, text: str) -> None:
    model = build()
    with pytest.raises(ValueError, match=text):
        pol.PruneRounds(model, **{"every": 1, "rounds": 1, **given})
    assert not hasattr(model[0], "parametrizations")
