"""The value that interpolated norms train at: drawn, held, fixed; and how training goes."""

import contextlib
import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

import polarity as pol
from polarity.attach.norms import attached_norms
from tests.helpers import plain_state, same_state
from tests.models import generator, seeded
from tests.norm_nets import EVERY_NET, NETS, X, alphas, gradients, moved, pair


@EVERY_NET
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_fixed_to_a_side_it_computes_bitwise_what_that_side_does(kind: str, training: bool) -> None:
    model, plain, initial = (each.train(training) for each in pair(kind))
    pol.set_norm_alpha(model, 1.0)
    assert torch.equal(model(X), plain(X))
    pol.set_norm_alpha(model, 0.0)
    assert torch.equal(model(X), (initial if training else plain)(X))
    assert not torch.equal(initial(X), plain(X))


@EVERY_NET
def test_in_between_it_computes_with_the_weighted_mean_of_both(kind: str) -> None:
    model, plain, initial = (each.double().train() for each in pair(kind))
    mean = copy.deepcopy(plain)
    for _ in range(3):
        output = model(X.double())
        alpha = alphas(model)[0]
        with torch.no_grad():
            for value, a, b in zip(
                mean.parameters(), plain.parameters(), initial.parameters(), strict=True
            ):
                value.copy_(alpha * a + (1 - alpha) * b)
        torch.testing.assert_close(output, mean(X.double()))


@EVERY_NET
def test_evaluation_draws_nothing_and_uses_what_was_trained(kind: str) -> None:
    model, plain, _ = (each.eval() for each in pair(kind))
    before = plain_state(model)
    assert torch.equal(model(X), plain(X))
    assert same_state(plain_state(model), before)
    with torch.inference_mode():
        model.train()(X)
    assert torch.equal(model.eval()(X), plain.train(False)(X)) or kind == "batch"


def test_every_training_forward_draws_one_value_for_all_layers() -> None:
    model = pol.interpolate_norms(NETS["batch"](), generator=generator()).train()
    seen = []
    for _ in range(5):
        model(X)
        assert len(set(alphas(model))) == 1
        seen.append(alphas(model)[0])
    assert len(set(seen)) == 5
    assert list(pol.norm_alpha(model)) == ["1", "4", "8"]


def test_the_generator_decides_the_values_and_without_one_the_global_state() -> None:
    def values(**options: torch.Generator) -> list[float]:
        model = pol.interpolate_norms(NETS["layer"](), **options).train()
        return [alphas(model)[0] for _ in range(4) if model(X) is not None]

    assert values(generator=generator(4)) == values(generator=generator(4))
    assert values(generator=generator(4)) != values(generator=generator(5))
    torch.manual_seed(1)
    first, second = values(), values()
    assert first != second
    torch.manual_seed(1)
    assert values() == first


def test_per_layer_every_layer_draws_its_own_for_weight_and_bias() -> None:
    model = pol.interpolate_norms(NETS["batch"](), per_layer=True, generator=generator()).train()
    model(X)
    assert len(set(alphas(model))) == 3
    for index in (1, 4, 8):
        chains = model[index].parametrizations
        assert chains.weight[0].alpha is chains.bias[0].alpha


def test_a_layer_in_evaluation_mode_uses_what_was_trained_there() -> None:
    model, plain, _ = pair("batch")
    model.train()
    model[1].eval()
    model(X)
    assert torch.equal(model[1].weight, plain[1].weight)
    assert not torch.equal(model[4].weight, plain[4].weight)
    before = alphas(model)
    model.eval()
    model[4].train()
    model(X)
    assert alphas(model) != before


def test_calling_a_layer_alone_draws_nothing() -> None:
    model = pol.interpolate_norms(NETS["batch"](), generator=generator()).train()
    model(X)
    before = alphas(model)
    model[0:6](X)
    assert alphas(model) == before


