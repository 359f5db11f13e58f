"""What DDP sends in every forward: all buffers by default, masks included, and none if told so."""

import inspect
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

import polarity as pol
from tests.helpers import train_step
from tests.models import seeded

INPUTS = (torch.randn(5, 2, 4, 4, generator=torch.Generator().manual_seed(0)),)
WEIGHTS = 4 * (4 * 2 * 9 + 16 * 3)  # bytes of float32
STATISTICS = 2 * 4 * 4 + 8
NEWER = "forward_sync_buffers" in inspect.signature(DistributedDataParallel).parameters


@pytest.fixture(autouse=True)
def alone(tmp_path: Path) -> Iterator[None]:
    if not distributed.is_available():
        pytest.skip("this PyTorch has no torch.distributed")
    store = distributed.FileStore(str(tmp_path / "store"), 1)
    distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def net() -> nn.Module:
    layers = (nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3))
    return seeded(nn.Sequential(*layers)).train()


def sent(model: nn.Module, prune: bool = False, **options: Any) -> list[int]:
    """Return how many bytes DDP sends from rank 0 in each forward of three training steps."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of the older name of the option
        parallel = DistributedDataParallel(model, **options)
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    told: list[int] = []

    def counted(group: Any, tensors: list[Tensor], *rest: Any) -> None:
        told[-1] += sum(each.numel() * each.element_size() for each in tensors)

    with mock.patch.object(distributed, "_broadcast_coalesced", counted):
        for step in range(3):
            told.append(0)
            train_step(parallel, sgd, INPUTS)
            if step == 1 and prune:
                pol.imp_prune(parallel, 0.5, optimizer=sgd)
    return told


def test_by_default_masks_as_large_as_the_weights_are_sent_in_every_forward() -> None:
    assert sent(pol.mask_weights(net())) == [STATISTICS + WEIGHTS] * 3
    assert sent(net()) == [STATISTICS] * 3


@pytest.mark.parametrize(
    "option", ["broadcast_buffers", *(["forward_sync_buffers"] if NEWER else [])]
)
def test_without_buffers_nothing_is_sent_in_a_forward_also_after_pruning(option: str) -> None:
    assert sent(pol.mask_weights(net()), prune=True, **{option: False}) == [0, 0, 0]


def test_a_product_and_interpolated_norms_send_no_masks_either() -> None:
    model = pol.interpolate_norms(pol.sign_in(pol.mask_weights(net())))
    assert sent(model, broadcast_buffers=False) == [0, 0, 0]
