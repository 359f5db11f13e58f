"""State of the wrong shape is an error that names parameter, key and both shapes."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import polarity as pol
from polarity.optimizers.states import misshapen
from tests.forms import half_masked
from tests.helpers import train_step
from tests.laws.refusals import fingerprint
from tests.models import noise, seeded

INPUTS = noise(8, 6)(torch.Generator().manual_seed(2))


def net(seed: int = 0) -> nn.Sequential:
    return seeded(nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)), seed)


OPTIMIZERS: dict[str, tuple[Callable[[Any], torch.optim.Optimizer], str]] = {
    "sgd": (lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9), "momentum_buffer"),
    "adam": (lambda p: torch.optim.Adam(p, lr=0.01), "exp_avg"),
    "rmsprop": (lambda p: torch.optim.RMSprop(p, lr=0.01), "square_avg"),
    "adagrad": (lambda p: torch.optim.Adagrad(p, lr=0.01), "sum"),
    "adadelta": (lambda p: torch.optim.Adadelta(p, lr=0.01), "square_avg"),
    "rprop": (lambda p: torch.optim.Rprop(p, lr=0.01), "prev"),
    "asgd": (lambda p: torch.optim.ASGD(p, lr=0.01), "ax"),
}

CALLS: dict[str, Callable[..., object]] = {
    "imp_prune": lambda m, o: pol.imp_prune(m, 0.2, optimizer=o),
    "prune": lambda m, o: pol.prune(m, pol.scores.magnitude, amount=0.2, optimizer=o),
    "lrr_step": lambda m, o: pol.lrr_step(
        m, 0.2, rewind=pol.RewindPoint.capture(m, type(o)(o.param_groups)), optimizer=o
    ),
    "sign_in": lambda m, o: pol.sign_in(m, optimizer=o),
    "merge": lambda m, o: pol.merge(m, optimizer=o),
    "PruneRounds": lambda m, o: pol.PruneRounds(m, every=1, rounds=1, optimizer=o),
}


def exchanged(model: nn.Module, build: Callable[[Any], Any]) -> torch.optim.Optimizer:
    """The state of an optimizer whose parameters had another order, loaded by position."""
    parameters = list(model.parameters())
    places = [0, 3, 2, 1]  # a masked model has its biases first
    theirs = build([parameters[place] for place in places])
    train_step(model, theirs, INPUTS)
    mine = build(parameters)
    mine.load_state_dict(theirs.state_dict())
    return mine


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_exchanged_state_is_refused_by_parameter_key_and_both_shapes(kind: str, call: str) -> None:
    build, key = OPTIMIZERS[kind]
    model = half_masked(net())
    optimizer = exchanged(model, build)
    before = fingerprint([model.state_dict(), optimizer.state_dict()])
    said = rf"optimizer=\w+ keeps '{key}' of '0\.weight' in shape \(3, 5\), .*'s \(5, 6\)"
    with pytest.raises(ValueError, match=said):
        CALLS[call](model, optimizer)
    assert fingerprint([model.state_dict(), optimizer.state_dict()]) == before


FACTOR_CALLS: dict[str, Callable[..., object]] = {
    "rescale": lambda m, o: pol.rescale(m, optimizer=o),
    "RescaleSchedule": lambda m, o: pol.RescaleSchedule(m, every=1, optimizer=o),
    "transform": lambda m, o: pol.rescale(m, optimizer=o, momentum="transform"),
    "merge": lambda m, o: pol.merge(m, optimizer=o),
    "imp_prune": lambda m, o: pol.imp_prune(m, 0.1, optimizer=o),
}


@pytest.mark.parametrize("call", FACTOR_CALLS)
def test_exchanged_state_of_factors_is_refused_too(call: str) -> None:
    model = pol.sign_in(half_masked(net()))
    first, second = (layer.parametrizations.weight.original1 for layer in (model[0], model[2]))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    train_step(model, optimizer, INPUTS)
    optimizer.state[first], optimizer.state[second] = (
        optimizer.state[second],
        optimizer.state[first],
    )
    before = fingerprint([model.state_dict(), optimizer.state_dict()])
    with pytest.raises(ValueError, match=r"keeps 'exp_avg' of '0\.weight' in shape \(3, 5\)"):
        FACTOR_CALLS[call](model, optimizer)
    assert fingerprint([model.state_dict(), optimizer.state_dict()]) == before


def test_moments_of_equal_shapes_cannot_be_told_apart_and_step_counts_are_no_moments() -> None:
    shape = torch.Size([2, 3])
    fine = {
        "step": torch.tensor(3.0),
        "row_var": torch.ones(2, 1),
        "col_var": torch.ones(1, 3),
        "exp_avg": torch.ones(2, 3),
        "momentum_buffer": None,
    }
    assert misshapen(fine, shape) is None
    assert misshapen({"exp_avg": torch.ones(3, 2)}, shape) == "exp_avg"
    assert misshapen({"exp_avg_sq": torch.ones(())}, shape) == "exp_avg_sq"


@pytest.mark.parametrize("call", CALLS)
def test_factored_moments_pass_every_call(call: str) -> None:
    model = half_masked(net())
    optimizer = torch.optim.Adafactor(model.parameters(), lr=0.01)
    train_step(model, optimizer, INPUTS)
    assert {"row_var", "col_var"} <= optimizer.state[next(model.parameters())].keys() | set(
        optimizer.state[list(model.parameters())[1]]
    )
    if call == "lrr_step":
        point = pol.RewindPoint.capture(model, optimizer)
        pol.lrr_step(model, 0.2, rewind=point, optimizer=optimizer)
    elif call == "sign_in":
        with pytest.warns(UserWarning, match="Adafactor remembers"):
            CALLS[call](model, optimizer)
    else:
        CALLS[call](model, optimizer)
    train_step(model, optimizer, INPUTS)


@pytest.mark.parametrize("call", ["imp_prune", "prune", "sign_in", "merge"])
@pytest.mark.parametrize(
    "kept",
    [
        lambda p: torch.ones(()).expand(p.shape),
        lambda p: torch.ones(p.shape).to_sparse(),
        lambda p: torch.ones(p.shape).to(torch.float8_e4m3fn),
    ],
    ids=["expanded", "sparse", "float8"],
)
def test_state_that_cannot_be_zeroed_is_refused_by_name_and_changes_nothing(kept, call) -> None:
    model = half_masked(net())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    leaf = model[2].parametrizations.weight.original
    optimizer.state[leaf]["momentum_buffer"] = kept(leaf)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=r"keeps 'momentum_buffer' of '2\.weight' as .*optimizer="):
        CALLS[call](model, optimizer)
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], value) for name, value in before.items())
