"""What a masked module refuses: Parameters in place of computed weights, and pickling."""

import copy
import io
import multiprocessing
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

import polarity as pol
from tests.forms import FORMS, Form
from tests.helpers import build
from tests.laws.refusals import fingerprint
from tests.models import KINDS, WIDE, seeded

EVERY_FORM = pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)


def assign(layer: nn.Module) -> None:
    layer.weight = nn.Parameter(torch.ones_like(layer.weight))


def tie(layer: nn.Module) -> None:
    layer.weight = nn.Linear(layer.in_features, layer.out_features).weight


def register(layer: nn.Module) -> None:
    layer.register_parameter("weight", None)


def register_buffer(layer: nn.Module) -> None:
    layer.register_buffer("weight", torch.ones_like(layer.weight).detach())


def assign_buffer(layer: nn.Module) -> None:
    layer.weight = nn.Buffer(torch.ones_like(layer.weight).detach())


@EVERY_FORM
@pytest.mark.parametrize("replace", [assign, tie, register])
@pytest.mark.parametrize("kind", [KINDS[0], WIDE], ids=lambda kind: kind.name)
def test_a_parameter_in_place_of_a_masked_weight_is_refused_with_the_way_out(
    kind: Any, replace: Callable[[nn.Module], None], form: Form
) -> None:
    model = form.attach(build(kind))
    before, modules = fingerprint(model.state_dict()), list(model.named_modules())
    with pytest.raises(
        TypeError, match=r"weight of this Linear is computed .*merge\(model\) first"
    ):
        replace(model)
    assert (fingerprint(model.state_dict()), list(model.named_modules())) == (before, modules)
    tensor = torch.full_like(model.weight, 2.0).detach()
    model.weight = tensor  # what the error proposes
    expected = tensor * pol.masks(model)["weight"] if form.enforced else tensor
    torch.testing.assert_close(model.weight.detach(), expected)
    pol.merge(model)
    replace(model)


@EVERY_FORM
@pytest.mark.parametrize("replace", [register_buffer, assign_buffer])
@pytest.mark.parametrize("kind", [KINDS[0], WIDE], ids=lambda kind: kind.name)
def test_a_buffer_in_place_of_a_masked_weight_is_refused_with_the_way_out(
    kind: Any, replace: Callable[[nn.Module], None], form: Form
) -> None:
    model = form.attach(build(kind))
    before, modules = fingerprint(model.state_dict()), list(model.named_modules())
    with pytest.raises(
        TypeError, match=r"weight of this Linear .* no Buffer can .*merge\(model\) first"
    ):
        replace(model)
    assert (fingerprint(model.state_dict()), list(model.named_modules())) == (before, modules)


@EVERY_FORM
def test_other_buffers_may_be_registered(form: Form) -> None:
    model = form.attach(build(KINDS[0]))
    model.register_buffer("seen", torch.ones(1), persistent=False)
    assert "seen" in dict(copy.deepcopy(model).named_buffers())
    assert "seen" not in model.state_dict()


@EVERY_FORM
def test_other_parameters_may_be_replaced_and_registered(form: Form) -> None:
    model = form.attach(build(KINDS[0]))
    model.bias = nn.Parameter(torch.full((5,), 3.0))
    model.register_parameter("gain", nn.Parameter(torch.ones(1)))
    assert torch.equal(model.bias, torch.full((5,), 3.0))
    assert "gain" in dict(model.named_parameters())
    assert "gain" in dict(copy.deepcopy(model).named_parameters())


