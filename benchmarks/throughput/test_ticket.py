"""A ResNet-50's ticket in a file, compared with its dense checkpoint by `torch.save`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision

import polarity as pol

pytestmark = pytest.mark.large


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    net = torchvision.models.resnet50()
    draw = torch.Generator().manual_seed(0)
    pol.prune(net, pol.scores.random, density=0.09, generator=draw)
    return net


def test_saving(in_turns: Any, benchmark: Any, model: torch.nn.Module, tmp_path: Path) -> None:
    benchmark.group = "a ResNet-50's ticket at density 0.09"
    ticket, dense = pol.signed_mask(model), pol.dense_state_dict(model)
    files = tmp_path / "ticket.safetensors", tmp_path / "dense.pt"
    in_turns(
        lambda: ticket.save(files[0]),
        lambda: torch.save(dense, files[1]),
        what="SignedMask.save",
        against="torch.save of the dense checkpoint",
        rounds=7,
    )
    sizes = [file.stat().st_size for file in files]
    benchmark.extra_info.update(
        file_ratio=f"1/{sizes[1] / sizes[0]:.3g}",
        bits_per_weight=8 * sizes[0] / sum(mask.numel() for mask in ticket.masks.values()),
    )


def test_loading(in_turns: Any, benchmark: Any, model: torch.nn.Module, tmp_path: Path) -> None:
    benchmark.group = "a ResNet-50's ticket at density 0.09"
    files = tmp_path / "ticket.safetensors", tmp_path / "dense.pt"
    pol.signed_mask(model).save(files[0])
    torch.save(pol.dense_state_dict(model), files[1])
    in_turns(
        lambda: pol.SignedMask.load(files[0]),
        lambda: torch.load(files[1], weights_only=True),
        what="SignedMask.load",
        against="torch.load of the dense checkpoint",
        rounds=7,
    )
