"""sign_in and merge: existing models, existing optimizers, and what goes wrong."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, weight_norm
from torch.nn.utils import prune as torch_prune

import polarity as pol
from tests.forms import random_masks
from tests.helpers import plain_state, same_state, train, train_step
from tests.models import Tied, seeded

INPUTS = (torch.randn(8, 6, generator=torch.Generator().manual_seed(3)),)


def mlp(seed: int = 0) -> nn.Sequential:
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4))
    return seeded(model, seed)


def factors(layer: nn.Module) -> tuple[Tensor, Tensor]:
    chain = layer.parametrizations.weight
    return chain.original0, chain.original1


def held(optimizer: torch.optim.Optimizer) -> list[int]:
    return [id(each) for group in optimizer.param_groups for each in group["params"]]


@pytest.mark.parametrize("masked", [False, True], ids=["plain", "masked"])
@pytest.mark.parametrize("trained", [False, True], ids=["fresh", "trained"])
def test_one_line_converts_any_model_and_changes_no_output(masked: bool, trained: bool) -> None:
    model = mlp()
    masks = random_masks(model)
    if masked:
        pol.load_masks(model, masks)
    if trained:
        train(model, INPUTS)
    before = model(*INPUTS)
    assert pol.sign_in(model) is model
    torch.testing.assert_close(model(*INPUTS), before, rtol=1e-6, atol=1e-6)
    found = pol.masks(model)
    expected = masks if masked else {name: torch.ones_like(m) for name, m in masks.items()}
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    train(model, INPUTS)
    output = model(*INPUTS)
    assert list(pol.merge(model).state_dict()) == list(mlp().state_dict())
    assert torch.equal(model(*INPUTS), output)


def test_only_masked_weights_are_converted_where_there_are_any() -> None:
    model = pol.mask_weights(mlp(), targets="0")
    pol.sign_in(model)
    assert isinstance(model[0].parametrizations.weight[0], pol.SignInMW)
    assert not parametrize.is_parametrized(model[2])


def test_targets_and_exclude_choose_as_everywhere() -> None:
    model = pol.sign_in(mlp(), exclude="2")
    assert list(pol.masks(model)) == ["0.weight"]
    assert list(pol.masks(pol.sign_in(model, targets="2"))) == ["0.weight", "2.weight"]


def test_a_model_pruned_by_torch_is_taken_over_with_its_masks() -> None:
    model = mlp()
    torch_prune.random_unstructured(model[0], "weight", 0.5)
    mask = model[0].weight_mask.bool()
    before = model(*INPUTS)
    pol.sign_in(model)
    assert torch.equal(pol.masks(model)["0.weight"], mask)
    torch.testing.assert_close(model(*INPUTS), before)


def test_twice_changes_nothing_and_another_beta_takes_effect_at_once() -> None:
    model = pol.sign_in(mlp(), beta=1.0)
    state, ids = plain_state(model), [id(p) for p in model.parameters()]
    pol.sign_in(model, beta=1.0)
    for name, value in plain_state(model).items():
        torch.testing.assert_close(value, state[name])
    output = model(*INPUTS)
    pol.sign_in(model, beta=3.0)
    assert [id(p) for p in model.parameters()] == ids
    torch.testing.assert_close(model(*INPUTS), output)
    for scaling in pol.inner_scaling(model).values():
        torch.testing.assert_close(scaling, torch.full_like(scaling, 3.0))


def test_beta_can_differ_by_layer() -> None:
    model = pol.sign_in(mlp(), beta={"0.weight": 1.0, "2.weight": 4.0})
    means = {name: float(each.mean()) for name, each in pol.inner_scaling(model).items()}
    assert means == pytest.approx({"0.weight": 1.0, "2.weight": 4.0})


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


def test_a_tied_weight_stays_tied() -> None:
    model = seeded(Tied())
    tokens = torch.arange(7)
    before = model(tokens)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    pol.sign_in(model, targets="decoder", optimizer=optimizer)
    torch.testing.assert_close(model(tokens), before)
    m, v = (
        model.encoder.parametrizations.weight.original0,
        model.encoder.parametrizations.weight.original1,
    )
    assert model.decoder.parametrizations.weight.original0 is m
    assert model.decoder.parametrizations.weight.original1 is v
    assert held(optimizer) == [id(m), id(v), *map(id, model.middle.parameters())]
    train_step(model, optimizer, (tokens,))
    output = model(tokens)
    pol.merge(model, optimizer=optimizer)
    assert model.encoder.weight is model.decoder.weight
    assert torch.equal(model(tokens), output)
    train_step(model, optimizer, (tokens,))


def test_a_frozen_product_merges_to_a_frozen_parameter() -> None:
    model = pol.sign_in(mlp()).requires_grad_(False)
    pol.merge(model)
    assert [name for name, _ in model.named_parameters()] == list(mlp().state_dict())
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_frozen_weights_are_left_plain_and_named(capsys: pytest.CaptureFixture[str]) -> None:
    model = mlp()
    model[0].weight.requires_grad_(False)
    pol.sign_in(model, verbose=True)
    assert list(pol.masks(model)) == ["2.weight"]
    assert "frozen" in capsys.readouterr().out


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_weight_that_is_not_finite_is_refused_and_nothing_is_changed(bad: float) -> None:
    model = mlp()
    with torch.no_grad():
        model[2].weight[0, 0] = bad
    with pytest.raises(ValueError, match=r"'2\.weight' holds 1 NaN or infinite"):
        pol.sign_in(model)
    assert not any(parametrize.is_parametrized(module) for module in model.modules())


def test_beta_that_names_other_weights_is_refused() -> None:
    with pytest.raises(ValueError, match=r"beta is missing '2\.weight', which is selected"):
        pol.sign_in(mlp(), beta={"0.weight": 1.0})
    with pytest.raises(ValueError, match=r"beta holds 'other', which is not selected"):
        pol.sign_in(mlp(), beta={"0.weight": 1.0, "2.weight": 1.0, "other": 1.0})
    with pytest.raises(TypeError, match=r"beta='big\?' is a str, expected a number"):
        pol.sign_in(mlp(), beta="big?")


def test_a_second_parametrization_is_refused_by_name() -> None:
    model = pol.mask_weights(mlp())
    parametrize.register_parametrization(model[0], "weight", nn.Identity())
    with pytest.raises(ValueError, match=r"0\.weight is also parametrized by Identity, exp"):
        pol.sign_in(model)
    model = mlp()
    weight_norm(model[0])
    with pytest.raises(ValueError, match=r"0\.weight is computed by a hook"):
        pol.sign_in(model)


def test_pruning_and_sign_strategies_work_on_products() -> None:
    model = pol.sign_in(mlp())
    start = pol.RewindPoint.capture(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    train_step(model, optimizer, INPUTS)
    report = pol.imp_prune(model, 0.5, rewind=start, optimizer=optimizer)
    assert report.survivors == 25
    for name, mask in pol.masks(model).items():
        weight = dict(model.named_modules())[name.removesuffix(".weight")].weight.detach()
        torch.testing.assert_close(weight, start.weights[name] * mask)
    pol.reinit_signs(model, "mask1", init=start)
    for name, mask in pol.masks(model).items():
        weight = dict(model.named_modules())[name.removesuffix(".weight")].weight.detach()
        assert torch.equal(weight.sign(), start.weights[name].sign() * mask)
        assert weight[mask].abs().unique().numel() <= 2  # ±σ up to a rounding


def test_a_saved_model_loads_into_a_plain_a_masked_and_a_converted_one(tmp_path) -> None:
    model = pol.sign_in(pol.load_masks(mlp(), random_masks(mlp())), beta=2.0)
    train(model, INPUTS)
    pol.save(model, tmp_path / "model.safetensors")
    for other in (mlp(5), pol.mask_weights(mlp(5)), pol.sign_in(mlp(5))):
        pol.load(other, tmp_path / "model.safetensors")
        assert torch.equal(other(*INPUTS), model(*INPUTS))
        assert float(other[0].parametrizations.weight[0].beta) == 2.0


def test_checkpoints_go_from_masked_to_sign_in_and_back() -> None:
    masked = train(pol.load_masks(mlp(1), random_masks(mlp())), INPUTS)
    signed = pol.sign_in(mlp(2))
    signed.load_state_dict(masked.state_dict())
    torch.testing.assert_close(signed(*INPUTS), masked(*INPUTS))
    train(signed, INPUTS)
    masked.load_state_dict(signed.state_dict())
    torch.testing.assert_close(masked(*INPUTS), signed(*INPUTS))
    for name, mask in pol.masks(signed).items():
        assert torch.equal(pol.masks(masked)[name], mask)


def test_training_is_that_of_a_hand_written_product() -> None:
    """The same three steps of SGD with momentum and weight decay, once by autograd on m and v."""
    model = pol.load_masks(mlp(), random_masks(mlp()))
    masks = pol.masks(model)
    weights = {name: model[int(name[0])].weight.detach().clone() for name in masks}
    biases = {i: model[i].bias.detach().clone().requires_grad_() for i in (0, 2)}
    pairs = {}
    for name, weight in weights.items():
        m = torch.sqrt(0.5 + torch.sqrt(weight * weight + 0.25))
        pairs[name] = tuple((f * masks[name]).requires_grad_() for f in (m, weight / m))
    leaves = [each for pair in pairs.values() for each in pair] + list(biases.values())
    by_hand = torch.optim.SGD(leaves, lr=0.1, momentum=0.9, weight_decay=0.01)
    pol.sign_in(model)
    ours = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    for _ in range(3):
        train_step(model, ours, INPUTS)
        by_hand.zero_grad()
        w = {name: masks[name] * m * v for name, (m, v) in pairs.items()}
        hidden = torch.tanh(INPUTS[0] @ w["0.weight"].T + biases[0])
        ((hidden @ w["2.weight"].T + biases[2]) - 1).square().mean().backward()
        by_hand.step()
    for name, (m, v) in pairs.items():
        weight = model[int(name[0])].weight
        torch.testing.assert_close(weight, masks[name] * m * v, rtol=1e-5, atol=1e-6)


def test_a_wrapped_model_is_refused() -> None:
    class Wrapped(nn.parallel.DistributedDataParallel):
        def __init__(self, module: nn.Module) -> None:
            nn.Module.__init__(self)
            self.module = module

    with pytest.raises(TypeError, match="attach before wrapping"):
        pol.sign_in(Wrapped(mlp()))


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