@EVERY_FORM
@pytest.mark.parametrize("channels", [4, 96])
def test_fusing_with_batch_norm_says_to_merge_first_and_works_then(
    form: Form, channels: int
) -> None:
    model = seeded(nn.Sequential(nn.Conv2d(3, channels, 3), nn.BatchNorm2d(channels))).eval()
    form.attach(model)
    before = fingerprint(model.state_dict())
    with pytest.raises(TypeError, match=r"weight of this Conv2d .*merge\(model\) first"):
        fuse_conv_bn_eval(model[0], model[1])
    assert fingerprint(model.state_dict()) == before
    x = torch.randn(2, 3, 8, 8)
    output = model(x)
    pol.merge(model)
    torch.testing.assert_close(fuse_conv_bn_eval(model[0], model[1])(x), output)


def test_an_interpolated_norm_refuses_a_parameter_too() -> None:
    model = pol.interpolate_norms(nn.LayerNorm(4))
    with pytest.raises(TypeError, match=r"weight of this LayerNorm .*merge\(model\) first"):
        model.weight = nn.Parameter(torch.ones(4))


def test_weights_that_a_loop_ties_after_masking_are_refused_by_the_masked_layer() -> None:
    model = nn.Sequential(nn.Embedding(7, 5), nn.Linear(5, 7, bias=False))
    pol.mask_weights(model)
    with pytest.raises(TypeError, match=r"merge\(model\) first"):
        model[1].weight = model[0].weight
    pol.merge(model)
    model[1].weight = model[0].weight


# Further layers


@EVERY_FORM
@pytest.mark.parametrize("arguments", [(nn.Linear, 4, 3), (nn.Conv2d, 3, 4, 2)], ids=["fc", "conv"])
def test_calling_the_type_of_a_masked_layer_makes_a_plain_layer(form: Form, arguments: Any) -> None:
    """peft makes the adapters of a convolution by ``type(layer)(...)``."""
    kind, *sizes = arguments
    layer = form.attach(seeded(kind(*sizes)))
    before, modules = fingerprint(layer.state_dict()), list(layer.named_modules())
    torch.manual_seed(3)
    made = type(layer)(*sizes, bias=False)
    torch.manual_seed(3)
    expected = kind(*sizes, bias=False)
    assert type(made) is kind
    assert torch.equal(made.weight, expected.weight)
    assert (fingerprint(layer.state_dict()), list(layer.named_modules())) == (before, modules)
    assert fingerprint(copy.deepcopy(layer).state_dict()) == before


# Pickling

REMEDY = (
    r"has weights that polarity computes, and cannot be pickled: store the model with pol\.save"
)


def by_pickle(model: nn.Module) -> None:
    pickle.dumps(model)


def by_torch_save(model: nn.Module) -> None:
    torch.save(model, io.BytesIO())


def by_spawning(model: nn.Module) -> None:
    multiprocessing.get_context("spawn").Process(target=print, args=(model,)).start()


def by_copy(model: nn.Module) -> None:
    copy.copy(model[0] if isinstance(model, nn.Sequential) else model)


@EVERY_FORM
@pytest.mark.parametrize("way", [by_pickle, by_torch_save, by_spawning, by_copy])
def test_pickling_a_masked_model_says_how_to_store_it(
    way: Callable[[nn.Module], None], form: Form
) -> None:
    for model in (build(KINDS[0]), nn.Sequential(build(WIDE))):
        form.attach(model)
        with pytest.raises(RuntimeError, match=REMEDY):
            way(model)


@EVERY_FORM
def test_the_ways_that_the_error_names_work(form: Form, tmp_path: Any) -> None:
    model = form.attach(build(KINDS[0]))
    pol.save(model, tmp_path / "model.safetensors")
    torch.save(model.state_dict(), tmp_path / "state.pt")
    twin = copy.deepcopy(model)
    assert torch.equal(twin.weight, model.weight)
    again = pickle.loads(pickle.dumps(pol.merge(twin)))
    assert type(again) is nn.Linear
    assert torch.equal(again.weight, model.weight)


def test_what_stays_plain_in_a_masked_model_pickles_as_ever() -> None:
    model = pol.mask_weights(nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)))
    assert torch.equal(pickle.loads(pickle.dumps(model[1])).weight, model[1].weight)
