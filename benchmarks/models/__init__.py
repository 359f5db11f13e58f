"""The networks of the papers, built from a name, a data shape and a seeded generator."""

from __future__ import annotations

import math
from pathlib import Path
from typing import get_args

import torch
from torch import nn

from ..harness.names import Arch, Init
from .conv import conv
from .fc import fc
from .initialise import initialise
from .vgg import load_features, vgg16, weights_have_batch_norm

ARCHS: tuple[str, ...] = get_args(Arch)


def default_init(arch: str) -> Init:
    """Return the initialisation of an architecture where the user names none.

    Zhou et al. (2019), whose code the papers grew out of, draw fc and conv nets from a normalised
    (Glorot) Gaussian; a plain VGG-16 of that variance does not start to learn, Kaiming's does.
    """
    return "kaiming_normal" if arch.startswith("vgg") else "glorot_normal"


def build_model(
    arch: str,
    dataset_shape: tuple[int, int, int],
    classes: int,
    init: str | None = None,
    generator: torch.Generator | None = None,
    weights: str | Path | None = None,
    width: int | None = None,
) -> nn.Module:
    """Build a network on the CPU, all of its randomness drawn from `generator`.

    Args:
        arch: one of `ARCHS`.
        dataset_shape: channels, height and width of an image.
        classes: number of outputs.
        init: one of the names in `Init`; `default_init(arch)` by default.
        generator: a CPU generator; the one with seed 0 where it is not given.
        weights: for `vgg16_pretrained`, a state_dict file of torchvision's vgg16 or vgg16_bn.
        width: for vgg16 and vgg16_bn, channels of the first convolutions; 64 by default.

    Returns:
        The network.

    Raises:
        ValueError: unknown name, `weights` missing where needed, or `weights` or `width` given to a
            network that does not take them.
    """
    if arch not in ARCHS:
        raise ValueError(f"unknown architecture {arch!r}; known are {', '.join(ARCHS)}")
    if (arch == "vgg16_pretrained") != (weights is not None):
        raise ValueError("weights (--weights) and the architecture vgg16_pretrained go together")
    if width is not None and arch not in ("vgg16", "vgg16_bn"):
        raise ValueError(f"width (--width) belongs to vgg16 and vgg16_bn, not to {arch}")
    generator = generator if generator is not None else torch.Generator().manual_seed(0)
    # Layers draw weights as they are made, which are drawn anew below; the caller's stream of
    # random numbers must not change.
    with torch.random.fork_rng(devices=[]):
        model = _layers(arch, dataset_shape, classes, weights, width)
    initialise(model, init or default_init(arch), generator)
    if weights is not None:
        load_features(model, weights)
    return model


def _layers(
    arch: str,
    dataset_shape: tuple[int, int, int],
    classes: int,
    weights: str | Path | None,
    width: int | None,
) -> nn.Module:
    if arch == "fc":
        return fc(math.prod(dataset_shape), classes)
    if arch.startswith("conv"):
        return conv(int(arch.removeprefix("conv")), dataset_shape, classes)
    batch_norm = weights_have_batch_norm(weights) if weights else arch == "vgg16_bn"
    return vgg16(
        dataset_shape, classes, batch_norm=batch_norm, width=64 if width is None else width
    )


__all__ = ["ARCHS", "build_model", "conv", "default_init", "fc", "initialise", "vgg16"]
