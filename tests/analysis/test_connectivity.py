"""Error barriers: zero or large where they must be, and the whole network is interpolated."""

import numpy as np
import pytest
import torch
from torch import nn

import polarity as pol
from polarity.attach.norms import interpolate_norms
from tests.analysis.xor import (
    HIDDEN,
    SWAP,
    error_on,
    mlp,
    permuted,
    snapshot,
    solved,
    unchanged,
    xor_data,
)
from tests.forms import half_masked, random_masks
from tests.models import seeded


@pytest.mark.parametrize("bn", ["recalibrate", "keep", "aws"])
def test_between_a_network_and_itself_the_barrier_is_zero_at_every_point(bn):
    model = solved(batch_norm=True)
    x, y = xor_data()
    path = pol.error_barrier(model, model, snapshot(model), error_on(x, y), bn=bn, batches=[x])
    assert len(path.curve) == 11
    assert path.excess == (0.0,) * 11
    assert path.barrier == path.barrier_above_line == 0.0


@pytest.mark.parametrize("batch_norm", [False, True])
def test_two_permuted_copies_have_a_large_barrier_and_none_when_it_is_undone(batch_norm):
    model = solved(batch_norm)
    x, y = xor_data()
    error = error_on(x, y)
    other = permuted(model, SWAP)
    torch.testing.assert_close(other.eval()(x), model.eval()(x))
    bn = "recalibrate" if batch_norm else "keep"
    path = pol.error_barrier(model, model, other, error, bn=bn, batches=[x])
    assert path.endpoints == (0.0, 0.0)
    assert path.barrier > 0.3
    back = permuted(other, torch.argsort(SWAP))
    undone = pol.error_barrier(model, model, back, error, bn=bn, batches=[x])
    assert undone.excess == (0.0,) * 11


