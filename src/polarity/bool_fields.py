"""Long bool tensors: which of their entries are True, fast on a CPU and working on any device."""

import numpy as np
import torch
from torch import Tensor

__all__ = ["count_true", "part_length", "places_of"]

# On a CPU a part of a float32 tensor and its copy in float64 fit in a second-level cache; on an
# accelerator launches cost, and parts only bound the memory.
_HOST_PART = 1 << 17
_DEVICE_PART = 1 << 24


def part_length(device: torch.device) -> int:
    """Return how many entries of a tensor on ``device`` are best worked on at a time."""
    return _HOST_PART if device.type == "cpu" else _DEVICE_PART


def places_of(bools: Tensor) -> Tensor:
    """Return the indices of the True entries of a 1-D bool tensor, ascending.

    Example:
        >>> places_of(torch.tensor([True, False, True]))
        tensor([0, 2])
    """
    if bools.device.type == "cpu":  # some five times as fast as torch's
        return torch.from_numpy(np.flatnonzero(bools.numpy()))
    return bools.nonzero().squeeze(1)


def count_true(bools: Tensor) -> int | Tensor:
    """Return the number of True entries; a 0-dim tensor on an accelerator, which is not waited for.

    Example:
        >>> count_true(torch.tensor([True, False, True]))
        2
    """
    if bools.device.type == "cpu":  # some five times as fast as torch's
        return int(np.count_nonzero(bools.numpy()))
    return bools.count_nonzero()
