"""ResNets for small images (He et al. 2016, section 4.2), of torchvision's blocks.

Layers are named as torchvision names them. All randomness of a fresh network comes from one
generator; convolutions are drawn as torchvision draws them (Kaiming, fan out).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import nn
from torch.nn.functional import relu
from torchvision.models.resnet import BasicBlock

_Model = TypeVar("_Model", bound=nn.Module)


class CifarResNet(nn.Module):
    """Three stages of basic blocks with `width`, twice and four times `width` channels."""

    def __init__(
        self, depth: int, classes: int, width: int, channels: int, stem_stride: int
    ) -> None:
        super().__init__()
        blocks = (depth - 2) // 6
        self.conv1 = nn.Conv2d(channels, width, 3, stem_stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = _stage(blocks, width, width, 1)
        self.layer2 = _stage(blocks, width, 2 * width, 2)
        self.layer3 = _stage(blocks, 2 * width, 4 * width, 2)
        self.fc = nn.Linear(4 * width, classes)
        _draw_convolutions(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = relu(self.bn1(self.conv1(x)))
        out = self.layer3(self.layer2(self.layer1(out)))
        return self.fc(out.mean(dim=(2, 3)))


def cifar_resnet(
    depth: int,
    classes: int = 10,
    *,
    width: int = 16,
    channels: int = 3,
    stem_stride: int = 1,
    generator: torch.Generator | None = None,
) -> CifarResNet:
    """Build ResNet-8, -14, -20, -32, … for images of about 32x32.

    Stages of different shape are joined by a 1x1 convolution with batch norm (He et al.'s option B;
    ResNet-20 has 272 474 parameters).

    Args:
        depth: 6n + 2.
        classes: number of outputs.
        width: channels of the first stage; the paper's networks have 16.
        channels: channels of an image.
        stem_stride: stride of the first convolution; 2 makes the network about four times cheaper
            and is not what the papers train.
        generator: a CPU generator; the one with seed 0 where it is not given.
    """
    if depth < 8 or depth % 6 != 2:
        raise ValueError(f"depth is 6n + 2 (8, 14, 20, 32, …), not {depth}")
    if width < 1:
        raise ValueError(f"width is at least 1, not {width}")
    if stem_stride < 1:
        raise ValueError(f"stem_stride is at least 1, not {stem_stride}")
    return seeded(lambda: CifarResNet(depth, classes, width, channels, stem_stride), generator)


def resnet18(
    classes: int = 10, *, channels: int = 3, generator: torch.Generator | None = None
) -> nn.Module:
    """Build ResNet-18 of torchvision with a CIFAR stem: a 3x3 convolution, stride 1, no pool."""
    from torchvision.models import resnet18 as build

    def make() -> nn.Module:
        model = build(weights=None, num_classes=classes)
        model.conv1 = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
        model.maxpool = nn.Identity()
        _draw_convolutions(model)
        return model

    return seeded(make, generator)


def resnet50(classes: int = 1000, *, generator: torch.Generator | None = None) -> nn.Module:
    """Build ResNet-50 of torchvision, untrained."""
    from torchvision.models import resnet50 as build

    return seeded(lambda: build(weights=None, num_classes=classes), generator)


def seeded(make: Callable[[], _Model], generator: torch.Generator | None) -> _Model:
    """Build a model whose layers draw their own weights; the global generator stays as it was."""
    generator = generator if generator is not None else torch.Generator().manual_seed(0)
    seed = int(torch.randint(2**62, (), generator=generator))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()


def _stage(blocks: int, inputs: int, outputs: int, stride: int) -> nn.Sequential:
    shortcut: nn.Module | None = None
    if stride != 1 or inputs != outputs:
        shortcut = nn.Sequential(
            nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
        )
    first = BasicBlock(inputs, outputs, stride, shortcut)
    return nn.Sequential(first, *(BasicBlock(outputs, outputs) for _ in range(blocks - 1)))


def _draw_convolutions(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
