"""Python attributes of parameters survive masking, conversion and merge."""

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn.utils import prune as torch_prune

import polarity as pol
from tests.forms import half_masked, half_signed_in
from tests.helpers import train_step
from tests.models import Tied, seeded

ATTRIBUTES = {"_no_weight_decay": True, "sequence_parallel": False, "group": {"name": "head"}}
INPUTS = (torch.randn(8, 6, generator=torch.Generator().manual_seed(3)),)


def marked(width: int = 5) -> nn.Sequential:
    model = seeded(nn.Sequential(nn.Linear(6, width), nn.Tanh(), nn.Linear(width, 4)))
    for name, value in ATTRIBUTES.items():
        setattr(model[0].weight, name, value)
    model[2].weight.lr_scale = 0.5
    return model


def attributes(parameter: nn.Parameter) -> dict[str, object]:
    return dict(vars(parameter))


@pytest.mark.parametrize("width", [5, 3000], ids=["small", "wide"])
@pytest.mark.parametrize("masked", [False, True], ids=["plain", "masked"])
def test_both_factors_have_the_attributes_of_their_weight_and_the_product_has_them_again(
    masked: bool, width: int
) -> None:
    model = half_masked(marked(width)) if masked else marked(width)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    pol.sign_in(model, optimizer=optimizer)
    for layer, expected in ((model[0], ATTRIBUTES), (model[2], {"lr_scale": 0.5})):
        chain = layer.parametrizations.weight
        assert attributes(chain.original0) == attributes(chain.original1) == expected
    assert attributes(model[0].bias) == {}
    train_step(model, optimizer, INPUTS)
    pol.merge(model, optimizer=optimizer)
    assert attributes(model[0].weight) == ATTRIBUTES
    assert attributes(model[2].weight) == {"lr_scale": 0.5}


def test_the_values_are_the_same_objects() -> None:
    model = marked()
    pol.merge(pol.sign_in(model))
    assert model[0].weight.group is ATTRIBUTES["group"]


@pytest.mark.parametrize("attach", [half_masked, half_signed_in])
def test_attributes_that_were_set_on_factors_reach_the_product(
    attach: Callable[[nn.Module], nn.Module],
) -> None:
    model = attach(marked())
    chain = model[0].parametrizations.weight
    leaf = chain.original if chain.is_tensor else chain.original1
    leaf.set_later = 3
    pol.merge(model)
    assert attributes(model[0].weight) == ATTRIBUTES | {"set_later": 3}


def test_masking_pruning_and_merging_leave_the_parameter_and_its_attributes() -> None:
    model = marked()
    weight = model[0].weight
    pol.merge(pol.mask_weights(model))
    pol.imp_prune(model, 0.5)
    pol.merge(model)
    assert model[0].weight is weight
    assert attributes(weight) == ATTRIBUTES


def test_a_weight_taken_over_from_torchs_pruning_keeps_its_attributes() -> None:
    model = marked()
    torch_prune.random_unstructured(model[0], "weight", 0.5)
    assert attributes(model[0].weight_orig) == ATTRIBUTES
    pol.merge(pol.sign_in(model))
    assert attributes(model[0].weight) == ATTRIBUTES


def test_a_tied_weight_keeps_its_attributes_for_all_its_users() -> None:
    model = seeded(Tied())
    model.encoder.weight.tied = "both"
    pol.sign_in(model, targets=["encoder.weight", "decoder.weight"])
    pol.merge(model)
    assert model.decoder.weight is model.encoder.weight
    assert attributes(model.encoder.weight) == {"tied": "both"}


def test_polaritys_own_mark_does_not_pass_on() -> None:
    """A second conversion of a converted and merged model trains, with its present optimizer."""
    model = marked()
    for _ in range(2):
        pol.sign_in(model)
        pol.merge(model)
    assert attributes(model[0].weight) == ATTRIBUTES
    train_step(model, torch.optim.SGD(model.parameters(), lr=0.1), INPUTS)


@pytest.mark.parametrize("trained", [True, False], ids=["trained", "frozen"])
def test_requires_grad_stays(trained: bool) -> None:
    model = half_masked(marked())
    model[0].parametrizations.weight.original.requires_grad_(trained)
    pol.sign_in(model, targets=["0.weight", "2.weight"])
    assert [p.requires_grad for p in model[0].parametrizations.weight.parameters()] == [trained] * 2
    pol.merge(model)
    assert model[0].weight.requires_grad == trained
    assert model[2].weight.requires_grad


def test_names_of_parameters_follow_in_each_of_several_optimizers() -> None:
    model = marked()
    optimizers = [
        torch.optim.SGD(layer.named_parameters(prefix=name), lr=0.1)
        for name, layer in (("0", model[0]), ("2", model[2]))
    ]
    pol.sign_in(model, optimizer=optimizers)
    for optimizer in optimizers:
        (group,) = optimizer.param_groups
        held = [id(each) for each in group["params"]]
        assert [id(model.get_parameter(name)) for name in group["param_names"]] == held
    pol.merge(model, optimizer=optimizers)
    names = [optimizer.param_groups[0]["param_names"] for optimizer in optimizers]
    assert names == [["0.weight", "0.bias"], ["2.weight", "2.bias"]]
