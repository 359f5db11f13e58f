"""A call that fails leaves compact weights and their optimizer as they were, object for object."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import polarity as pol
from polarity.dense_to_sparse import ACDC
from tests.helpers import everything_of
from tests.models import mlp
from tests.survivors.cases import FORMS, Run, adam, compacted, net, pair, sgd


def held(run: Run) -> list[Any]:
    """Return all that a run holds: bits, and which objects and memory hold them."""
    optimizer = run.optimizer
    return [
        everything_of(run.model),
        [(id(p), p.data_ptr(), p.shape, id(p.grad)) for p in run.model.parameters()],
        [
            (id(p), id(state), [(k, id(v), str(v)) for k, v in state.items()])
            for p, state in optimizer.state.items()
        ],
        [[id(p) for p in g["params"]] for g in optimizer.param_groups],
        [{k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups],
        [(id(m), id(m.places), m.spread, m.enforce) for m in maskings(run.model)],
    ]


def maskings(model: nn.Module) -> list[pol.MaskedWeight]:
    return [m for m in model.modules() if isinstance(m, pol.MaskedWeight)]


def spoiled(run: Run) -> None:
    """Write a NaN into the last survivor of the last weight."""
    with torch.no_grad():
        list(run.model.parameters())[-1].view(-1)[-1] = math.nan


def failing(name: str, weight: torch.Tensor) -> torch.Tensor:
    if name.startswith("2"):
        raise RuntimeError("no score")
    return weight.abs()


def late(run: Run) -> Any:
    """Return what fails in the middle of a call, after the first layer was looked at."""
    return {n: m if n.startswith("0") else m[:1] for n, m in pol.masks(run.model).items()}


def aside(build: Callable[[], Any]) -> Any:
    """Build something without a draw from the random state that is compared."""
    with torch.random.fork_rng():
        return build()


def elsewhere() -> torch.optim.Optimizer:
    return aside(lambda: sgd(nn.Linear(2, 2)))


def other() -> nn.Module:
    return aside(lambda: mlp(6, 4, 3))


CALLS: dict[str, Callable[[Run], Any]] = {
    "imp_prune, bad amount": lambda r: pol.imp_prune(r.model, 1.5, optimizer=r.optimizer),
    "imp_prune, bad score": lambda r: pol.imp_prune(
        r.model, 0.3, score=failing, optimizer=r.optimizer
    ),
    "imp_prune, another optimizer": lambda r: pol.imp_prune(r.model, 0.3, optimizer=elsewhere()),
    "imp_prune, no optimizer": lambda r: pol.imp_prune(r.model, 0.3, optimizer="adam"),
    "imp_prune, other point": lambda r: pol.imp_prune(
        r.model, 0.3, rewind=pol.RewindPoint.capture(other()), optimizer=r.optimizer
    ),
    "lrr_step, a point without state": lambda r: pol.lrr_step(
        r.model, 0.3, rewind=pol.RewindPoint.capture(r.model), optimizer=r.optimizer
    ),
    "rewinding an optimizer of another class": lambda r: pol.imp_prune(
        r.model,
        0.3,
        rewind=pol.RewindPoint.capture(r.model, sgd(r.model)),
        optimizer=r.optimizer,
    ),
    "load_masks, late": lambda r: pol.load_masks(r.model, late(r)),
    "load_masks, growth": lambda r: pol.load_masks(
        r.model, {n: torch.ones_like(m) for n, m in pol.masks(r.model).items()}
    ),
    "restore_weights": lambda r: pol.RewindPoint.capture(other()).restore_weights(r.model),
    "reinit_signs": lambda r: pol.reinit_signs(r.model, "mask0", init=other().state_dict()),
    "sign_in": lambda r: pol.sign_in(r.model, beta=-1.0, optimizer=r.optimizer),
    "merge": lambda r: pol.merge(r.model, optimizer=elsewhere()),
    "expand": lambda r: pol.expand(r.model, optimizer=elsewhere()),
    "compact": lambda r: pol.compact(r.model, optimizer=elsewhere(), targets="0.weight"),
    "compact, no weight": lambda r: pol.compact(r.model, targets="0.bias"),
    "reinitialize": lambda r: pol.reinitialize(r.model, init=lambda w: 1 / 0),
    "ticket": lambda r: pol.signed_mask(aside(lambda: net(density=0.9))).apply(r.model),
    "start_from_mask": lambda r: pol.start_from_mask(r.model, late(r)),
    "ACDC": lambda r: ACDC(r.model, r.optimizer, density=0.3, switches=(1,)),
    "capture": lambda r: pol.RewindPoint.capture(r.model, [r.optimizer, r.optimizer]),
}
WITH_NAN: dict[str, Callable[[Run], Any]] = {
    "imp_prune": lambda r: pol.imp_prune(r.model, 0.3, optimizer=r.optimizer),
    "sign_in": lambda r: pol.sign_in(r.model, optimizer=r.optimizer),
    "signed_mask": lambda r: pol.signed_mask(r.model),
}


@pytest.mark.filterwarnings("ignore:.*entries are 0 in this initialisation")
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("form", FORMS)
def test_a_failing_call_leaves_everything_as_it_was(form: str, call: str) -> None:
    if form == "Sign-In" and call == "sign_in":
        pytest.skip("what is Sign-In already is not converted again")
    run = pair(FORMS[form], adam)[1].train(1)
    before = held(run)
    with pytest.raises((ValueError, TypeError, RuntimeError, ZeroDivisionError)):
        CALLS[call](run)
    assert held(run) == before
    run.train(1)


@pytest.mark.parametrize("call", WITH_NAN)
def test_a_weight_that_is_no_number_is_refused_and_all_stays(call: str) -> None:
    run = pair(False, adam)[1].train(1)
    spoiled(run)
    before = held(run)
    with pytest.raises(ValueError, match="NaN"):
        WITH_NAN[call](run)
    assert held(run)[1:] == before[1:]


def test_rescaling_that_fails_leaves_everything_as_it_was() -> None:
    run = pair(True, adam)[1].train(1)
    before = held(run)
    with pytest.raises(ValueError, match="momentum='transform' needs optimizer="):
        pol.rescale(run.model, momentum="transform")
    assert held(run) == before
    with torch.no_grad():
        next(iter(run.model[2].parametrizations.parameters()))[-1] = math.inf
    before = held(run)
    with pytest.raises(ValueError, match="holds 1 NaN or infinite"):
        pol.rescale(run.model, optimizer=run.optimizer, momentum="zero")
    assert held(run) == before


def test_calls_that_look_leave_every_object_and_its_memory() -> None:
    run = pair(True, adam)[1].train(1)
    before = held(run)
    pol.RewindPoint.capture(run.model, run.optimizer)
    pol.masks(run.model), pol.density(run.model), pol.signed_mask(run.model)
    pol.inner_scaling(run.model), pol.frobenius_decay(run.model)
    assert held(run) == before


def test_compact_refuses_a_mask_of_fractions() -> None:
    model = net()
    maskings(model)[1].mask.mul_(0.5)
    with pytest.raises(ValueError, match="values other than 0 and 1"):
        compacted(model)
