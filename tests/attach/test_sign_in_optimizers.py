"""Optimizers follow sign_in and merge with groups, options and state, or are stopped."""

import copy

import pytest
import torch
from torch import Tensor, nn

import polarity as pol
from tests.attach.products import INPUTS, held, mlp
from tests.helpers import plain_state, same_state, train_step
from tests.models import seeded


def factors(layer: nn.Module) -> tuple[Tensor, Tensor]:
    chain = layer.parametrizations.weight
    return chain.original0, chain.original1


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW", "RMSprop", "Adagrad"])
def test_a_trained_optimizer_follows_with_its_groups_options_and_state(name: str) -> None:
    model = mlp()
    options = {"momentum": 0.9} if name == "SGD" else {}
    groups = [
        {"params": [model[0].weight], "lr": 0.02, "weight_decay": 0.1},
        {"params": [model[0].bias, model[2].weight, model[2].bias]},
    ]
    optimizer = getattr(torch.optim, name)(groups, lr=0.01, **options)
    for _ in range(3):
        train_step(model, optimizer, INPUTS)
    old = dict(optimizer.state[model[0].weight])
    settings = [{k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups]
    pol.sign_in(model, optimizer=optimizer)
    (m, v), (m2, v2) = factors(model[0]), factors(model[2])
    assert held(optimizer) == [id(each) for each in (m, v, model[0].bias, m2, v2, model[2].bias)]
    assert settings == [
        {k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups
    ]
    for key, value in old.items():
        if key == "step":
            assert optimizer.state[m]["step"] == value
            assert optimizer.state[m]["step"] is not optimizer.state[v]["step"]
        else:
            power = 1 if key in ("momentum_buffer", "exp_avg") else 2
            torch.testing.assert_close(optimizer.state[m][key], value * v.detach() ** power)
            torch.testing.assert_close(optimizer.state[v][key], value * m.detach() ** power)
    before = [each.detach().clone() for each in (m, v, m2, v2)]
    train_step(model, optimizer, INPUTS)
    assert all(not torch.equal(a, b) for a, b in zip(before, (m, v, m2, v2), strict=True))

    pol.merge(model, optimizer=optimizer)
    assert held(optimizer) == [id(each) for each in model.parameters()]
    train_step(model, optimizer, INPUTS)


def test_conversion_and_merge_give_the_optimizers_memory_back() -> None:
    model = mlp()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, amsgrad=True)
    for _ in range(3):
        train_step(model, optimizer, INPUTS)
    states = copy.deepcopy([optimizer.state[layer.weight] for layer in (model[0], model[2])])
    pol.merge(pol.sign_in(model, optimizer=optimizer), optimizer=optimizer)
    for layer, expected in zip((model[0], model[2]), states, strict=True):
        found = optimizer.state[layer.weight]
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            torch.testing.assert_close(found[key], value, rtol=1e-5, atol=1e-12)


def test_named_parameters_of_an_optimizer_keep_their_order() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.named_parameters(), lr=0.1)
    pol.sign_in(model, optimizer=optimizer)
    (group,) = optimizer.param_groups
    by_name = dict(model.named_parameters())
    assert [id(by_name[name]) for name in group["param_names"]] == held(optimizer)
    pol.merge(model, optimizer=optimizer)
    assert group["param_names"] == ["0.weight", "0.bias", "2.weight", "2.bias"]


def test_gradients_gathered_before_conversion_are_carried_over() -> None:
    model, twin = mlp(), mlp()
    pol.sign_in(twin)
    for each in (model, twin):
        each(*INPUTS).square().sum().backward()
    pol.sign_in(model)
    for ours, expected in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, expected.grad)


def test_an_optimizer_that_was_not_told_is_stopped_at_its_next_step() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    train_step(model, optimizer, INPUTS)
    pol.sign_in(model)
    with pytest.raises(RuntimeError, match=r"sign_in made '0\.weight' a product.*optimizer="):
        train_step(model, optimizer, INPUTS)
    later = torch.optim.SGD(model.parameters(), lr=0.1)
    train_step(model, later, INPUTS)
    pol.merge(model)
    with pytest.raises(RuntimeError, match=r"merge made '0\.weight' one parameter again"):
        train_step(model, later, INPUTS)
    train_step(model, torch.optim.SGD(model.parameters(), lr=0.1), INPUTS)


def test_an_optimizer_of_another_model_is_refused_and_nothing_is_changed() -> None:
    model, other = mlp(), mlp()
    optimizer = torch.optim.SGD(other.parameters(), lr=0.1)
    before = plain_state(model)
    with pytest.raises(ValueError, match="holds none of the 2 weights"):
        pol.sign_in(model, optimizer=optimizer)
    assert same_state(plain_state(model), before)
    assert held(optimizer) == [id(each) for each in other.parameters()]


def test_memory_of_an_unknown_kind_starts_afresh_with_a_warning() -> None:
    model = mlp()
    optimizer = torch.optim.ASGD(model.parameters(), lr=0.1)
    train_step(model, optimizer, INPUTS)
    with pytest.warns(UserWarning, match="ASGD remembers ax"):
        pol.sign_in(model, optimizer=optimizer)
    assert all(factor not in optimizer.state for factor in factors(model[0]))
    train_step(model, optimizer, INPUTS)


def test_the_product_starts_with_no_momentum_where_the_factors_were_pruned() -> None:
    model = pol.sign_in(pol.mask_weights(seeded(nn.Linear(6, 5))))
    sgd = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    train_step(model, sgd, INPUTS)
    pol.imp_prune(model, density=0.4)  # the optimizer is not told, and moves what it pruned
    train_step(model, sgd, INPUTS)
    mask = pol.masks(model)["weight"]
    pol.merge(model, optimizer=sgd)
    momentum = sgd.state[model.weight]["momentum_buffer"]
    assert not momentum[~mask].any()
    assert momentum[mask].all()
