"""The networks of the AWS experiments, by name, seeded, and what of them is pruned."""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

import torch
from torch import nn
from torchvision.models.vgg import cfgs, make_layers

import polarity as pol

from ...models.mixer import mixer_s16, small_mixer
from ...models.mobile import MOBILE, mobile
from ...models.resnet import cifar_resnet, resnet50, seeded
from ...models.vgg import with_classifier
from .config import AwsArch

Shape = tuple[int, int, int]
NETWORKS: tuple[str, ...] = get_args(AwsArch)
# Images up to this side keep their resolution in ResNet-50's stem.
_SMALL_SIDE = 64


def build_network(arch: str, shape: Shape, classes: int, generator: torch.Generator) -> nn.Module:
    """Build a network on the CPU, all of its randomness drawn from `generator`.

    Args:
        arch: one of `NETWORKS`.
        shape: channels, height and width of an image.
        classes: number of outputs.
        generator: a CPU generator.

    Raises:
        ValueError: unknown name, or images that do not fit the network.
    """
    channels = shape[0]
    if arch == "small_resnet":
        return _small_resnet(channels, classes, generator)
    if arch in ("resnet20", "resnet32"):
        depth = int(arch.removeprefix("resnet"))
        return cifar_resnet(depth, classes, channels=channels, generator=generator)
    if arch == "resnet50":
        return _resnet50(shape, classes, generator)
    builders: dict[str, Callable[[], nn.Module]] = {
        "mixer": lambda: small_mixer(shape, classes),
        "mixer_s16": lambda: mixer_s16(shape, classes),
        "small_vgg": lambda: vgg11_bn(shape, classes, shrink=8),
        "vgg11_bn": lambda: vgg11_bn(shape, classes),
        **{name: lambda name=name: mobile(name, shape, classes) for name in MOBILE},
    }
    if arch not in builders:
        raise ValueError(f"unknown architecture {arch!r}; known are {', '.join(NETWORKS)}")
    return seeded(builders[arch], generator)


def masked_network(
    arch: str,
    shape: Shape,
    classes: int,
    generator: torch.Generator,
    *,
    prune_classifier: bool = False,
    device: str | torch.device = "cpu",
) -> nn.Module:
    """Build a fresh network with masks of all ones on what AWS prunes.

    Every convolution and every linear layer, the classifier excepted unless asked for: the
    official code leaves it dense, and the remaining ratio does not count it.
    """
    model = build_network(arch, shape, classes, generator).to(device)
    exclude = None if prune_classifier else f"{classifier_name(model)}.weight"
    return pol.mask_weights(model, exclude=exclude)


def classifier_name(model: nn.Module) -> str:
    """Name of the last linear layer."""
    return [name for name, module in model.named_modules() if isinstance(module, nn.Linear)][-1]


def norm_parameters(model: nn.Module) -> list[str]:
    """Return the plain names of the weights and biases of normalisation layers, ψ in the paper."""
    kinds = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
    return [
        f"{path}.{name}"
        for path, module in model.named_modules()
        if isinstance(module, kinds)
        for name in ("weight", "bias")
        if getattr(module, name, None) is not None
    ]


def vgg11_bn(shape: Shape, classes: int, *, shrink: int = 1) -> nn.Module:
    """Build a VGG-11 with batch norm and one linear classifier, every width divided by `shrink`.

    Pools that an image is too small for are left out, the last ones first.
    """
    channels, height, width = shape
    pools = min(height, width).bit_length() - 1
    plan: list[str | int] = []
    for entry in cfgs["A"]:
        if not isinstance(entry, str):
            plan.append(entry // shrink)
        elif plan.count("M") < pools:
            plan.append(entry)
    features = make_layers(plan, batch_norm=True)
    first = features[0]
    if channels != first.in_channels:
        features[0] = nn.Conv2d(channels, first.out_channels, 3, padding=1)
        nn.init.kaiming_normal_(features[0].weight, mode="fan_out", nonlinearity="relu")
    for module in features:
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(module.bias)
    return with_classifier(features, 512 // shrink, classes)


def _small_resnet(channels: int, classes: int, generator: torch.Generator) -> nn.Module:
    """Build a ResNet-8 whose stem halves the image: a quarter of the work at the same weights."""
    model = cifar_resnet(8, classes, channels=channels, generator=generator)
    model.conv1.stride = (2, 2)
    return model


def _resnet50(shape: Shape, classes: int, generator: torch.Generator) -> nn.Module:
    """Build the ResNet-50 of torchvision; for small images its stem has stride 1 and no pool."""
    channels, height, width = shape
    model = resnet50(classes, generator=generator)
    if min(height, width) > _SMALL_SIDE and channels == 3:
        return model

    def stem() -> nn.Conv2d:
        made = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(made.weight, mode="fan_out", nonlinearity="relu")
        return made

    model.conv1 = seeded(stem, generator)
    model.maxpool = nn.Identity()
    return model
