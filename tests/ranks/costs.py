"""What pruning costs each rank: the bytes that it exchanges, and the memory that it needs."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, distributed, nn

import polarity as pol
from benchmarks.throughput.memory import peak_bytes
from tests.ranks.sharded import divided

MILLION = 1_000_000


@contextmanager
def exchanged() -> Iterator[list[int]]:
    """Note the bytes of every tensor that a rank gives to ``all_reduce`` in the block."""
    noted: list[int] = []
    inner = distributed.all_reduce

    def counted(tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
        noted.append(tensor.numel() * tensor.element_size())
        return inner(tensor, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distributed, "all_reduce", counted)
        yield noted


def network(weights: int) -> nn.Module:
    """Return a masked and sharded network of ten layers, one group of FSDP2 but for the first."""
    layers = [nn.Linear(weights // 10_000, 1000, bias=False) for _ in range(10)]
    return divided(pol.mask_weights(nn.Sequential(*layers)), True)


def bytes_of_pruning(weights: int) -> dict[str, int]:
    """Return the calls and the bytes of one ``imp_prune`` over all weights."""
    model = network(weights)
    with exchanged() as noted:
        pol.imp_prune(model, 0.2)
    assert 0.79 < pol.density(model) < 0.81
    return {"calls": len(noted), "bytes": sum(noted)}


def memory_of_pruning(weights: int) -> float:
    """Return the peak of ``imp_prune`` over what was held, in bytes by weight of the shard."""
    model = network(weights)
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    pol.enforce_in_step(model, sgd)
    pol.imp_prune(model, 0.2, optimizer=sgd)  # what is allocated once
    peak = peak_bytes(lambda: pol.imp_prune(model, 0.2, optimizer=sgd), torch.device("cpu"))
    assert peak is not None
    return peak / (weights / distributed.get_world_size())


def one_rank(rank: int, folder: str) -> dict[str, Any]:
    return {
        "bytes": {n: bytes_of_pruning(n * MILLION) for n in (1, 10, 100)},
        # Large, so that what the allocator keeps by chance, some megabytes, hardly counts.
        "memory": memory_of_pruning(32 * MILLION),
    }
