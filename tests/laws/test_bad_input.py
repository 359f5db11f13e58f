"""Bad input to pruning: refused by name and value, with model, masks and optimizer untouched."""

import math

import pytest
import torch
from torch import Tensor, nn

import polarity as pol
from tests.laws.refusals import W0, W2, Run, in_the_middle, refuse, wide


@pytest.fixture
def run() -> Run:
    return in_the_middle()


def other_point(run: Run, **changes: Tensor) -> pol.RewindPoint:
    return pol.RewindPoint(run.init | changes, run.start.optimizer, run.start.scheduler)


def half_a_schedule(run: Run) -> torch.optim.Optimizer:
    """An optimizer that holds a masked weight, in groups unlike those of the rewind point."""
    return torch.optim.SGD([run.model[0].parametrizations.weight.original], lr=1)


PRUNING = {
    "both amount and density": (
        lambda r: pol.imp_prune(r.model, 0.2, density=0.5),
        ["amount=0.2", "density=0.5"],
    ),
    "both to prune": (
        lambda r: pol.prune(r.model, r.scores, amount=0.2, density=0.5),
        ["amount=0.2", "density=0.5"],
    ),
    "density and densities": (
        lambda r: pol.prune(r.model, r.scores, density=0.5, densities={W0: 0.1, W2: 0.1}),
        ["density=0.5", "densities={"],
    ),
    "none of the three": (
        lambda r: pol.prune(r.model, r.scores),
        ["amount=None", "density=None", "densities=None"],
    ),
    "density above the present": (
        lambda r: pol.imp_prune(r.model, density=0.9),
        ["density=0.9", "40", "27", "0.6"],
    ),
    "density above a layer's": (
        lambda r: pol.imp_prune(r.model, density=0.99, scope="layer"),
        ["density=0.99", W0, "30"],
    ),
    "density above the present, lrr": (
        lambda r: pol.lrr_step(r.model, density=0.8, rewind=r.start),
        ["density=0.8", "36", "27"],
    ),
    "a layer's density above its own": (
        lambda r: pol.prune(r.model, r.scores, densities={W0: 0.1, W2: 1.0}),
        ["density=1.0", W2, "15"],
    ),
    "densities lacks a layer": (
        lambda r: pol.prune(r.model, r.scores, densities={W0: 0.1}),
        ["densities", W2],
    ),
    "a layer's density out of range": (
        lambda r: pol.prune(r.model, r.scores, densities={W0: 0.1, W2: 1.5}),
        [W2, "1.5", "[0, 1]"],
    ),
    "densities for an unknown layer": (
        lambda r: pol.prune(r.model, r.scores, densities={W0: 0.1, W2: 0.1, "3.weight": 0.1}),
        ["densities", "3.weight"],
    ),
    "unknown scope": (
        lambda r: pol.imp_prune(r.model, 0.2, scope="model"),
        ["scope='model'", "'global'", "'layer'"],
    ),
    "unknown scope to prune": (
        lambda r: pol.prune(r.model, r.scores, density=0.1, scope="layers"),
        ["scope='layers'", "'global'", "'layer'"],
    ),
    "another word for ties": (
        lambda r: pol.imp_prune(r.model, 0.2, ties="first"),
        ["ties='first'", "'index'", "'random'"],
    ),
    "another word for ties to prune": (
        lambda r: pol.prune(r.model, r.scores, density=0.1, ties="draw"),
        ["ties='draw'", "'index'", "'random'"],
    ),
    "score lacks a layer": (
        lambda r: pol.prune(r.model, {W0: r.scores[W0]}, density=0.1),
        ["scores", W2],
    ),
    "score for an unknown layer": (
        lambda r: pol.prune(r.model, r.scores | {"3.weight": torch.ones(3)}, density=0.1),
        ["scores", "3.weight"],
    ),
    "score of another shape": (
        lambda r: pol.prune(r.model, r.scores | {W2: torch.ones(5, 3)}, density=0.1),
        [W2, "(5, 3)", "(3, 5)"],
    ),
    "score function of another shape": (
        lambda r: pol.imp_prune(r.model, 0.2, score=lambda name, weight: weight.sum(0)),
        [W0, "(6,)", "(5, 6)"],
    ),
    "score of integers": (
        lambda r: pol.imp_prune(r.model, 0.2, score=lambda name, weight: weight.int()),
        [W0, "torch.int32"],
    ),
    "score of NaN": (
        lambda r: pol.prune(r.model, r.scores | {W2: wide(math.nan, (3, 5))}, density=0.1),
        [W2, "NaN"],
    ),
    "infinite score": (
        lambda r: pol.imp_prune(r.model, 0.2, score=lambda name, w: wide(math.inf, w.shape)),
        [W0, "infinite"],
    ),
    "rewind lacks a bias": (
        lambda r: pol.imp_prune(r.model, 0.2, rewind=pol.RewindPoint(r.without("2.bias"))),
        ["rewind", "'2.bias'"],
    ),
    "rewind lacks a running mean": (
        lambda r: pol.imp_prune(r.model, 0.2, rewind=pol.RewindPoint(r.without("1.running_mean"))),
        ["rewind", "'1.running_mean'"],
    ),
    "rewind knows too much": (
        lambda r: pol.imp_prune(r.model, 0.2, rewind=other_point(r, head=torch.ones(1))),
        ["rewind", "'head'"],
    ),
    "rewind of another shape": (
        lambda r: pol.imp_prune(r.model, 0.2, rewind=other_point(r, **{W2: torch.ones(5, 3)})),
        ["rewind", W2, "(5, 3)", "(3, 5)"],
    ),
    "scheduler without rewind": (
        lambda r: pol.imp_prune(r.model, 0.2, scheduler=r.scheduler),
        ["scheduler=StepLR", "rewind"],
    ),
    "scheduler the point does not hold": (
        lambda r: pol.imp_prune(
            r.model, 0.2, rewind=pol.RewindPoint(r.init), scheduler=r.scheduler
        ),
        ["scheduler=StepLR", "rewind point holds none"],
    ),
    "optimizer the point does not hold": (
        lambda r: pol.lrr_step(r.model, 0.2, rewind=pol.RewindPoint({}), optimizer=r.optimizer),
        ["optimizer=Adam", "rewind point holds none"],
    ),
    "optimizer of another model": (
        lambda r: pol.imp_prune(
            r.model, 0.2, optimizer=torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=1)
        ),
        ["optimizer=SGD", W0],
    ),
    "optimizer of other groups": (
        lambda r: pol.imp_prune(r.model, 0.2, rewind=r.start, optimizer=half_a_schedule(r)),
        ["optimizer", "[1]", "[6]"],
    ),
    "optimizer of other groups, lrr": (
        lambda r: pol.lrr_step(r.model, 0.2, rewind=r.start, optimizer=half_a_schedule(r)),
        ["optimizer", "[1]", "[6]"],
    ),
}


