"""The control of Sign-In: plain weights at the rates, and with the decay, that m⊙v starts with."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import polarity as pol
from benchmarks.papers.sign_in.matched import matched_optimizer
from benchmarks.papers.sign_in.run import train_sparse
from tests.benchmarks.papers.sign_in.small import masked, one


@pytest.mark.parametrize("beta", [0.1, 1.0, 3.0])
def test_a_layers_rate_is_the_mean_of_m2_plus_v2_over_its_survivors(beta, digits):
    config = one("random+matched", beta=beta)
    model = masked(config, digits)
    optimizer = matched_optimizer(config.recipe, model, beta=beta, decay=0.25)
    others, *groups = optimizer.param_groups
    assert (others["lr"], others["weight_decay"]) == (0.1, 0.0)
    pol.sign_in(twin := masked(config, digits), beta=beta)
    for (name, mask), group in zip(pol.masks(model).items(), groups, strict=True):
        weight = twin.get_submodule(name.rpartition(".")[0]).parametrizations.weight
        m, v = (each.detach().double().numpy() for each in (weight.original0, weight.original1))
        expected = 0.1 * np.mean((m**2 + v**2)[mask.numpy().astype(bool)])
        assert group["lr"] == pytest.approx(expected, rel=1e-5)
        assert group["weight_decay"] == 0.25
    trained = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert trained == {id(p) for p in model.parameters()}


def test_a_layer_without_survivors_has_the_rate_of_weights_near_zero(digits):
    config = one("random+matched", beta=2.0)
    model = masked(config, digits)
    pol.prune(model, pol.scores.magnitude, densities=dict.fromkeys(pol.masks(model), 0.0))
    optimizer = matched_optimizer(config.recipe, model, beta=2.0, decay=0.0)
    assert {group["lr"] for group in optimizer.param_groups[1:]} == {0.2}


def test_a_small_step_of_the_control_moves_weights_as_that_of_their_products_does(digits):
    # No momentum, and weights far below β: m² + v² is about the same for all of a layer.
    config = one("random+mv", lr=1e-3, weight_decay=0.1, beta=4.0)
    recipe = replace(config.recipe, momentum=0.0)
    moved = []
    for way in ("mv", "matched"):
        model = masked(config, digits)
        start = pol.dense_state_dict(model)
        if way == "mv":
            pol.sign_in(model, beta=4.0)
            optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
        else:
            optimizer = matched_optimizer(recipe, model, beta=4.0, decay=0.1)
        loss = torch.nn.functional.cross_entropy(model(digits.train_x[:64]), digits.train_y[:64])
        if way == "mv":
            loss = loss + 0.05 * pol.frobenius_decay(model)
        loss.backward()
        optimizer.step()
        end = pol.dense_state_dict(model)
        moved.append({name: (end[name] - start[name]).double() for name in pol.masks(model)})
    products, plain = moved
    for name, step in products.items():
        cosine = torch.nn.functional.cosine_similarity(step.flatten(), plain[name].flatten(), dim=0)
        assert cosine > 0.999
        assert plain[name].norm() == pytest.approx(float(step.norm()), rel=0.02)


def test_the_control_has_the_settings_of_mv_and_no_products(digits):
    config, products = one("random+matched"), one("random+mv")
    assert replace(config, method="random+mv") == products
    assert not config.parametrized
    outcome = train_sparse(config, digits)
    assert outcome.epochs[-1]["train_loss"] < outcome.epochs[0]["train_loss"]
    assert outcome.final["inner_scaling"] is None
    assert outcome.epochs != train_sparse(one("random"), digits).epochs
