"""Sizes, shapes and seeded initialisation of the networks."""

import pytest
import torch
from torch import nn

from benchmarks.models import ARCHS, build_model
from benchmarks.models.vgg import vgg16


def build(arch, shape=(3, 32, 32), classes=10, *, seed=0, **options):
    generator = torch.Generator().manual_seed(seed)
    return build_model(arch, shape, classes, generator=generator, **options)


def weights(model):
    return sum(p.numel() for p in model.parameters() if p.ndim > 1)


@pytest.mark.parametrize(
    ("arch", "shape", "expected"),
    [
        ("fc", (1, 28, 28), 784 * 300 + 300 * 100 + 100 * 10),
        ("conv2", (3, 32, 32), 27 * 64 + 576 * 64 + 16384 * 256 + 256 * 256 + 2560),
        ("conv4", (3, 32, 32), 1728 + 36864 + 73728 + 147456 + 8192 * 256 + 65536 + 2560),
        ("conv6", (3, 32, 32), 259776 + 294912 + 589824 + 4096 * 256 + 65536 + 2560),
    ],
)
def test_weights_are_those_of_the_paper(arch, shape, expected):
    assert weights(build(arch, shape)) == expected


def test_fc_on_mnist_has_266200_weights():
    assert weights(build("fc", (1, 28, 28))) == 266_200


@pytest.mark.parametrize("arch", [arch for arch in ARCHS if arch != "vgg16_pretrained"])
def test_networks_give_one_logit_per_class(arch):
    model = build(arch, classes=7).eval()
    with torch.no_grad():
        assert model(torch.randn(2, 3, 32, 32)).shape == (2, 7)


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 33, 47)])
def test_conv_nets_fit_any_image(shape):
    with torch.no_grad():
        assert build("conv6", shape)(torch.randn(2, *shape)).shape == (2, 10)


@pytest.mark.parametrize(("arch", "shape"), [("conv6", (1, 7, 7)), ("vgg16", (3, 28, 28))])
def test_images_that_are_pooled_away_are_refused(arch, shape):
    with pytest.raises(ValueError, match=r"28|7"):
        build(arch, shape)


@pytest.mark.parametrize("init", ["glorot_normal", "kaiming_normal", "torch"])
def test_initialisation_comes_from_the_generator_alone(init):
    before = torch.random.get_rng_state()
    first, again, other = (build("conv2", init=init, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    for a, b, c in zip(first.parameters(), again.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
        assert a.ndim == 1 or not torch.equal(a, c)


def test_glorot_normal_has_its_variance_and_zero_biases():
    first = next(m for m in build("fc", (1, 28, 28)).modules() if isinstance(m, nn.Linear))
    assert float(first.weight.detach().std()) == pytest.approx((2 / (784 + 300)) ** 0.5, rel=0.01)
    assert not first.bias.any()


@pytest.mark.parametrize("batch_norm", [False, True])
def test_pretrained_features_are_loaded_and_the_classifier_is_drawn(tmp_path, batch_norm):
    source = vgg16((3, 32, 32), 10, batch_norm=batch_norm)
    state = {f"features.{k}": v for k, v in source.get_submodule("features").state_dict().items()}
    state["classifier.0.weight"] = torch.zeros(3, 3)
    path = tmp_path / "vgg.pth"
    torch.save(state, path)
    model = build("vgg16_pretrained", classes=100, weights=path)
    for name, tensor in model.get_submodule("features").state_dict().items():
        assert torch.equal(tensor, state[f"features.{name}"])
    assert model.get_submodule("classifier").weight.shape == (100, 512)


def test_weights_of_another_network_are_refused(tmp_path):
    path = tmp_path / "other.pth"
    torch.save({"features.0.weight": torch.zeros(8, 3, 3, 3)}, path)
    with pytest.raises(ValueError, match=r"0\.bias is missing.*"):
        build("vgg16_pretrained", weights=path)
    torch.save({"conv1.weight": torch.zeros(3)}, path)
    with pytest.raises(ValueError, match=r"features\."):
        build("vgg16_pretrained", weights=path)
    with pytest.raises(FileNotFoundError, match="--weights"):
        build("vgg16_pretrained", weights=tmp_path / "none.pth")


@pytest.mark.parametrize("arguments", [("vgg16_pretrained", None), ("vgg16", "vgg.pth")])
def test_weights_and_pretrained_go_together(arguments):
    arch, path = arguments
    with pytest.raises(ValueError, match="go together"):
        build(arch, weights=path)


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="resnet"):
        build("resnet")
    with pytest.raises(ValueError, match="orthogonal"):
        build("fc", init="orthogonal")
