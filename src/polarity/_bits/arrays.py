"""A few operations on numpy arrays and tensors alike: arrays in main memory, tensors elsewhere.

On cache-sized parts numpy is two to five times as fast as torch on a CPU. Operators and indexing
mean the same for both, so the code around these functions exists once.
"""

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

__all__ = [
    "Array",
    "array_of",
    "bytes_of",
    "count_true",
    "parts_of",
    "places_of",
    "read_only",
    "wide_parts",
]

Array: TypeAlias = Any

# On a CPU two parts in float32 and a copy in float64 fit in a second-level cache. On an accelerator
# every launch costs, and parts only bound the memory. Multiples of 64, see `Bits`.
_HOST_PART = 1 << 16
_DEVICE_PART = 1 << 24


def parts_of(size: int, device: torch.device) -> Iterator[slice]:
    """Yield the slices of a tensor of ``size`` entries that are best worked on at a time."""
    length = _HOST_PART if device.type == "cpu" else _DEVICE_PART
    for start in range(0, size, length):
        yield slice(start, min(start + length, size))


def array_of(tensor: Tensor) -> Array:
    """Return a tensor's memory as an array, or the tensor itself if it is on an accelerator."""
    return tensor.numpy() if tensor.device.type == "cpu" else tensor


def read_only(tensor: Tensor) -> npt.NDArray[Any]:
    """Return a CPU tensor's memory as an array to read from.

    Unlike ``Tensor.numpy`` this leaves no mark on the tensor: a storage that numpy has seen can
    never be resized again, which FSDP and offloading do to parameters.
    """
    array: npt.NDArray[Any] = np.from_dlpack(tensor.detach())
    return array


def wide_parts(tensor: Tensor) -> Callable[[slice], Array]:
    """Return what gives slices of a floating tensor, in a dtype that numpy has and is fast with.

    A slice of an array costs a tenth of a tensor's, and so does most of what is done with it.
    """
    if tensor.dtype not in (torch.float32, torch.float64):
        return lambda part: array_of(tensor[part].float())
    array = array_of(tensor)
    return lambda part: array[part]


def bytes_of(bools: Array) -> Array:
    """Return bools as zeros and ones in the same memory."""
    return bools.view(np.uint8 if isinstance(bools, np.ndarray) else torch.uint8)


def places_of(bools: Array) -> Array:
    """Return the indices of what is True in one dimension, ascending.

    Example:
        >>> places_of(np.array([True, False, True])).tolist()
        [0, 2]
    """
    if isinstance(bools, np.ndarray):
        return np.flatnonzero(bools)
    return bools.nonzero().squeeze(1)


def count_true(values: Array) -> Any:
    """Return the number of non-zero entries; from an accelerator as a tensor, not waited for.

    Example:
        >>> int(count_true(torch.tensor([True, False, True])))
        2
    """
    if isinstance(values, np.ndarray):
        return int(np.count_nonzero(values))
    return values.count_nonzero()
