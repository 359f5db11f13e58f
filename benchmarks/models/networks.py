"""The recipes' networks by name."""

from __future__ import annotations

from typing import get_args

import torch
from torch import nn

from ..harness.names import NetworkName
from .deit import deit_small
from .resnet import cifar_resnet, resnet18, resnet50

NETWORKS: tuple[str, ...] = get_args(NetworkName)
# Those whose width and stem can be chosen.
SMALL = ("resnet8", "resnet14", "resnet20", "resnet32")


def build_network(
    name: str,
    dataset_shape: tuple[int, int, int],
    classes: int,
    *,
    width: int | None = None,
    stem_stride: int | None = None,
    generator: torch.Generator | None = None,
) -> nn.Module:
    """Build a network on the CPU, all of its randomness drawn from `generator`.

    Args:
        name: one of `NETWORKS`.
        dataset_shape: channels, height and width of an image.
        classes: number of outputs.
        width: channels of the first stage of one of `SMALL`; 16 where it is not given.
        stem_stride: stride of its first convolution; 1 where it is not given.
        generator: a CPU generator; the one with seed 0 where it is not given.

    Raises:
        ValueError: unknown name, or a width, stem or image that the network does not have.
    """
    channels, height, _ = dataset_shape
    if name in SMALL:
        return cifar_resnet(
            int(name.removeprefix("resnet")),
            classes,
            width=16 if width is None else width,
            channels=channels,
            stem_stride=1 if stem_stride is None else stem_stride,
            generator=generator,
        )
    if name not in NETWORKS:
        raise ValueError(f"unknown network {name!r}; known are {', '.join(NETWORKS)}")
    if width is not None or stem_stride is not None:
        raise ValueError(f"{name} has one width and one stem; those of {', '.join(SMALL)} vary")
    if name == "resnet18":
        return resnet18(classes, channels=channels, generator=generator)
    if channels != 3:
        raise ValueError(f"{name} takes colour images, not {dataset_shape}")
    if name == "resnet50":
        return resnet50(classes, generator=generator)
    return deit_small(classes, image_size=height, generator=generator)