def reference_steps(
    model: nn.Module, start: dict[str, Tensor], values: list[float], rule: str
) -> dict[str, Tensor]:
    """Train by hand: gradients by torch on the mean's value, everything after written out."""
    theta = {name: value.detach().clone() for name, value in model.named_parameters()}
    state = {name: [torch.zeros_like(v), torch.zeros_like(v)] for name, v in theta.items()}
    for step, alpha in enumerate(values, start=1):
        used = {
            name: (alpha * value + (1 - alpha) * start[name] if name in start else value)
            for name, value in theta.items()
        }
        used = {name: value.clone().requires_grad_() for name, value in used.items()}
        loss = (functional_call(model, used, X.double()) - 1).square().mean()
        slopes = torch.autograd.grad(loss, list(used.values()))
        for (name, value), slope in zip(theta.items(), slopes, strict=True):
            g = alpha * slope if name in start else slope
            first, second = state[name]
            if rule == "sgd":
                first.mul_(0.9).add_(g + 0.05 * value)  # decay is not scaled by alpha
                value.sub_(0.1 * first)
            else:
                value.mul_(1 - 0.01 * 0.1)
                first.mul_(0.9).add_(0.1 * g)
                second.mul_(0.999).add_(0.001 * g * g)
                root = (second / (1 - 0.999**step)).sqrt() + 1e-8
                value.sub_(0.01 * first / (1 - 0.9**step) / root)
    return theta


@EVERY_NET
@pytest.mark.parametrize("rule", ["sgd", "adamw"])
def test_training_follows_a_loop_written_by_hand(kind: str, rule: str) -> None:
    plain = seeded(NETS[kind]()).double().train()
    model = copy.deepcopy(plain)
    optimizer = (
        torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.05)
        if rule == "sgd"
        else torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)
    )
    pol.interpolate_norms(model, generator=generator(1))  # the optimizer was built before
    start = {name: value.clone() for name, value in attached_norms(model).items()}
    values = []
    for _ in range(6):
        optimizer.zero_grad()
        (model(X.double()) - 1).square().mean().backward()
        optimizer.step()
        values.append(alphas(model)[0])
    expected = reference_steps(plain, start, values, rule)
    got = dict(pol.merge(model).named_parameters())
    assert len(set(values)) == 6
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(got[name].detach(), value, rtol=1e-9, atol=1e-11, msg=name)


def test_without_a_gradient_weight_decay_alone_shrinks_the_trained_value() -> None:
    model = pol.interpolate_norms(nn.LayerNorm(5), generator=generator()).train()
    sgd = torch.optim.SGD(model.parameters(), lr=0.5, weight_decay=0.2)
    (model(X.flatten()[:10].view(2, 5)) * 0).sum().backward()
    sgd.step()
    assert torch.equal(attached_norms(model)["weight"], torch.full((5,), 0.9))
    assert torch.equal(model.parametrizations.weight[0].initial, torch.ones(5))


