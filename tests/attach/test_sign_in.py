"""sign_in and merge: which models and weights they take, and what goes wrong."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize, weight_norm
from torch.nn.utils import prune as torch_prune

import polarity as pol
from tests.attach.products import INPUTS, held, mlp
from tests.forms import random_masks
from tests.helpers import plain_state, train, train_step
from tests.models import Tied, seeded


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
