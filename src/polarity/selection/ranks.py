"""What the ranks of a group tell each other when they choose together: counts, and nothing else."""

from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import distributed

__all__ = ["Counts", "Ranks"]

Counts = npt.NDArray[np.int64]
Value = TypeVar("Value")


class Ranks:
    """The processes that hold consecutive pieces of the same tensors, in the order of their ranks.

    Args:
        group: the process group.

    Attributes:
        index: the rank of this process in the group.
        count: how many processes there are.
        group: the process group.
        device: where tensors have to be that the group exchanges.
    """

    def __init__(self, group: Any) -> None:
        self.group = group
        self.index = distributed.get_rank(group)
        self.count = distributed.get_world_size(group)
        on_gpus = distributed.get_backend(group) == "nccl"
        self.device = torch.device("cuda" if on_gpus else "cpu")

    def add(self, counts: Sequence[int] | Counts) -> Counts:
        """Return the sum over the ranks of as many integers from each."""
        told = torch.from_numpy(np.array(counts, dtype=np.int64)).to(self.device)
        distributed.all_reduce(told, group=self.group)
        added: Counts = told.cpu().numpy()
        return added

    def table(self, mine: Sequence[int] | Counts) -> Counts:
        """Return a row of as many integers from each rank, in the order of the ranks."""
        rows = np.zeros((self.count, len(mine)), dtype=np.int64)
        rows[self.index] = mine
        return self.add(rows.reshape(-1)).reshape(rows.shape)

    def gathered(self, mine: Value) -> list[Value]:
        """Return on the first rank what each of them gives, in their order; nothing on others."""
        first = distributed.get_global_rank(self.group, 0)
        found: list[Any] | None = [None] * self.count if self.index == 0 else None
        distributed.gather_object(mine, found, dst=first, group=self.group)
        return found or []

    def agree(self, checked: Callable[[], tuple[Value, object]], expected: str) -> Value:
        """Return what a function returns on this rank, if it raises on none and they agree.

        Args:
            checked: checks this rank's part, and returns it with what the ranks must share.
            expected: what that is, for an error.

        Raises:
            Exception: what ``checked`` raised, on its rank; on the others a ValueError.
        """
        value, common, error = None, 0, None
        try:
            value, shared = checked()
            common = int.from_bytes(blake2b(repr(shared).encode(), digest_size=7).digest(), "big")
        except Exception as raised:
            error = raised
        try:
            rows = self.table([error is not None, common])
        except Exception as broken:  # another rank ended, or makes another call
            if error is not None:
                raise error from broken
            raise
        if error is not None:
            raise error
        refused, digests = rows.T
        if refused.any():
            raise ValueError(
                f"rank {int(refused.argmax())} of the group refused its part of this call: see the "
                "error there"
            )
        others = np.flatnonzero(digests != digests[0])
        if others.size:
            raise ValueError(f"ranks 0 and {others[0]} of the group differ, expected {expected}")
        assert value is not None
        return value
