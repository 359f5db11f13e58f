"""Tensors of which each rank holds some rows (FSDP2): the piece here, and where it lies."""

from typing import Any

import torch
from torch import Tensor

__all__ = ["is_sharded", "piece_of", "rows_of", "shard_like", "start_of", "why_unknown"]


def is_sharded(tensor: Tensor) -> bool:
    """Return whether a tensor is a DTensor, of which this process may hold a piece only."""
    # Importing DTensor takes time that only those who shard should spend.
    return hasattr(tensor, "placements")


def piece_of(tensor: Tensor) -> Tensor:
    """Return the piece of a tensor that is here, detached and in its memory; itself if whole."""
    if not is_sharded(tensor):
        return tensor
    with torch.no_grad():
        piece: Tensor = _dtensor(tensor).to_local()
    return piece


def rows_of(sharded: Tensor) -> slice:
    """Return which rows of a sharded tensor are here, as ``torch.chunk`` divides them."""
    mesh, rows = _dtensor(sharded).device_mesh, sharded.shape[0]
    each = -(-rows // mesh.size())
    start = min(each * mesh.get_local_rank(), rows)
    return slice(start, min(start + each, rows))


def start_of(sharded: Tensor) -> int:
    """Return how many entries of a sharded tensor come before the piece that is here."""
    start: int = rows_of(sharded).start
    return start * sharded.shape[1:].numel()


def shard_like(piece: Tensor, sharded: Tensor) -> Tensor:
    """Return a tensor that is divided as another one is, of its shape, from the piece here."""
    from torch.distributed.tensor import DTensor

    like = _dtensor(sharded)
    return DTensor.from_local(
        piece.contiguous(),
        like.device_mesh,
        like.placements,
        run_check=False,
        shape=sharded.shape,
        stride=sharded.stride(),
    )


def why_unknown(sharded: Tensor) -> str | None:
    """Say how a tensor is divided where that is not by rows among the ranks of one dimension."""
    placements = tuple(_dtensor(sharded).placements)
    by_rows = len(placements) == 1 and type(placements[0]).__name__ == "Shard"
    if by_rows and placements[0].dim == 0:
        return None
    return f"placements {placements}"


def _dtensor(tensor: Tensor) -> Any:
    return tensor