@pytest.mark.parametrize(("call", "parts"), PRUNING.values(), ids=PRUNING.keys())
def test_pruning_refuses(run, call, parts):
    refuse(run, call, ValueError, parts)


@pytest.mark.parametrize("bad", [-0.01, 1.01, 20, math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("parameter", ["amount", "density"])
@pytest.mark.parametrize("scope", ["global", "layer"])
def test_a_fraction_out_of_range_is_refused(run, parameter, bad, scope):
    given, parts = {parameter: bad, "scope": scope}, [f"{parameter}={bad!r}", "[0, 1]"]
    refuse(run, lambda r: pol.imp_prune(r.model, **given), ValueError, parts)
    refuse(run, lambda r: pol.lrr_step(r.model, rewind=r.start, **given), ValueError, parts)
    refuse(run, lambda r: pol.prune(r.model, r.scores, **given), ValueError, parts)


WRONG_TYPES = {
    "amount": (lambda r: pol.imp_prune(r.model, "0.2"), ["amount='0.2'", "str"]),
    "amount, bool": (lambda r: pol.imp_prune(r.model, True), ["amount=True", "bool"]),
    "density": (lambda r: pol.imp_prune(r.model, density=[0.2]), ["density=[0.2]", "list"]),
    "densities": (lambda r: pol.prune(r.model, r.scores, densities=0.2), ["densities", "float"]),
    "score": (lambda r: pol.imp_prune(r.model, score=lambda n, w: w.tolist()), [W0, "list"]),
    "rewind": (lambda r: pol.imp_prune(r.model, rewind=r.init), ["rewind", "dict"]),
    "rewind, lrr": (lambda r: pol.lrr_step(r.model, rewind=None), ["rewind", "NoneType"]),
}


@pytest.mark.parametrize(("call", "parts"), WRONG_TYPES.values(), ids=WRONG_TYPES.keys())
def test_an_argument_of_another_type_is_refused(run, call, parts):
    refuse(run, call, TypeError, parts)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    "call",
    [
        lambda r: pol.imp_prune(r.model, 0.2),
        lambda r: pol.imp_prune(r.model, 0.2, score=pol.scores.random),
        lambda r: pol.imp_prune(r.model, 0.2, rewind=r.start, optimizer=r.optimizer),
        lambda r: pol.lrr_step(r.model, 0.2, rewind=r.start, optimizer=r.optimizer),
        lambda r: pol.reinit_signs(r.model, init=r.start),
    ],
    ids=["imp_prune", "with a score that does not look", "with rewind", "lrr_step", "reinit_signs"],
)
def test_a_weight_that_is_not_finite_is_refused_by_name_and_number(run, call, bad):
    with torch.no_grad():
        run.model[2].parametrizations.weight.original[pol.masks(run.model)[W2]] = bad
    living = int(pol.masks(run.model)[W2].sum())
    refuse(run, call, ValueError, [W2, f"{living} NaN or infinite"])


def test_an_amount_is_refused_while_a_mask_is_only_remembered(run):
    now = pol.RewindPoint.capture(run.model)
    pol.reinit_signs(run.model, "standard", init=run.start, trained=now)
    parts = ["amount=0.2", W0, "density="]
    refuse(run, lambda r: pol.imp_prune(r.model), ValueError, parts)
    refuse(run, lambda r: pol.lrr_step(r.model, rewind=r.start), ValueError, parts)
    refuse(run, lambda r: pol.prune(r.model, r.scores, amount=0.2), ValueError, parts)