class EveryKind(nn.Module):
    """Parameters in Conv1d, LayerNorm, GroupNorm, an embedding, and of the model itself."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 4)
        self.conv = nn.Conv1d(4, 6, 1)
        self.group = nn.GroupNorm(2, 6)
        self.layer = nn.LayerNorm(6)
        self.scale = nn.Parameter(torch.ones(6))
        self.register_buffer("offset", torch.zeros(6))
        self.register_buffer("count", torch.tensor(3))

    def forward(self, tokens):
        x = self.group(self.conv(self.embed(tokens).transpose(1, 2)))
        return self.layer(x.transpose(1, 2)) * self.scale + self.offset


def test_every_parameter_of_every_kind_is_interpolated():
    a, b = seeded(EveryKind(), 1), seeded(EveryKind(), 2)
    b.count.fill_(7)
    seen = []

    def look(network: nn.Module) -> float:
        assert not network.training
        assert not torch.is_grad_enabled()
        seen.append({name: value.clone() for name, value in network.state_dict().items()})
        return 0.0

    path = pol.error_barrier(EveryKind(), a, b, look, points=5)
    assert path.alphas == (0.0, 0.25, 0.5, 0.75, 1.0)
    one, other = a.state_dict(), b.state_dict()
    for alpha, state in zip(path.alphas, seen, strict=True):
        assert int(state.pop("count")) == 3
        for name, value in state.items():
            ends = one[name].double().numpy(), other[name].double().numpy()
            by_hand = (1 - alpha) * ends[0] + alpha * ends[1]
            np.testing.assert_allclose(value.numpy(), by_hand, rtol=1e-6, atol=1e-7)
    assert unchanged({k: v for k, v in one.items() if k != "count"}, seen[0])
    assert unchanged({k: v for k, v in other.items() if k != "count"}, seen[-1])
    parameters = {name for name, _ in a.named_parameters()}
    assert all(not torch.equal(seen[2][n], seen[0][n]) for n in parameters)


def test_running_statistics_are_recalibrated_at_every_point():
    a, b = seeded(mlp(True), 1), seeded(mlp(True), 2)
    draw = torch.Generator().manual_seed(0)
    batches = [torch.randn(8, 2, generator=draw) + i for i in range(3)]
    seen = []

    def look(network: nn.Module) -> float:
        seen.append((network[1].running_mean.clone(), network[1].running_var.clone()))
        return 0.0

    path = pol.error_barrier(mlp(True), a, b, look, points=3, batches=batches)
    for alpha, (mean, var) in zip(path.alphas, seen, strict=True):
        weight, bias = (
            (1 - alpha) * one.detach().double().numpy() + alpha * two.detach().double().numpy()
            for one, two in ((a[0].weight, b[0].weight), (a[0].bias, b[0].bias))
        )
        hidden = [batch.double().numpy() @ weight.T + bias for batch in batches]
        means = np.mean([each.mean(0) for each in hidden], axis=0)
        variances = np.mean([each.var(0, ddof=1) for each in hidden], axis=0)
        np.testing.assert_allclose(mean.numpy(), means, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(var.numpy(), variances, rtol=1e-5, atol=1e-6)


def test_aws_takes_one_pass_with_the_layers_own_momentum():
    a, b = seeded(mlp(True), 1), seeded(mlp(True), 2)
    draw = torch.Generator().manual_seed(0)
    batches = [torch.randn(8, 2, generator=draw) + i for i in range(3)]
    seen = []
    pol.error_barrier(
        mlp(True), a, b, lambda n: seen.append(n[1].running_mean.clone()) or 0.0, points=3,
        bn="aws", batches=batches,
    )  # fmt: skip
    expected = np.zeros(HIDDEN)
    for batch in batches:
        hidden = batch.double().numpy() @ a[0].weight.detach().double().numpy().T
        expected = 0.9 * expected + 0.1 * (hidden + a[0].bias.detach().double().numpy()).mean(0)
    np.testing.assert_allclose(seen[0].numpy(), expected, rtol=1e-5, atol=1e-6)


def test_keep_interpolates_the_running_statistics():
    a, b = seeded(mlp(True), 1), seeded(mlp(True), 2)
    seen = []
    pol.error_barrier(
        mlp(True), a, b, lambda n: seen.append(n[1].running_var.clone()) or 0.0, points=3, bn="keep"
    )
    torch.testing.assert_close(seen[1], (a[1].running_var + b[1].running_var) / 2)


def test_dropout_of_the_aws_way_comes_from_the_generator_and_not_from_the_global_state():
    model = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(4))
    batches = [torch.randn(16, 4, generator=torch.Generator().manual_seed(0))]
    seen = []

    def run(seed: int) -> None:
        pol.error_barrier(
            model,
            model,
            model,
            lambda network: seen.append(network[1].running_mean.clone()) or 0.0,
            points=2,
            bn="aws",
            batches=batches,
            generator=torch.Generator().manual_seed(seed),
        )

    random_state = torch.get_rng_state()
    run(0), run(0), run(1)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert torch.equal(seen[0], seen[1])  # every point draws the same
    assert torch.equal(seen[0], seen[2])
    assert not torch.equal(seen[0], seen[4])


@pytest.mark.parametrize("bn", ["recalibrate", "keep", "aws"])
def test_neither_the_model_nor_the_states_are_touched(bn):
    model, one, other = (seeded(mlp(True), seed).train() for seed in range(3))
    half_masked(model)
    parameters = list(model.parameters())
    ends = snapshot(one), snapshot(other)
    before = [snapshot(model), dict(ends[0]), dict(ends[1])]
    copies = [{k: v.clone() for k, v in each.items()} for each in before]

    def spoil(network: nn.Module) -> float:
        network.train()
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.fill_(9.0)
        return 0.0

    pol.error_barrier(model, *ends, spoil, bn=bn, batches=[torch.randn(4, 2)])
    for state, copy in zip((model.state_dict(), *ends), copies, strict=True):
        assert unchanged(state, copy)
    assert all(module.training for module in model.modules())
    assert all(a is b for a, b in zip(parameters, model.parameters(), strict=True))
    assert all(each.grad is None for each in model.parameters())


@pytest.mark.parametrize("form", ["model", "state_dict", "dense", "point"])
@pytest.mark.parametrize("convert", [half_masked, pol.sign_in, interpolate_norms])
def test_every_form_of_a_state_gives_the_effective_weights(convert, form):
    a, b = convert(seeded(mlp(True), 1)).eval(), seeded(mlp(True), 2)
    x, _ = xor_data(8)
    expected = a(x).sum().item(), b.eval()(x).sum().item()
    state = {
        "model": lambda: a,
        "state_dict": a.state_dict,
        "dense": lambda: pol.dense_state_dict(a),
        "point": lambda: pol.RewindPoint.capture(a),
    }[form]()
    for model in (a, b):  # the form of the model itself does not matter either
        path = pol.error_barrier(model, state, b, lambda net: net(x).sum().item(), bn="keep")
        assert path.endpoints == pytest.approx(expected, rel=1e-5)


def test_a_state_dict_with_a_remembered_mask_lives_whole():
    a = half_masked(seeded(mlp(False), 1))
    for module in a.modules():
        if isinstance(module, pol.MaskedWeight):
            module.enforce = False
    with torch.no_grad():
        a[0].parametrizations.weight.original.fill_(2.0)
    path = pol.error_barrier(
        mlp(False), a.state_dict(), a, lambda net: net[0].weight.sum().item(), points=2
    )
    assert path.endpoints == (2.0 * 2 * HIDDEN,) * 2


def test_masks_may_differ_and_the_path_then_has_the_entries_of_both():
    a, b = (
        pol.mask_weights(seeded(mlp(False), seed), masks=random_masks(mlp(False), seed=seed))
        for seed in (1, 2)
    )
    living = []
    pol.error_barrier(a, a, b, lambda net: living.append(net[0].weight != 0) or 0.0, points=3)
    one, other = pol.masks(a)["0.weight"], pol.masks(b)["0.weight"]
    assert not torch.equal(one, other)
    assert torch.equal(living[0], one)
    assert torch.equal(living[1], one | other)
    assert torch.equal(living[2], other)


def test_the_barrier_by_both_definitions():
    path = pol.ErrorBarrier((0.0, 0.25, 0.5, 0.75, 1.0), (0.1, 0.3, 0.4, 0.35, 0.5))
    assert path.endpoints == (0.1, 0.5)
    assert path.excess == pytest.approx((-0.2, 0.0, 0.1, 0.05, 0.2))
    assert path.barrier == pytest.approx(0.2)  # half the difference of the endpoints
    assert path.barrier_above_line == pytest.approx(0.1)
    assert str(path).splitlines()[0] == "barrier 0.2"


def test_a_nan_on_the_path_is_not_hidden():
    path = pol.ErrorBarrier((0.0, 0.5, 1.0), (0.1, float("nan"), 0.2))
    assert np.isnan(path.barrier)
    assert np.isnan(path.barrier_above_line)


def call(model=None, a=None, b=None, evaluate=lambda network: 0.0, **options):
    model = model or mlp(True)
    return pol.error_barrier(model, a or model, b or model, evaluate, **options)


def test_bad_input_is_named():
    state = mlp(False).state_dict()
    short = {name: value for name, value in state.items() if name != "3.bias"}
    for options, message in (
        ({"points": 1}, "points=1"),
        ({"bn": "ours"}, "bn='ours'"),
        ({}, "give batches="),
        ({"batches": iter([1])}, "read only once"),
        ({"batches": []}, "batches is empty"),
        ({"model": mlp(False), "a": short}, "state_a is missing '3.bias'"),
        ({"model": mlp(False), "b": {**state, "x": torch.ones(1)}}, "state_b holds 'x'"),
        (
            {"model": mlp(False), "b": {**state, "3.bias": torch.ones(9)}},
            r"'3.bias' in shape \(9,\)",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            call(**options)
    with pytest.raises(
        TypeError, match="state_b is an int, expected a state_dict, a model or a RewindPoint"
    ):
        call(b=3)
    with pytest.raises(TypeError, match="evaluate=3 is an int, expected a function"):
        call(evaluate=3)
    with pytest.raises(TypeError, match=r"points=2\.0 is a float"):
        call(points=2.0)
    with pytest.raises(TypeError, match="generator=3"):
        call(generator=3, batches=[1])
