"""The fully connected net of LeCun et al. (1998), 784-300-100-10 on MNIST."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import nn


def fc(in_features: int, classes: int, hidden: Sequence[int] = (300, 100)) -> nn.Sequential:
    """Build a ReLU network of linear layers that takes images and flattens them itself."""
    widths = (in_features, *hidden, classes)
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    # The last layer gives logits.
    return nn.Sequential(*layers[:-1])
