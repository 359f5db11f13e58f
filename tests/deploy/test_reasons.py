"""What stays dense, and the reason that the report gives: a layer's use, dtype or values."""

import math

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

from polarity import deploy
from tests.helpers import reasons, sparse_wins, swapped_modules
from tests.models import Tied, thin_mlp, thinned, x_of

NOT_CALLED = "not called (its weight may be read directly)"


def test_a_layer_above_break_even_is_not_measured():
    def never(dense, sparse):
        raise AssertionError("measured")

    model = thin_mlp(density=0.5)
    report = deploy.compress(model, x_of(4, 6), measure=never)
    assert reasons(report) == dict.fromkeys(
        ("0.weight", "2.weight"), "density 0.5 is above break_even=0.4, not measured"
    )
    assert swapped_modules(model) == []


def test_layers_whose_weight_is_read_but_not_called_stay_dense():
    model = nn.MultiheadAttention(8, 2, batch_first=True).eval()
    x = x_of(2, 5, 8)
    thinned(model)
    expected = model(x, x, x)[0]
    report = deploy.compress(model, (x, x, x), measure=sparse_wins)
    assert reasons(report) == {"out_proj.weight": NOT_CALLED}
    assert torch.equal(model(x, x, x)[0], expected)


def test_the_fused_path_of_a_transformer_layer_stays_in_use():
    model = thinned(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True))
    x = x_of(2, 5, 8)
    with torch.no_grad():
        expected = model(x)
        report = deploy.compress(model, x, measure=sparse_wins)
        assert set(reasons(report).values()) == {NOT_CALLED}
        assert torch.equal(model(x), expected)


def test_without_the_fused_path_its_layers_are_swapped_and_with_it_they_can_be_read():
    model = thinned(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True))
    x = x_of(2, 5, 8)
    fused = torch.backends.mha.get_fastpath_enabled()
    try:
        torch.backends.mha.set_fastpath_enabled(False)
        with torch.no_grad():
            expected = model(x)
            report = deploy.compress(model, x, measure=sparse_wins)
            assert report.swapped == ("linear1.weight", "linear2.weight")
            torch.testing.assert_close(model(x), expected)
            torch.backends.mha.set_fastpath_enabled(True)
            torch.testing.assert_close(model(x), expected)
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


def test_a_convolutional_net_keeps_its_convolutions():
    net = thinned(torchvision.models.mobilenet_v2(num_classes=10)).double()
    images = x_of(2, 3, 32, 32, dtype=torch.float64)
    expected = net(images)
    report = deploy.compress(net, images, measure=sparse_wins)
    assert report.swapped == ("classifier.1.weight",)
    torch.testing.assert_close(net(images), expected)


def test_tied_weights_stay_dense():
    model = thinned(Tied())
    model.encoder.weight.requires_grad_(False)
    report = deploy.compress(model, torch.tensor([1, 2, 3]), measure=sparse_wins)
    assert reasons(report)["decoder.weight"] == "tied to encoder.weight"
    assert model.decoder.weight is model.encoder.weight


class Odd(nn.Linear):
    def forward(self, x):
        return super().forward(x) + 1


def test_what_may_be_more_than_a_linear_map_stays_dense():
    odd, replaced, normed, never = Odd(6, 6), nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 6)
    replaced.forward = lambda x: F.linear(x, replaced.weight) * 2
    nn.utils.parametrizations.weight_norm(normed)
    model = nn.Sequential(odd, replaced, normed).eval()
    model.never = nn.Sequential()
    model.never.append(never)
    model.forward = lambda x: model[2](model[1](model[0](x)))
    given = {"odd": odd, "replaced": replaced, "normed": normed, "never": never}
    with torch.no_grad():
        for layer in (odd, replaced, never):
            layer.weight[:, 1:] = 0
    report = deploy.compress(model, x_of(2, 6), measure=sparse_wins)
    assert report.swapped == ()
    told = " | ".join(reasons(report).values())
    for part in ("a Odd may", "its forward was replaced", "is computed", NOT_CALLED):
        assert part in told
    assert all(isinstance(layer, nn.Linear) for layer in given.values())
    assert "forward" in vars(replaced)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_on_cpu_stays_dense(dtype):
    report = deploy.compress(thin_mlp().to(dtype), x_of(2, 6).to(dtype), measure=sparse_wins)
    name = str(dtype).removeprefix("torch.")
    assert set(reasons(report).values()) == {f"PyTorch has no sparse product in {name} on cpu"}


def test_autocast_stays_dense_and_a_swapped_layer_minds_it():
    x = x_of(4, 6)
    with torch.autocast("cpu", torch.bfloat16):
        report = deploy.compress(thin_mlp(), x, measure=sparse_wins)
    assert set(reasons(report).values()) == {"called under autocast"}
    plain, model = thin_mlp(), thin_mlp()
    deploy.compress(model, x, measure=sparse_wins)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(model(x), plain(x))
    half = x.bfloat16()
    assert torch.equal(model.bfloat16()(half), plain.bfloat16()(half))


def test_no_rows_and_weights_that_are_not_finite_stay_dense():
    report = deploy.compress(thin_mlp(), torch.zeros(0, 6), measure=sparse_wins)
    assert set(reasons(report).values()) == {"called with no rows"}
    model = thin_mlp()
    with torch.no_grad():
        model[2].weight[0, 0] = math.inf
    report = deploy.compress(model, x_of(2, 6), measure=sparse_wins)
    assert reasons(report) == {"0.weight": "faster", "2.weight": "its weight is not finite"}
    assert model[0](torch.zeros(0, 6)).shape == (0, 8)
