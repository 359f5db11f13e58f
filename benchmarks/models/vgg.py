"""VGG-16 for small images: torchvision's convolutions under one linear classifier.

The papers name `vanilla_vgg16`, `baseline_vgg16` and `vgg16_pretrained` and say no more. The three
4096-wide classifier layers of torchvision belong to 224x224 images; on 32x32 ones the features end
in 512 numbers, and one linear layer on them is what CIFAR versions of the net usually have.
"""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torchvision.models.vgg import cfgs, make_layers

# Five pools halve the image five times.
_SMALLEST_SIDE = 32
_PREFIX = "features."


def vgg16(
    dataset_shape: tuple[int, int, int],
    classes: int,
    *,
    batch_norm: bool = False,
    width: int = 64,
) -> nn.Sequential:
    """Build VGG-16 with `features` named as torchvision names them.

    Args:
        dataset_shape: channels, height and width of an image.
        classes: number of outputs.
        batch_norm: normalise after each convolution.
        width: channels of the first two convolutions; the later ones have 2, 4 and 8 times as many.
            VGG-16 has 64.
    """
    channels, *sides = dataset_shape
    if min(sides) < _SMALLEST_SIDE or channels != 3:
        raise ValueError(
            f"vgg16 takes colour images of at least {_SMALLEST_SIDE}x{_SMALLEST_SIDE} pixels, "
            f"not {dataset_shape}"
        )
    if width < 1:
        raise ValueError(f"width is at least 1, not {width}")
    plan: list[Any] = [each if isinstance(each, str) else each * width // 64 for each in cfgs["D"]]
    return with_classifier(make_layers(plan, batch_norm=batch_norm), 8 * width, classes)


def with_classifier(features: nn.Module, channels: int, classes: int) -> nn.Sequential:
    """Put one linear layer behind convolutions, under the module names of torchvision."""
    parts: OrderedDict[str, nn.Module] = OrderedDict(
        features=features,
        # Leaves a 32x32 image's 1x1 features as they are and makes larger images fit.
        pool=nn.AdaptiveAvgPool2d(1),
        flatten=nn.Flatten(),
        classifier=nn.Linear(channels, classes),
    )
    return nn.Sequential(parts)


def weights_have_batch_norm(path: str | Path) -> bool:
    """Return whether a torchvision VGG file holds the batch-normalised variant."""
    return any(name.endswith("running_mean") for name in _features(path))


def load_features(model: nn.Module, path: str | Path) -> None:
    """Copy `features.*` of a torchvision state_dict file into a VGG; the classifier stays.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file's features are not those of this network.
    """
    features = model.get_submodule("features")
    stored, own = _features(path), features.state_dict()
    problems = [f"{name} is missing" for name in own if name not in stored]
    problems += [f"{name} is not part of the network" for name in stored if name not in own]
    problems += [
        f"{name} is {tuple(stored[name].shape)} instead of {tuple(own[name].shape)}"
        for name in own
        if name in stored and stored[name].shape != own[name].shape
    ]
    if problems:
        shown = "; ".join(problems[:5]) + ("; …" if len(problems) > 5 else "")
        raise ValueError(f"{path} does not fit this VGG-16: {shown}")
    features.load_state_dict(stored)


def _features(path: str | Path) -> dict[str, torch.Tensor]:
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"no weights at {file.resolve()} (--weights)")
    loaded: Any = torch.load(file, map_location="cpu", weights_only=True)
    if not isinstance(loaded, dict):
        raise ValueError(f"{file} holds a {type(loaded).__name__}, not a state_dict")
    found = {
        name.removeprefix(_PREFIX): tensor
        for name, tensor in loaded.items()
        if isinstance(name, str) and name.startswith(_PREFIX)
    }
    if not found:
        raise ValueError(f"{file} has no entry that starts with {_PREFIX!r}")
    return found
