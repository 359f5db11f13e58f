"""The networks of the recipes: sizes that the literature states, shapes, and seeds."""

import pytest
import torch

import polarity as pol
from benchmarks.models.deit import deit_small
from benchmarks.models.networks import build_network
from benchmarks.models.resnet import cifar_resnet, resnet18, resnet50


def parameters(model):
    return sum(parameter.numel() for parameter in model.parameters())


def prunable(model):
    return sum(target.shape.numel() for target in pol.find_targets(model).values())


def drawn(seed):
    return torch.Generator().manual_seed(seed)


# The ResNet paper's networks add no parameters between stages; ours have two 1x1 convolutions with
# norms there, of 576 and 2176.
@pytest.mark.parametrize(("depth", "size"), [(20, 269_722), (32, 464_154)])
def test_sizes_of_cifar_resnets(depth, size):
    assert parameters(cifar_resnet(depth)) == size + 576 + 2176


def test_sizes_of_larger_networks():
    assert parameters(resnet18()) == 11_173_962
    assert parameters(resnet18(100)) == 11_173_962 + 90 * 513
    assert parameters(deit_small()) == 22_050_664


def test_size_of_resnet50():
    assert parameters(resnet50()) == 25_557_032


def test_every_convolution_and_the_classifier_is_prunable():
    model = cifar_resnet(20)
    convolutions = 432 + 6 * 2304 + (4608 + 5 * 9216 + 512) + (18432 + 5 * 36864 + 2048)
    assert prunable(model) == convolutions + 640


@pytest.mark.parametrize("stem_stride", [1, 2])
def test_small_networks_take_small_images_and_train(stem_stride):
    model = cifar_resnet(8, 7, width=8, channels=1, stem_stride=stem_stride, generator=drawn(0))
    out = model(torch.randn(5, 1, 8, 8, generator=drawn(1)))
    assert out.shape == (5, 7)
    out.sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize(
    "make",
    [
        lambda generator: cifar_resnet(8, width=8, generator=generator),
        lambda generator: resnet18(generator=generator),
        lambda generator: deit_small(5, image_size=32, generator=generator),
    ],
)
def test_the_seed_decides_every_weight_and_the_global_stream_does_not_notice(make):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one, two, other = (make(drawn(seed)).state_dict() for seed in (1, 1, 2))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert any(not torch.equal(one[key], other[key]) for key in one)


def test_convolutions_have_torchvisions_scale():
    weight = cifar_resnet(8, width=64, generator=drawn(0)).layer3[0].conv2.weight.detach()
    # Kaiming, fan out: 256 channels, 9 pixels.
    assert float(weight.std()) == pytest.approx((2 / (256 * 9)) ** 0.5, rel=0.01)


def test_names_and_refusals():
    shape = (3, 32, 32)
    assert parameters(build_network("resnet20", shape, 10)) == 272_474
    small = build_network("resnet14", (1, 28, 28), 10, width=8, stem_stride=2)
    assert small.conv1.stride == (2, 2)
    with pytest.raises(ValueError, match="unknown network 'resnet21'"):
        build_network("resnet21", shape, 10)
    with pytest.raises(ValueError, match="one width"):
        build_network("resnet18", shape, 10, width=32)
    with pytest.raises(ValueError, match="colour images"):
        build_network("deit_small", (1, 32, 32), 10)
    with pytest.raises(ValueError, match="6n \\+ 2"):
        cifar_resnet(18)
    with pytest.raises(ValueError, match="width is at least 1"):
        cifar_resnet(20, width=0)
