"""Models on the meta device: masked, shown and filled there; what needs values is refused."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import mse_loss

import polarity as pol
from tests.forms import Form, random_masks
from tests.helpers import same_state, tensor_at
from tests.laws.grid import EVERY_FORM, EVERY_KIND
from tests.laws.public_calls import batches, network, sgd, train_step
from tests.models import KINDS, WIDE, Kind

# Moving off the meta device and assigning a checkpoint unties weights, in PyTorch itself.
UNTIED = pytest.mark.parametrize(
    "kind",
    [k for k in [*KINDS, WIDE] if k.name not in ("tied", "twins")],
    ids=lambda kind: kind.name,
)


def on_meta() -> nn.Sequential:
    return pol.mask_weights(network().to("meta"))


def built(kind: Kind, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return kind.build().eval()


@EVERY_FORM
@EVERY_KIND
def test_a_model_on_the_meta_device_is_shown_in_every_form(kind: Kind, form: Form) -> None:
    model = form.attach(built(kind, 0)).to("meta")
    expected = r"(SignInMW|MaskedWeight)\(\([\d, ]+\)(, compact)?(, enforce=False)?\)"
    assert len(re.findall(expected, repr(model))) >= len(pol.masks(model))


def test_interpolated_norms_on_the_meta_device_are_shown() -> None:
    model = pol.interpolate_norms(nn.Sequential(nn.LayerNorm(4))).to("meta")
    assert "SharedAlpha(drawn=True)" in repr(model)


@UNTIED
@pytest.mark.parametrize("assign", [True, False], ids=["assign", "to_empty"])
def test_a_dense_checkpoint_fills_a_model_that_was_masked_without_values(
    kind: Kind, assign: bool
) -> None:
    dense, model = built(kind, 3), pol.mask_weights(built(kind, 0).to("meta"))
    if not assign:
        model.to_empty(device="cpu")
    model.load_state_dict(dense.state_dict(), assign=assign)
    twin = pol.mask_weights(dense)
    for each in (model, twin):
        pol.imp_prune(each, density=0.4)
    assert same_state(pol.masks(model), pol.masks(twin))
    assert same_state(pol.dense_state_dict(model), pol.dense_state_dict(twin))
    model(*kind.inputs(torch.Generator().manual_seed(0))).float().sum().backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


@EVERY_FORM
@UNTIED
@pytest.mark.parametrize("assign", [True, False], ids=["assign", "to_empty"])
def test_a_masked_checkpoint_fills_a_model_that_was_masked_without_values(
    kind: Kind, form: Form, assign: bool
) -> None:
    source, model = form.attach(built(kind, 3)), pol.mask_weights(built(kind, 0).to("meta"))
    if not assign:
        model.to_empty(device="cpu")
    model.load_state_dict(source.state_dict(), assign=assign)
    assert same_state(pol.masks(model), random_masks(source))
    for name in pol.masks(model):
        torch.testing.assert_close(tensor_at(model, name), tensor_at(source, name))


def test_a_density_is_known_without_values_and_a_lost_mask_is_noticed() -> None:
    model = network()
    pol.imp_prune(model, density=0.25)
    assert pol.density(model.to("meta")) == 0.25
    assert pol.masks(model)["0.weight"].is_meta
    assert pol.density(on_meta()) == 1.0
    with pytest.warns(UserWarning, match=r"mask of '0\.weight' was changed from outside"):
        model.to_empty(device="cpu").eval()
    with pytest.raises(ValueError, match=r"mask of '0\.weight' holds values other than 0 and 1"):
        pol.masks(model)


masks = {"0.weight": torch.ones(256, 300)}
start = pol.RewindPoint(dict(network().state_dict()))

REFUSALS: dict[str, Callable[[nn.Module], Any]] = {
    "imp_prune": lambda model: pol.imp_prune(model, density=0.5),
    "imp_prune with a score": lambda model: pol.imp_prune(model, 0.5, score=pol.scores.random),
    "imp_prune with rewinding": lambda model: pol.imp_prune(model, 0.5, rewind=start),
    "lrr_step": lambda model: pol.lrr_step(model, 0.5, rewind=start),
    "prune": lambda model: pol.prune(model, pol.scores.random, density=0.5),
    "load_masks": lambda model: pol.load_masks(model, masks),
    "mask_weights": lambda model: pol.mask_weights(model, masks=masks),
    "sign_in": pol.sign_in,
    "reinit_signs": lambda model: pol.reinit_signs(model, init=start),
    "reinitialize": pol.reinitialize,
    "signed_mask": pol.signed_mask,
    "summary": pol.summary,
    "capture": pol.RewindPoint.capture,
    "interpolate_norms": pol.interpolate_norms,
    "snip": lambda model: pol.scores.snip(model, mse_loss, batches()),
    "grasp": lambda model: pol.scores.grasp(model, mse_loss, batches()),
    "synflow": lambda model: pol.scores.synflow(model, batches()[0][0], density=0.1),
}


@pytest.mark.parametrize("call", REFUSALS.values(), ids=REFUSALS.keys())
@pytest.mark.parametrize("masked", [True, False], ids=["masked", "plain"])
def test_a_call_that_needs_values_is_refused_with_the_way_to_get_them(
    call: Callable[[nn.Module], Any], masked: bool
) -> None:
    if call in (REFUSALS["reinit_signs"], REFUSALS["signed_mask"]) and not masked:
        pytest.skip("refused as a model without masks")
    model = on_meta() if masked else network().to("meta")
    before, state = [repr(model), *map(id, model.parameters())], torch.get_rng_state()
    said = r"model has '\d\.\w+' on the meta device, expected values: call model\.to_empty\(device="
    with pytest.raises(ValueError, match=said):
        call(model)
    assert [repr(model), *map(id, model.parameters())] == before
    assert torch.equal(torch.get_rng_state(), state)
    model.to_empty(device="cpu").load_state_dict(network().state_dict())
    if "snip" not in repr(call):
        train_step(model, sgd(model))
    pol.imp_prune(model, density=0.5)


def test_a_reset_on_the_meta_device_does_what_it_does_to_a_plain_layer() -> None:
    model = on_meta()
    model[0].reset_parameters()
    assert all(p.is_meta for p in model.parameters())


@EVERY_FORM
def test_a_checkpoint_fills_a_compact_model_whose_values_were_given_up(form: Form) -> None:
    if not form.compact:
        pytest.skip("the tests above are about masked weights")
    source, model = form.attach(network(3)), form.attach(network()).to("meta")
    model.to_empty(device="cpu").load_state_dict(source.state_dict())
    assert same_state(pol.dense_state_dict(model), pol.dense_state_dict(source))
    train_step(model, sgd(model))