@pytest.mark.parametrize("reentrant", [True, False], ids=["reentrant", "saved_hooks"])
def test_activation_checkpointing_changes_no_gradient(reentrant: bool) -> None:
    class Checkpointed(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            layers = list(self)
            first, rest = nn.Sequential(*layers[:4]), nn.Sequential(*layers[4:])
            return rest(checkpoint(first, x, use_reentrant=reentrant))

    plain = seeded(NETS["layer"]())
    model = Checkpointed(*copy.deepcopy(plain))
    for each in (plain, model):
        pol.interpolate_norms(each, generator=generator(2))
        moved(each)
    x = X.clone().requires_grad_()
    for _ in range(3):
        found = []
        for each in (plain, model):
            each.zero_grad()
            each(x).square().sum().backward()
            found.append((gradients(each), alphas(each)))
        assert found[0][1] == found[1][1]
        assert all(torch.equal(found[0][0][name], found[1][0][name]) for name in found[0][0])


@EVERY_NET
def test_two_forwards_before_one_backward_keep_a_value_each(kind: str) -> None:
    model, twin = pair(kind)[0], pair(kind)[0]
    (model(X).square().sum() + model(2 * X).square().sum()).backward()
    for scale in (1, 2):
        twin(scale * X).square().sum().backward()
    for name, value in gradients(twin).items():
        torch.testing.assert_close(gradients(model)[name], value, msg=name)


def test_held_values_serve_all_micro_batches_of_a_step() -> None:
    model = pol.interpolate_norms(NETS["batch"](), per_layer=True, generator=generator()).train()
    model(X)
    steps = []
    for _ in range(3):
        with pol.set_norm_alpha(model, "hold"):
            seen = [alphas(model) for half in X.split(3) if model(half) is not None]
        assert seen[0] == seen[1]
        steps.append(tuple(seen[0]))
    model(X)
    assert len({*steps, tuple(alphas(model))}) == 4


def test_a_fixed_value_stays_and_comes_back_after_a_block() -> None:
    model = pol.interpolate_norms(NETS["group"](), generator=generator()).train()
    pol.set_norm_alpha(model, 0.75)
    model(X)
    assert set(alphas(model)) == {0.75}
    with pol.set_norm_alpha(model, "random"):
        model(X)
        assert set(alphas(model)) != {0.75}
    model(X)
    assert set(alphas(model)) == {0.75}
    with contextlib.suppress(KeyError), pol.set_norm_alpha(model, 0):
        assert set(alphas(model)) == {0.0}
        raise KeyError
    assert set(alphas(model)) == {0.75}
    pol.set_norm_alpha(model, "random")
    model(X)
    assert set(alphas(model)) != {0.75}


@pytest.mark.parametrize("alpha", [-0.1, 1.5, float("nan"), "fixed"])
def test_a_value_out_of_range_is_refused_and_nothing_changes(alpha: object) -> None:
    model = pol.interpolate_norms(NETS["group"](), generator=generator())
    pol.set_norm_alpha(model, 0.25)
    with pytest.raises(ValueError, match="alpha="):
        pol.set_norm_alpha(model, alpha)
    assert set(alphas(model)) == {0.25}
    with pytest.raises(TypeError, match="alpha="):
        pol.set_norm_alpha(model, None)


@pytest.mark.parametrize("per_layer", [False, True])
def test_a_run_resumed_from_weights_and_streams_draws_the_same_values(per_layer: bool) -> None:
    """Weights alone are not enough: the stream would begin anew."""
    whole = pol.interpolate_norms(NETS["batch"](), per_layer=per_layer, generator=generator())
    for _ in range(3):
        whole.train()(X)
    state = pol.norm_alpha_state(whole)
    resumed = pol.interpolate_norms(NETS["batch"](), per_layer=per_layer, generator=generator())
    assert pol.load_norm_alpha_state(resumed.train(), state) is resumed
    drawn = []
    for model in (whole, resumed):
        values = []
        for _ in range(3):
            model(X)
            values.append(alphas(model))
        drawn.append(values)
    assert drawn[0] == drawn[1]
    assert state.keys() == pol.norm_alpha(whole).keys()
    assert len({tuple(each.tolist()) for each in state.values()}) == (3 if per_layer else 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: {**state, "9": state["1"]}, "state holds '9', which is not interp"),
        (lambda state: {name: state[name] for name in ("1", "4")}, "state is missing '8'"),
        (lambda state: {**state, "4": state["4"] + 1}, "shares its values, expected one"),
        (lambda state: {**state, "8": state["8"].float()}, "int64"),
        (lambda state: {**state, "8": state["8"][:1]}, "shape"),
        (lambda state: dict.fromkeys(state, torch.zeros(2, dtype=torch.int64)), "from 1 to"),
        (lambda state: dict.fromkeys(state, torch.full((2,), 2**31 - 1)), "from 1 to"),
    ],
)
def test_a_stream_that_does_not_fit_is_refused_and_nothing_changes(
    change: Callable[[dict[str, Tensor]], dict[str, Tensor]], message: str
) -> None:
    model = pol.interpolate_norms(NETS["batch"](), generator=generator())
    other = pol.interpolate_norms(NETS["batch"](), generator=generator(5))
    before = pol.norm_alpha_state(model)
    with pytest.raises(ValueError, match=message):
        pol.load_norm_alpha_state(model, change(pol.norm_alpha_state(other)))
    assert same_state(pol.norm_alpha_state(model), before)


@pytest.mark.parametrize(
    "call",
    [
        pol.norm_alpha,
        pol.norm_alpha_state,
        lambda m: pol.load_norm_alpha_state(m, {}),
        lambda m: pol.set_norm_alpha(m, 0.5),
    ],
)
def test_a_model_without_interpolated_norms_has_no_value(call: Callable[..., object]) -> None:
    with pytest.raises(ValueError, match="call interpolate_norms"):
        call(NETS["batch"]())
