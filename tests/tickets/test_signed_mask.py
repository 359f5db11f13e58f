"""Signed masks: what is taken from one network, and what another makes of it."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import polarity as pol
from tests.forms import FORMS, Form, half_masked, half_remembered
from tests.helpers import build, leaf_and_mask, plain_state, tensor_at
from tests.laws.refusals import fingerprint
from tests.models import KINDS, Kind, seeded


def small(seed: int = 0) -> nn.Sequential:
    """A convolution, a norm and two linear layers; every entry differs from 0."""
    layers = nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 5), nn.Linear(5, 3)
    return seeded(nn.Sequential(*layers), seed)


def ticket_of(model: nn.Module, **how: Any) -> pol.SignedMask:
    return pol.signed_mask(half_masked(model), **how)


def numpy_signs(weight: Tensor, mask: Tensor) -> np.ndarray:
    values = weight.detach().double().cpu().numpy()
    return np.where(mask.cpu().numpy(), np.sign(values), 0.0)


def everything(model: nn.Module) -> list[Any]:
    leaves = [(name, id(p), p.requires_grad) for name, p in model.named_parameters()]
    modules = [(name, type(module)) for name, module in model.named_modules()]
    return [leaves, modules, fingerprint(plain_state(model))]


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_signs_are_those_of_the_weights_under_the_mask(kind: Kind, form: Form) -> None:
    model = form.attach(build(kind))
    masks, before = pol.masks(model), everything(model)
    ticket = pol.signed_mask(model)
    assert list(ticket.signs) == list(ticket.masks) == list(masks) == list(ticket.names)
    for name, mask in masks.items():
        signs = ticket.signs[name]
        assert signs.dtype == torch.int8
        assert torch.equal(ticket.masks[name], mask)
        np.testing.assert_array_equal(signs.numpy(), numpy_signs(tensor_at(model, name), mask))
    assert ticket.density == pol.density(model)
    assert everything(model) == before


@pytest.mark.parametrize("stored", [5.0, -5.0, float("nan"), float("inf")])
def test_what_is_stored_under_the_mask_has_no_part_in_the_ticket(stored: float) -> None:
    model = half_masked(small())
    clean = pol.signed_mask(model)
    for leaf, mask in leaf_and_mask(model):
        leaf.data.masked_fill_(~mask, stored)
    assert pol.signed_mask(model) == clean


def test_what_pruning_set_aside_has_no_part_in_the_ticket() -> None:
    model = small()
    before = plain_state(model)
    pol.imp_prune(model, density=0.4)
    ticket = pol.signed_mask(model)
    for name, mask in pol.masks(model).items():
        expected = numpy_signs(before[name], mask)
        np.testing.assert_array_equal(ticket.signs[name].numpy(), expected)


def test_a_mask_that_is_only_remembered_still_says_what_is_pruned() -> None:
    model = half_remembered(small())
    ticket = pol.signed_mask(model)
    for name, mask in pol.masks(model).items():
        weight = tensor_at(model, name)
        assert bool((weight[~mask] != 0).all())
        np.testing.assert_array_equal(ticket.signs[name].numpy(), numpy_signs(weight, mask))
    model[0].weight.data[~pol.masks(model)["0.weight"]] = torch.nan
    assert pol.signed_mask(model) == ticket


def test_the_ticket_does_not_follow_the_model() -> None:
    model = half_masked(small())
    ticket = pol.signed_mask(model)
    before = fingerprint(ticket.signs), fingerprint(ticket.masks)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.neg_()
    pol.imp_prune(model, density=0.1)
    assert (fingerprint(ticket.signs), fingerprint(ticket.masks)) == before


@pytest.mark.parametrize("zero", [0.0, -0.0])
def test_a_survivor_that_is_zero_survives_without_a_sign(zero: float) -> None:
    """The official code takes the mask from the signs, which prunes it."""
    model = half_masked(small())
    alive = model[3].parametrizations.weight[0].mask
    place = tuple(alive.nonzero()[3].tolist())
    model[3].parametrizations.weight.original.data[place] = zero
    ticket = pol.signed_mask(model)
    assert ticket.signs["3.weight"][place] == 0
    assert bool(ticket.masks["3.weight"][place])
    for seed in (1, 2):
        fresh = small(seed)
        own = fresh[3].weight[place].item()
        ticket.apply(fresh)
        assert fresh[3].weight[place].item() == own != 0
        assert torch.equal(pol.masks(fresh)["3.weight"], alive)


@pytest.mark.parametrize(("value", "words"), [(torch.nan, "1 NaN"), (torch.inf, "infinite")])
def test_a_weight_without_a_sign_to_take_is_named(value: float, words: str) -> None:
    model = half_masked(small())
    mask = pol.masks(model)["3.weight"]
    model[3].parametrizations.weight.original.data[tuple(mask.nonzero()[0])] = value
    with pytest.raises(ValueError, match=f"^weight '3.weight' holds .*{words}"):
        pol.signed_mask(model)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_the_dtype_makes_no_difference_to_the_signs(dtype: torch.dtype) -> None:
    model = half_masked(small())
    ticket = pol.signed_mask(model)
    assert pol.signed_mask(model.to(dtype)) == ticket
    fresh = ticket.apply(small(1).to(dtype))
    assert fresh[3].weight.dtype == dtype
    assert pol.signed_mask(fresh) == ticket


@pytest.mark.parametrize(
    ("include", "names"),
    [
        (None, "0.weight 3.weight"),
        (nn.Linear, "0.weight 3.weight 3.bias 4.weight 4.bias"),
        ((nn.Linear, nn.Conv2d), "0.weight 0.bias 3.weight 3.bias 4.weight 4.bias"),
        ("4", "0.weight 3.weight 4.weight 4.bias"),
        ("4.weight", "0.weight 3.weight 4.weight"),
        (nn.BatchNorm2d, "0.weight 1.weight 1.bias 3.weight"),
        (["1.bias", "[34].bias"], "0.weight 1.bias 3.weight 3.bias 4.bias"),
        (lambda name, p: p.dim() == 1 and name > "3", "0.weight 3.weight 3.bias 4.bias"),
    ],
)
def test_other_tensors_lend_their_signs_when_asked(include: Any, names: str) -> None:
    """Both unmasked layers keep their own signs: the official code remembers one for all."""
    model = pol.mask_weights(small(), exclude="4")
    pol.imp_prune(model, 0.4)
    ticket = pol.signed_mask(model, include=include)
    assert ticket.names == tuple(names.split())
    assert list(ticket.masks) == ["0.weight", "3.weight"]
    fresh = small(1)
    start = plain_state(fresh)
    ticket.apply(fresh)
    for name, before in start.items():
        expected = before
        if name in ticket.names:
            signs = np.sign(tensor_at(model, name).detach().numpy())
            expected = torch.from_numpy(np.abs(before.numpy()) * signs)
        assert torch.equal(tensor_at(fresh, name), expected), name
    assert list(pol.masks(fresh)) == ["0.weight", "3.weight"]


def test_a_bias_of_zero_lends_no_sign_and_is_not_zeroed() -> None:
    model = half_masked(small())
    model[4].bias.data = torch.tensor([0.0, -1.0, -0.0])
    fresh = small(1)
    fresh[4].bias.data = torch.tensor([-3.0, 4.0, 5.0])
    pol.signed_mask(model, include="4.bias").apply(fresh)
    assert fresh[4].bias.tolist() == [-3.0, -4.0, 5.0]


def test_an_interpolated_norm_lends_the_signs_of_what_it_learned() -> None:
    """In training mode such a norm computes with a mix of that and of its initial value."""
    model = pol.interpolate_norms(half_masked(small())).train()
    model[1].weight = torch.tensor([-1.0, 2.0, -0.1, 0.0])
    pol.set_norm_alpha(model, 0.01)
    assert bool((model[1].weight > 0).all())
    ticket = pol.signed_mask(model, include="1.weight")
    assert ticket.signs["1.weight"].tolist() == [-1, 1, -1, 0]
    fresh = pol.interpolate_norms(small(1)).train()
    fresh[1].weight = torch.tensor([4.0, -4.0, 4.0, -4.0])
    pol.set_norm_alpha(fresh, 0.01)
    assert ticket.apply(fresh).eval()[1].weight.tolist() == [-4.0, 4.0, -4.0, -4.0]


@pytest.mark.parametrize(
    ("include", "error", "words"),
    [
        ("5", ValueError, "include='5'"),
        (nn.LSTM, ValueError, "include=LSTM"),
        (3, TypeError, "include"),
        (nn.Linear(1, 1), TypeError, "include"),
        ([nn.Linear, 3.0], TypeError, "include"),
    ],
)
def test_a_selector_that_selects_nothing_is_refused(
    include: Any, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        ticket_of(small(), include=include)


def test_an_included_tensor_that_has_no_sign_to_take_is_named() -> None:
    model = half_masked(small())
    model[1].weight.data[2] = torch.nan
    with pytest.raises(ValueError, match=r"^weight '1\.weight' holds 1 NaN"):
        pol.signed_mask(model, include=nn.BatchNorm2d)
    model.register_parameter("steps", nn.Parameter(torch.tensor(3), requires_grad=False))
    with pytest.raises(ValueError, match=r"'steps' is of dtype torch\.int64"):
        pol.signed_mask(model, include="steps")


def test_a_ticket_made_by_hand_is_checked() -> None:
    signs = {"weight": torch.tensor([[1, -1]], dtype=torch.int8)}
    mask = torch.tensor([[True, True]])
    layer = pol.SignedMask(signs, {"weight": mask}).apply(nn.Linear(2, 1, bias=True))
    assert torch.equal(layer.weight.sign(), torch.tensor([[1.0, -1.0]]))
    for masks, error, words in (
        ({"weight": ~mask}, ValueError, "'weight': signs holds 2 signs outside the mask"),
        ({"weight": mask.int()}, TypeError, r"'weight': .*torch\.int32"),
        ({"bias": mask}, ValueError, "signs is missing 'bias', which is masked"),
    ):
        with pytest.raises(error, match=words):
            pol.SignedMask(signs, masks)
    with pytest.raises(ValueError, match="'weight': signs holds values from 1 to 3"):
        pol.SignedMask({"weight": signs["weight"] + 2}, {})


def test_tickets_are_equal_when_signs_and_masks_are() -> None:
    one, same = ticket_of(small()), ticket_of(small())
    assert one == same == copy.deepcopy(one)
    assert one != ticket_of(small(1))
    assert one != ticket_of(small(), include="4.bias")
    same.masks["3.weight"][~same.masks["3.weight"]] = True
    assert one != same
    assert one != "ticket"


def test_a_plain_network_has_no_ticket() -> None:
    with pytest.raises(ValueError, match="Sequential has no masked weights"):
        pol.signed_mask(small())
