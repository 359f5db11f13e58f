"""Bools at eight to a byte, on any device."""

import torch
from torch import Tensor

__all__ = ["pack_bits", "unpack_bits"]


def pack_bits(bools: Tensor) -> Tensor:
    """Return a 1-D bool tensor as uint8, entry ``i`` in bit ``i % 8`` of byte ``i // 8``.

    Bit 0 is the least significant. What is left of the last byte is 0.

    Example:
        >>> import torch
        >>> pack_bits(torch.tensor([True, False, True]))
        tensor([5], dtype=torch.uint8)
    """
    padded = torch.nn.functional.pad(bools.view(torch.uint8), (0, -bools.numel() % 8))
    shifts = torch.arange(8, dtype=torch.uint8, device=bools.device)
    return (padded.view(-1, 8) << shifts).sum(1, dtype=torch.uint8)


def unpack_bits(packed: Tensor, size: int) -> Tensor:
    """Undo :func:`pack_bits` for a tensor of ``size`` entries.

    Example:
        >>> import torch
        >>> unpack_bits(torch.tensor([5], dtype=torch.uint8), 3)
        tensor([ True, False,  True])
    """
    shifts = torch.arange(8, dtype=torch.uint8, device=packed.device)
    return ((packed.unsqueeze(1) >> shifts) & 1).flatten()[:size].bool()
