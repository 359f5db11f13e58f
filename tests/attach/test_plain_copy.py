"""Copies without attachments: of models that polarity, torch's pruning or a hook has touched."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm

import polarity as pol
from polarity._running import twice_differentiable
from polarity.attach.plain_copy import full_copy, plain_copy, plain_state
from polarity.scores import grasp, snip, synflow
from tests.forms import FORMS, Form, half_masked, random_masks
from tests.helpers import everything_of
from tests.models import KINDS, Tied, seeded

pytest.importorskip("scipy")

X = torch.randn(6, 4, generator=torch.Generator().manual_seed(3))
Y = torch.randint(3, (6,), generator=torch.Generator().manual_seed(4))
LOSS = nn.CrossEntropyLoss()


def small() -> nn.Sequential:
    return seeded(nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)))


def pruned(layer: nn.Module) -> nn.Module:
    mask = random_masks(layer)["weight"]
    prune.custom_from_mask(layer, "weight", mask)
    return prune.l1_unstructured(layer, "bias", amount=2)


# What others may have done to the first layer; after a forward pass a plain deepcopy of the hooks'
# models dies.
TOUCHED = {
    "torch_prune": pruned,
    "weight_norm": weight_norm,
    "spectral_norm": spectral_norm,
    "weight_norm_parametrization": parametrizations.weight_norm,
}
COMPUTED = ("weight_norm", "spectral_norm", "weight_norm_parametrization")
each_touch = pytest.mark.parametrize("touch", TOUCHED)
pytestmark = pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")


def touched(touch: str) -> nn.Sequential:
    """Return a model that was touched in its first layer and has been trained a step since."""
    model = small()
    torch.manual_seed(0)  # spectral_norm draws where its power iteration starts
    TOUCHED[touch](model[0])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    LOSS(model(X), Y).backward()
    optimizer.step()
    optimizer.zero_grad()
    model(X)
    return model.eval()


@each_touch
def test_a_full_copy_is_a_model_of_its_own_that_computes_the_same(touch: str) -> None:
    model = touched(touch)
    before, output = everything_of(model), model(X)
    twin = full_copy(model)
    assert list(twin.state_dict()) == list(model.state_dict())
    assert torch.equal(twin(X), output)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.mul_(2)
    assert not torch.equal(twin(X), output)
    assert everything_of(model) == before


@each_touch
def test_a_plain_copy_computes_the_same_and_leaves_the_model_alone(touch: str) -> None:
    model = touched(touch)
    expected = small() if touch == "torch_prune" else model
    before, output = everything_of(model), model(X)
    plain = plain_copy(model)
    assert torch.equal(plain(X), output)
    assert sorted(plain.state_dict()) == sorted(expected.state_dict())
    assert everything_of(model) == before
    assert pol.find_targets(plain, exclude="0" if touch in COMPUTED else None)


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_a_plain_copy_of_every_form_has_plain_names_and_computes_the_same(form: Form) -> None:
    for kind in KINDS:
        plain, inputs = seeded(kind.build()).eval(), kind.inputs(torch.Generator().manual_seed(2))
        keys = list(plain.state_dict())
        model = form.attach(plain)
        twin = plain_copy(model)
        assert list(twin.state_dict()) == keys
        if form.multiplies:  # which adds in another order
            torch.testing.assert_close(twin(*inputs), model(*inputs), rtol=1e-4, atol=1e-5)
        else:
            assert torch.equal(twin(*inputs), model(*inputs))
        assert pol.masks(model)


def test_a_tied_weight_with_two_masks_has_no_plain_copy() -> None:
    model = seeded(Tied())
    prune.random_unstructured(model.encoder, "weight", amount=3)
    with pytest.raises(ValueError, match="does not mask them alike"):
        plain_copy(model)


def on_a_fresh_copy(touch: str) -> nn.Module:
    """Return what ``touched`` returns as a deepcopy can take it: no forward pass since a load."""
    fresh = small()
    TOUCHED[touch](fresh[0])
    fresh.load_state_dict(touched(touch).state_dict())
    return fresh.eval()


@each_touch
def test_snip_grasp_and_synflow_score_a_model_that_was_touched(touch: str) -> None:
    exclude = "0" if touch in COMPUTED else None
    for score in (
        lambda model: snip(model, LOSS, [(X, Y)], exclude=exclude),
        lambda model: grasp(model, LOSS, [(X, Y)], exclude=exclude),
        lambda model: synflow(model, X[:1], density=0.3, steps=2, exclude=exclude),
    ):
        scores, expected = score(touched(touch)), score(on_a_fresh_copy(touch))
        assert scores.keys() == expected.keys()
        assert "2.weight" in scores
        for name, each in scores.items():
            torch.testing.assert_close(each, expected[name], msg=name)


@each_touch
def test_sharpness_of_a_model_that_was_touched(touch: str) -> None:
    model = touched(touch)
    before = everything_of(model)
    value = pol.sharpness(model, LOSS, [(X, Y)], dtype=torch.float64, tolerance=1e-9)
    assert everything_of(model) == before
    reference, values = on_a_fresh_copy(touch).double(), {}
    masks = {}
    for name, parameter in reference.named_parameters():
        mask = dict(reference.named_buffers()).get(name.replace("_orig", "_mask"))
        masks[name] = torch.ones_like(parameter).bool() if mask is None else mask.bool()
        values[name] = parameter.detach()
    flat = torch.cat([value[masks[name]] for name, value in values.items()])
    counts = [int(mask.sum()) for mask in masks.values()]

    def loss(entries: Tensor) -> Tensor:
        parts = zip(values, entries.split(counts), strict=True)
        full = {n: torch.zeros_like(values[n]).masked_scatter(masks[n], part) for n, part in parts}
        return LOSS(torch.func.functional_call(reference, full, (X.double(),)), Y)

    with twice_differentiable(reference):
        dense = torch.autograd.functional.hessian(loss, flat)
    torch.testing.assert_close(dense, dense.T)  # PyTorch's own of weight_norm is not symmetric
    assert value == pytest.approx(float(torch.linalg.eigvalsh(dense)[-1]), rel=1e-5)


@each_touch
@pytest.mark.parametrize("form", ["model", "state_dict", "point"])
def test_error_barrier_between_models_that_were_touched(touch: str, form: str) -> None:
    model, other = touched(touch), on_a_fresh_copy(touch)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.1)
    before, expected = everything_of(model), (model(X).sum().item(), other(X).sum().item())
    make = {
        "model": lambda each: each,
        "state_dict": lambda each: each.state_dict(),
        "point": pol.RewindPoint.capture,
    }[form]
    path = pol.error_barrier(
        model, make(model), make(other), lambda net: net(X).sum().item(), points=2
    )
    # A point holds effective weights: spectral_norm divides by the norm it estimates anew.
    assert path.curve == pytest.approx(expected, rel=1e-4)
    assert everything_of(model) == before


@each_touch
def test_sgd_noise_stability_of_a_model_that_was_touched(touch: str) -> None:
    model = touched(touch)
    before = everything_of(model)

    def train(network: nn.Module, seed: int) -> None:
        with torch.no_grad():
            network[2].weight.add_(seed)

    path = pol.sgd_noise_stability(model, train, lambda net: net(X).sum().item(), points=2)
    assert path.curve[0] == pytest.approx(model(X).sum().item(), rel=1e-5)
    assert path.curve[0] != path.curve[1]
    assert everything_of(model) == before


def test_the_state_of_a_checkpoint_of_torch_pruning_is_that_of_its_effective_weights() -> None:
    model = touched("torch_prune")
    state = plain_state(model.state_dict(), "state", small())
    expected = plain_copy(model).state_dict()
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[name], expected[name]) for name in state)


def test_a_parameter_that_is_called_so_is_no_trace_of_torch_pruning() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for name in ("weight", "weight_orig", "weight_mask"):
                self.register_parameter(name, nn.Parameter(torch.full((2,), 3.0)))

    model = Odd()
    state = plain_state(model.state_dict(), "state", plain_copy(model))
    assert sorted(state) == ["weight", "weight_mask", "weight_orig"]
    assert all(float(value[0]) == 3 for value in state.values())


def test_a_point_that_does_not_fit_is_named_by_its_role() -> None:
    point = pol.RewindPoint.capture(half_masked(copy.deepcopy(small()))[0])
    with pytest.raises(ValueError, match=r"state_b: .*'0\.weight'"):
        pol.error_barrier(small(), small(), point, lambda net: 0.0)
