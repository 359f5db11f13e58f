"""Go through a tensor in chunks that suit its device, and gather the survivors of a mask."""

from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

__all__ = ["INTEGER_OF", "Array", "chunks_of", "count_true", "gather", "read_only", "survivors_of"]

Array: TypeAlias = Any  # of numpy on a CPU, of torch elsewhere: operators mean the same for both

# The integer dtype as wide as a floating one, to see the bits of a number through.
INTEGER_OF = {
    torch.float16: torch.int16,
    torch.bfloat16: torch.int16,
    torch.float32: torch.int32,
    torch.float64: torch.int64,
}

# On a CPU two chunks in float32 and a copy in float64 fit in a second-level cache. On an
# accelerator every launch costs, and chunks only bound the memory.
_HOST_CHUNK = 1 << 16
_DEVICE_CHUNK = 1 << 24


def chunks_of(size: int, device: torch.device) -> Iterator[slice]:
    """Yield consecutive slices of a tensor with ``size`` entries."""
    length = _HOST_CHUNK if device.type == "cpu" else _DEVICE_CHUNK
    for start in range(0, size, length):
        yield slice(start, min(start + length, size))


def read_only(tensor: Tensor) -> npt.NDArray[Any]:
    """Return a CPU tensor's memory as an array to read from.

    Unlike ``Tensor.numpy`` this leaves no mark on the tensor: a storage that numpy has seen can
    never be resized again, which FSDP and offloading do to parameters.
    """
    array: npt.NDArray[Any] = np.from_dlpack(tensor.detach())
    return array


def count_true(bools: Tensor) -> int:
    """Count the True entries of a bool tensor.

    Example:
        >>> count_true(torch.tensor([True, False, True]))
        2
    """
    if bools.is_cpu:  # numpy counts them six times as fast
        return int(np.count_nonzero(read_only(bools)))
    return int(bools.count_nonzero())


def survivors_of(mask: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Yield the chunks of a flat mask, nonzero for survivors, and their places within each.

    Example:
        >>> mask = torch.tensor([False, True, True])
        >>> [(chunk, places.tolist()) for chunk, places in survivors_of(mask)]
        [(slice(0, 3, None), [1, 2])]
    """
    for chunk in chunks_of(mask.numel(), mask.device):
        survives = mask[chunk].bool()
        if survives.is_cpu:  # numpy finds them three times as fast
            yield chunk, torch.from_numpy(np.flatnonzero(read_only(survives)))
        else:
            yield chunk, survives.nonzero().squeeze(1)


def gather(mask: Tensor, *weights: Tensor) -> list[Tensor]:
    """Return the survivors of flat tensors under a flat mask, on the mask's device.

    Example:
        >>> gather(torch.tensor([True, False, True]), torch.tensor([1, 2, 3]))
        [tensor([1, 3])]
    """
    mask = mask.bool()
    count, start = int(mask.count_nonzero()), 0
    gathered = [each.new_empty(count, device=mask.device) for each in weights]
    for chunk, places in survivors_of(mask):
        stop = start + places.numel()
        for weight, survivors in zip(weights, gathered, strict=True):
            here = weight[chunk].index_select(0, places.to(weight.device))
            survivors[start:stop] = here.to(mask.device)
        start = stop
    return gathered
