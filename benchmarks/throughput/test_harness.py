"""An epoch of the experiment harness beside the same epoch through torchvision's data pipeline."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset, TensorDataset
from torchvision.transforms import ToTensor

import polarity as pol
from benchmarks import data
from benchmarks.throughput.forms import random_masks
from benchmarks.throughput.workloads import mlp
from benchmarks.training import make_optimizer, train_epochs

IMAGES, BATCH = 6000, 60


class Pictures(Dataset[tuple[Tensor, int]]):
    """Images as torchvision's MNIST gives them: one PIL image and one conversion per item."""

    def __init__(self, pixels: Tensor, labels: Tensor) -> None:
        self.pixels, self.labels, self.convert = pixels.numpy(), labels.tolist(), ToTensor()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.convert(Image.fromarray(self.pixels[index])), self.labels[index]


def masked_mlp() -> nn.Module:
    torch.manual_seed(0)
    model = mlp()
    return pol.load_masks(model, random_masks(model))


def through_a_loader(loader: DataLoader[Any]) -> None:
    """What a script does: loader, optimizer without fusing, a loss that is read every step."""
    model = masked_mlp()
    optimizer = torch.optim.Adam(model.parameters(), lr=1.2e-3)
    total = 0.0
    for images, labels in loader:
        optimizer.zero_grad()
        loss = cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        total += loss.item()


@pytest.mark.parametrize("loader", ["torchvision's items", "TensorDataset"])
def test_an_epoch_of_mnist_with_masks(
    beside: Any, benchmark: Any, quick: bool, loader: str
) -> None:
    benchmark.group = "one epoch, MLP with masks, batch 60"
    count = 600 if quick else IMAGES
    draw = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (count, 28, 28), dtype=torch.uint8, generator=draw)
    labels = torch.randint(10, (count,), generator=draw)
    floats = pixels[:, None].float() / 255
    resident = data.Dataset(
        name="noise", train_x=floats, train_y=labels,
        val_x=floats[:0], val_y=labels[:0], test_x=floats[:0], test_y=labels[:0],
        classes=10, train_available=count, test_available=0,
    )  # fmt: skip
    items = loader != "TensorDataset"
    theirs = Pictures(pixels, labels) if items else TensorDataset(floats, labels)

    def ours() -> None:
        model = masked_mlp()
        optimizer = make_optimizer("adam", model, 1.2e-3)
        train_epochs(model, resident, optimizer, 1, BATCH, torch.Generator().manual_seed(0))

    beside(
        ours,
        lambda: through_a_loader(DataLoader(theirs, batch_size=BATCH, shuffle=True)),
        what="the experiments' loop",
        against=f"DataLoader over {loader}",
        rounds=7,
        target=1 / 4 if items else None,
        images=count,
    )
