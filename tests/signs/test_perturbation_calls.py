"""How a perturbation is called: alone, layer by layer, once for all layers, and a user's own."""

import math

import pytest
import torch
from torch import nn

import polarity as pol
from polarity import Delta, Epsilon, Phi
from tests.models import generator as seeded
from tests.signs.cases import SCOPES, differing, without_empty


class Subclass(Epsilon):
    """A user's kind of Epsilon."""


@pytest.mark.parametrize("perturbation", [Epsilon(0.3), Delta(0.4), Subclass(0.3)], ids=repr)
@pytest.mark.parametrize("strategy", ["mask1", "mask0", "standard"])
def test_a_perturbation_called_by_itself_does_what_it_does_to_a_model(perturbation, strategy):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(30, 20), nn.ReLU(), nn.Linear(20, 10))
    start = pol.RewindPoint.capture(model)
    for parameter in model.parameters():
        parameter.data.add_(torch.randn_like(parameter), alpha=0.1)
    trained = pol.RewindPoint.capture(model)
    pol.imp_prune(model, density=0.5)
    masks = pol.masks(model)
    pol.reinit_signs(
        model, strategy, perturbation, init=start, trained=trained, generator=seeded(5)
    )
    generator = seeded(5)
    for name, mask in masks.items():
        reference = start.weights[name] if strategy == "mask1" else trained.weights[name]
        signs = Phi(0).polarity(reference[mask])
        magnitudes = trained.weights[name][mask].abs()
        alone = perturbation(signs, magnitudes, generator, masks={name: mask})
        weight = pol.find_targets(model)[name].weight
        assert torch.equal(Phi(0).polarity(weight[mask]), alone)


@pytest.mark.parametrize("perturbation", [Epsilon(0.3), Delta(0.4)], ids=repr)
def test_of_all_layers_together_a_perturbation_is_called_once(layers, perturbation):
    trained, init, masks = without_empty(layers)
    new, _ = pol.signed_constants(
        trained, init, masks, "mask0", perturbation, scope="global", generator=seeded(5)
    )
    all_trained = torch.cat([trained[name][mask] for name, mask in masks.items()])
    alone = perturbation(Phi(0).polarity(all_trained), all_trained.abs(), seeded(5), masks=masks)
    signed = torch.cat([new[name][mask] for name, mask in masks.items()])
    assert torch.equal(Phi(0).polarity(signed), alone)


def test_a_subclass_of_a_perturbation_draws_as_it_does(layers):
    layers = without_empty(layers)
    one, _ = pol.signed_constants(*layers, perturb=Epsilon(0.3), generator=seeded())
    other, _ = pol.signed_constants(*layers, perturb=Subclass(0.3), generator=seeded())
    assert differing(one, other) == []


def test_what_a_user_wrote_is_called_with_three_arguments(layers):
    class Inherited(Epsilon):
        def __call__(self, signs, magnitudes, generator):
            return -super().__call__(signs, magnitudes, generator)

    layers = without_empty(layers)
    plain, _ = pol.signed_constants(*layers, "mask0")
    new, report = pol.signed_constants(*layers, "mask0", Inherited(1), generator=seeded())
    assert differing(new, plain) == []
    assert report.flipped == 0


@pytest.mark.parametrize(
    ("returns", "error", "words"),
    [
        (lambda s, m, g: None, TypeError, "NoneType"),
        (lambda s, m, g: s[1:], ValueError, r"shape \(\d+,\).*expected \(\d+,\)"),
        (lambda s, m, g: s * 0, ValueError, r"\+1 and -1"),
        (lambda s, m, g: s * 2, ValueError, r"\+1 and -1"),
        (lambda s, m, g: s.float() * math.nan, ValueError, r"\+1 and -1"),
    ],
)
@pytest.mark.parametrize("scope", SCOPES)
def test_a_perturbation_that_returns_no_signs_is_refused_and_nothing_written(
    returns, error, words, scope
):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    start = pol.RewindPoint.capture(model)
    pol.imp_prune(model, 0.5)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(error, match=words):
        pol.reinit_signs(model, perturb=returns, init=start, scope=scope)
    assert differing(before, model.state_dict()) == []


def test_a_user_may_return_signs_of_any_dtype(layers):
    layers = without_empty(layers)
    wide, _ = pol.signed_constants(*layers, "mask0", lambda s, m, g: -s.double())
    narrow, _ = pol.signed_constants(*layers, "mask0", lambda s, m, g: -s)
    assert differing(wide, narrow) == []
