"""MobileNetV2, ShuffleNetV2 and EfficientNet-B0 of torchvision, with stems for small images.

All three halve a 224x224 image two times or more before their first real block. On CIFAR's 32x32
that would leave a 1x1 map long before the end, so the stem keeps its resolution there: stride 1 in
the first convolution, no max-pool, and in MobileNetV2 stride 1 in its first strided block, as
CIFAR versions of these networks usually have it. The weights are those of torchvision in number
and shape, so a checkpoint of one stem loads into the other.

The AWS paper cites ShuffleNet (version 1); torchvision has version 2, which is what is built here.
"""

from __future__ import annotations

from typing import Any, cast

from torch import nn
from torchvision.models import efficientnet_b0, mobilenet_v2, shufflenet_v2_x1_0

MOBILE = ("mobilenet_v2", "shufflenet_v2", "efficientnet_b0")

# Images up to this side get the stem for small images: CIFAR (32) and Tiny-ImageNet (64).
_SMALL_SIDE = 64


def mobile(name: str, dataset_shape: tuple[int, int, int], classes: int) -> nn.Module:
    """Build one of the three, with torchvision's module names.

    Args:
        name: one of `MOBILE`.
        dataset_shape: channels (three), height and width of an image.
        classes: number of outputs.

    Returns:
        The network, with torchvision's own random initialisation.

    Raises:
        ValueError: unknown name, or images without three channels.
    """
    if name not in MOBILE:
        raise ValueError(f"unknown network {name!r}; known are {', '.join(MOBILE)}")
    if dataset_shape[0] != 3:
        raise ValueError(f"{name} takes images of three channels, not {dataset_shape}")
    small = min(dataset_shape[1:]) <= _SMALL_SIDE
    model: Any
    if name == "mobilenet_v2":
        model = mobilenet_v2(num_classes=classes)
        if small:
            _keep_resolution(model.features[0][0], model.features[2].conv[1][0])
    elif name == "shufflenet_v2":
        model = shufflenet_v2_x1_0(num_classes=classes)
        if small:
            _keep_resolution(model.conv1[0])
            model.maxpool = nn.Identity()
    else:
        model = efficientnet_b0(num_classes=classes)
        if small:
            _keep_resolution(model.features[0][0])
    return cast(nn.Module, model)


def _keep_resolution(*convolutions: nn.Conv2d) -> None:
    for convolution in convolutions:
        convolution.stride = (1, 1)
