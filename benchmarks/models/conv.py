"""Conv-2, Conv-4 and Conv-6: VGG cut down to two, four or six convolutions (Frankle & Carbin)."""

from __future__ import annotations

from torch import nn

_WIDTHS = (64, 128, 256)


def conv(depth: int, dataset_shape: tuple[int, int, int], classes: int) -> nn.Sequential:
    """Build pairs of 3x3 convolutions, each pair followed by a pool, then linear 256-256-classes.

    Args:
        depth: number of convolutions: 2, 4 or 6.
        dataset_shape: channels, height and width of an image.
        classes: number of outputs.

    Returns:
        The network; its first linear layer fits the size of the image.
    """
    if depth not in (2, 4, 6):
        raise ValueError(f"conv nets have 2, 4 or 6 convolutions, not {depth}")
    channels, height, width = dataset_shape
    layers: list[nn.Module] = []
    for out in _WIDTHS[: depth // 2]:
        layers += [
            nn.Conv2d(channels, out, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(out, out, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
        ]
        channels, height, width = out, height // 2, width // 2
    if not height * width:
        raise ValueError(f"conv{depth} pools images of {dataset_shape[1:]} away")
    layers += [
        nn.Flatten(),
        nn.Linear(channels * height * width, 256),
        nn.ReLU(),
        nn.Linear(256, 256),
        nn.ReLU(),
        nn.Linear(256, classes),
    ]
    return nn.Sequential(*layers)
