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


def equal(name: str, weight: Tensor) -> Tensor:
    return torch.zeros_like(weight)


@pytest.mark.parametrize(
    "how", [{"ties": "random", "score": equal}, {"score": pol.scores.random}], ids=["ties", "score"]
)
def test_a_run_that_is_resumed_draws_what_it_would_have_drawn(how: Any) -> None:
    given = {"every": 1, "rounds": 3, **how}
    model, other = build(), build()
    rounds = pol.PruneRounds(model, 0.5, **given)
    rounds.step()
    state = rounds.state_dict()
    masks = pol.masks(model)
    for _ in range(2):
        rounds.step()
    again = pol.PruneRounds(other, 0.5, **given)
    assert again.state_dict()["seed"] != state["seed"]
    pol.load_masks(other, masks)
    again.load_state_dict(state)
    for _ in range(2):
        again.step()
    torch.testing.assert_close(pol.masks(other), pol.masks(model))


def test_a_generator_gives_the_seed_and_rounds_draw_differently() -> None:
    kept = []
    for _ in range(2):
        model, draw = build(), torch.Generator().manual_seed(3)
        before = torch.get_rng_state()
        given = {"score": pol.scores.random, "generator": draw}
        rounds = pol.PruneRounds(model, 0.5, every=1, rounds=2, **given)
        rounds.step()
        first = pol.masks(model)
        pol.load_masks(model, {name: torch.ones_like(mask) for name, mask in first.items()})
        rounds.step()
        assert not torch.equal(pol.masks(model)["0.weight"], first["0.weight"])
        assert torch.equal(torch.get_rng_state(), before)
        kept.append(pol.masks(model))
    torch.testing.assert_close(*kept)


def test_rounds_by_magnitude_draw_nothing() -> None:
    model, before = build(), torch.get_rng_state()
    rounds = pol.PruneRounds(model, 0.5, every=1, rounds=1)
    assert rounds.state_dict()["seed"] is None
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("rewind", ["weights", "schedule", None])
def test_compact_weights_are_pruned_and_rewound_as_masked_ones(rewind: Any) -> None:
    found = []
    for compact in (False, True):
        model = build()
        pol.imp_prune(model, density=0.5)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        trained(model, optimizer, 0)
        if compact:
            pol.compact(model, optimizer=optimizer, break_even=1.0)
            compacted = [each for each in model.modules() if isinstance(each, pol.MaskedWeight)]
            assert all(each.places is not None for each in compacted)
        rounds = pol.PruneRounds(model, 0.5, every=1, rounds=2, rewind=rewind, optimizer=optimizer)
        for epoch in range(1, 4):
            trained(model, optimizer, epoch)
            rounds.step()
            rounds.load_state_dict(rounds.state_dict())
        found.append((values(model), pol.masks(model)))
    torch.testing.assert_close(found[0], found[1])


@pytest.mark.parametrize("rewind", ["weights", "schedule", None])
def test_several_optimizers_and_schedulers_are_rewound(rewind: Any) -> None:
    model = build()
    halves = [torch.optim.Adam(layer.parameters(), lr=0.1) for layer in (model[0], model[2])]
    decays = [torch.optim.lr_scheduler.StepLR(each, 1, 0.5) for each in halves]
    given = {} if rewind is None else {"scheduler": decays}
    rounds = pol.PruneRounds(
        model, 0.5, every=1, rounds=1, rewind=rewind, optimizer=halves, **given
    )
    for half, decay in zip(halves, decays, strict=True):
        trained(model, half, 1)
        decay.step()
    report = rounds.step()
    assert report is not None
    assert [each.param_groups[0]["lr"] for each in halves] == 2 * [0.05 if rewind is None else 0.1]


def test_the_point_of_another_moment_can_be_given() -> None:
    model = build()
    start = pol.RewindPoint.capture(model)
    with torch.no_grad():
        model[0].bias.add_(1)
    rounds = pol.PruneRounds(model, 0.5, every=1, rounds=1, rewind="weights", point=start)
    rounds.step()
    assert torch.equal(model[0].bias, start.weights["0.bias"])
    assert rounds.point is start


def refused() -> dict[str, tuple[Any, str]]:
    model = build()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    stranger = torch.optim.SGD(build().parameters(), lr=0.1)
    alone = pol.RewindPoint.capture(model)
    return {
        "a scheduler without rewind": (
            {"scheduler": scheduler},
            "scheduler=StepLR is given without rewind",
        ),
        "a point without rewind": ({"point": alone}, "point is given without rewind"),
        "a point without what is rewound": (
            {"point": alone, "rewind": "schedule", "optimizer": optimizer},
            "the rewind point holds none",
        ),
        "a point without the scheduler": (
            {"point": alone, "rewind": "weights", "scheduler": scheduler},
            "the rewind point holds none",
        ),
        "an optimizer of another model": ({"optimizer": stranger}, "holds none of the 2 weights"),
    } | {"model": (model, "")}


@pytest.mark.parametrize("case", [case for case in refused() if case != "model"])
def test_what_a_round_would_refuse_is_refused_when_the_schedule_is_made(case: str) -> None:
    cases = refused()
    given, text = cases[case]
    model = cases["model"][0]
    with pytest.raises(ValueError, match=text):
        pol.PruneRounds(model, every=1, rounds=1, **given)
    assert not hasattr(model[0], "parametrizations")


def test_a_round_that_fails_is_not_counted() -> None:
    model = build()
    rounds = pol.PruneRounds(model, 0.5, every=1, rounds=1)
    with torch.no_grad():
        model[0].parametrizations.weight.original.fill_(torch.nan)
    with pytest.raises(ValueError, match="NaN"):
        rounds.step()
    assert (rounds.epoch, rounds.report) == (0, None)


def test_what_is_made_in_inference_mode_trains_on() -> None:
    with torch.inference_mode():
        rounds = pol.PruneRounds(model := build_outside(), 0.5, every=1, rounds=1)
        rounds.step()
    trained(model, torch.optim.SGD(model.parameters(), lr=0.1), 1)
    assert pol.density(model) == 0.5


def build_outside() -> nn.Module:
    with torch.inference_mode(False):
        return build()
