"""What cannot be compact is refused before anything is changed."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import polarity as pol
from tests.helpers import everything_of, sparse_wins
from tests.laws.refusals import fingerprint
from tests.models import mlp, x_of
from tests.survivors.test_compact import W0, W2, pruned

Refused = tuple[nn.Module, dict[str, Any]]


def without_masks() -> Refused:
    return mlp(6, 8, 3), {}


def unmasked_name() -> Refused:
    model = mlp(6, 8, 3)
    pol.imp_prune(model, density=0.2, targets=W0)
    return model, {"targets": nn.Linear}


def remembered() -> Refused:
    model = pruned()
    start = pol.RewindPoint.capture(model)
    pol.imp_prune(model, density=0.1)
    pol.reinit_signs(model, init=start, strategy="standard", trained=start)
    return model, {}


def thresholded() -> Refused:
    model = pruned()
    sgd = torch.optim.SGD(model.parameters(), 0.1)
    pol.dense_to_sparse.threshold_weights(model, sgd, decay=1e-4, targets=W2)
    return model, {}


def in_step() -> Refused:
    model = pruned()
    pol.enforce_in_step(model, torch.optim.SGD(model.parameters(), 0.1))
    return model, {}


def averaged() -> Refused:
    model = pruned()
    model[0].parametrizations.weight[0].mask.mul_(0.5)
    return model, {}


def on_meta() -> Refused:
    with torch.device("meta"):
        model = pol.mask_weights(mlp(6, 8, 3))
    return model, {}


def with_lbfgs() -> Refused:
    model = pruned()
    return model, {"optimizer": torch.optim.LBFGS(model.parameters())}


def with_anothers() -> Refused:
    return pruned(), {"optimizer": torch.optim.SGD(pruned().parameters(), 0.1)}


def with_state_of_another_shape() -> Refused:
    model = pruned()
    adam = torch.optim.Adam(model.parameters())
    model(x_of(4, 6)).sum().backward()
    adam.step()
    adam.state[model[0].parametrizations.weight.original]["exp_avg"] = torch.zeros(3)
    return model, {"optimizer": adam}


class Muon(torch.optim.SGD):
    """Has the name of an optimizer that takes matrices alone, which PyTorch 2.6 has not."""


def with_muon() -> Refused:
    model = pruned()
    return model, {"optimizer": Muon([p for p in model.parameters() if p.ndim == 2], 0.1)}


REFUSED: dict[Callable[[], Refused], str] = {
    without_masks: "has no masked weights: prune it",
    unmasked_name: "'2.weight' carries no mask, expected a masked weight: prune it first",
    remembered: r"the mask of '0.weight' is remembered, .* load_masks\(model, masks\(model\)\)",
    thresholded: "'2.weight' is also parametrized by SoftThreshold, .* exclude='2.weight'",
    in_step: r"enforced in the optimizer's step, .* call remove\(\)",
    averaged: "mask of '0.weight' holds values other than 0 and 1",
    on_meta: "'0.weight' on the meta device, expected values",
    with_lbfgs: "optimizer=LBFGS keeps one flat state",
    with_anothers: "optimizer=SGD holds none of the 2 weights",
    with_state_of_another_shape: "keeps 'exp_avg' of '0.weight' in shape",
    with_muon: "optimizer=Muon takes matrices alone",
}


@pytest.mark.filterwarnings("ignore:the mask of '0.weight' was changed from outside")
@pytest.mark.parametrize("measured", [False, True])
@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.__name__)
def test_it_is_refused_and_nothing_is_changed(case: Callable[[], Refused], measured: bool) -> None:
    model, given = case()
    if measured:
        given = {**given, "example_inputs": x_of(4, 6), "measure": sparse_wins}
    else:
        given = {**given, "break_even": 1.0}
    meta = any(each.is_meta for each in model.parameters())
    before = None if meta else everything_of(model)
    optimizer, draw = given.get("optimizer"), torch.Generator().manual_seed(3)
    state = fingerprint(optimizer.state_dict()) if optimizer else None
    with pytest.raises(ValueError, match=REFUSED[case]):
        pol.compact(model, generator=draw, **given)
    assert meta or everything_of(model) == before
    assert optimizer is None or fingerprint(optimizer.state_dict()) == state
    assert torch.equal(draw.get_state(), torch.Generator().manual_seed(3).get_state())


def test_a_model_inside_ddp_is_refused() -> None:
    model = pruned()
    wrapped = object.__new__(DistributedDataParallel)  # without a process group
    nn.Module.__init__(wrapped)
    wrapped.module = model
    before = everything_of(model)
    with pytest.raises(TypeError, match="wrapped in DistributedDataParallel"):
        pol.compact(wrapped, break_even=1.0)
    assert everything_of(model) == before
    pol.compact(model, break_even=1.0)
    with pytest.raises(TypeError, match="wrapped in DistributedDataParallel"):
        pol.expand(wrapped)


WRONG = {
    "a margin below 1": ({"margin": 0.5}, ValueError, "margin=0.5, expected a number of at least"),
    "a density": ({"break_even": 1.5}, ValueError, "break_even=1.5 is out of range"),
    "no function": ({"measure": 3}, TypeError, r"measure=3 is an int, .*\(masked, compact\)"),
    "one number": ({"measure": lambda m, c: 1.0}, TypeError, "measure returned 1.0, expected two"),
    "no inputs": ({"example_inputs": "x"}, TypeError, "example_inputs is a str, expected a tensor"),
    "no flag": ({"verbose": 1}, TypeError, "verbose=1 is an int"),
}


@pytest.mark.parametrize(("given", "error", "said"), WRONG.values(), ids=WRONG.keys())
def test_bad_arguments_are_named(given: Any, error: type[Exception], said: str) -> None:
    model, draw = pruned(), torch.Generator().manual_seed(3)
    before = everything_of(model)
    with pytest.raises(error, match=said):
        pol.compact(model, **({"example_inputs": x_of(4, 6), "generator": draw} | given))
    assert everything_of(model) == before
    assert torch.equal(draw.get_state(), torch.Generator().manual_seed(3).get_state())


@pytest.mark.parametrize("compact_already", [False, True])
def test_after_an_error_of_model_or_measure_everything_is_as_it_was(compact_already: bool) -> None:
    def broken(masked: Any, compact: Any) -> Any:
        masked(), compact()
        raise OSError("no clock")

    model, draw = pruned(), torch.Generator().manual_seed(3)
    adam = torch.optim.Adam(model.parameters())
    if compact_already:
        pol.compact(model, break_even=1.0, optimizer=adam)
    model(x_of(4, 6)).sum().backward()
    adam.step()
    before = everything_of(model), fingerprint(adam.state_dict())
    with pytest.raises(OSError, match="no clock"):
        pol.compact(model, x_of(4, 6), optimizer=adam, measure=broken, generator=draw)
    with pytest.raises(RuntimeError, match="shapes"):
        pol.compact(model, x_of(4, 5), optimizer=adam, measure=sparse_wins, generator=draw)
    assert (everything_of(model), fingerprint(adam.state_dict())) == before
    assert torch.equal(draw.get_state(), torch.Generator().manual_seed(3).get_state())
    assert not any("forward" in vars(module) for module in model.modules())
    model(x_of(4, 6)).sum().backward()
    adam.step()


def test_expand_refuses_what_is_not_compact_and_what_is_no_model() -> None:
    model = pruned()
    before = everything_of(model)
    with pytest.raises(ValueError, match="Sequential has no compact weights: call compact first"):
        pol.expand(model)
    assert everything_of(model) == before
    with pytest.raises(TypeError, match=r"model is an int, expected a torch\.nn\.Module"):
        pol.expand(3)
