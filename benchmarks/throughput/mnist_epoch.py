"""One epoch of MNIST with a masked MLP: the experiments' loop, and the usual loops."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset, TensorDataset
from torchvision.transforms import Compose, Normalize, ToTensor

import polarity as pol

from ..harness import data
from ..harness.training import make_optimizer, train_epochs
from .forms import random_masks
from .workloads import mlp

# What every tutorial normalises MNIST with.
MEAN, STD = 0.1307, 0.3081
LR = 1.2e-3


class Pictures(Dataset[tuple[Tensor, int]]):
    """MNIST as torchvision gives it: a PIL image, made and converted item by item.

    Args:
        pixels: (N, 28, 28), bytes.
        labels: (N,), integers.
    """

    def __init__(self, pixels: Tensor, labels: Tensor) -> None:
        self.pixels, self.labels = pixels, labels
        self.transform = Compose([ToTensor(), Normalize((MEAN,), (STD,))])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image, label = self.pixels[index], int(self.labels[index])
        return self.transform(Image.fromarray(image.numpy())), label


@lru_cache(maxsize=1)
def pixels(count: int | None) -> tuple[Tensor, Tensor]:
    """Bytes and labels of the first training images, or of noise where there is no MNIST.

    It is looked for in `$POLARITY_DATA`, else in `data`; what an image shows costs no time.

    Args:
        count: How many images; None for all 60,000.
    """
    folder = Path(os.environ.get("POLARITY_DATA", "data")) / "MNIST" / "raw"
    stems = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")
    files = [next(iter(sorted(folder.glob(f"{stem}*"))), None) for stem in stems]
    if all(files):
        images, labels = (torch.from_numpy(data.read_idx(file).copy()) for file in files if file)
        return images[:count], labels[:count].long()
    draw = torch.Generator().manual_seed(0)
    size = 60_000 if count is None else count
    noise = torch.randint(256, (size, 28, 28), dtype=torch.uint8, generator=draw)
    return noise, torch.randint(10, (size,), generator=draw)


@lru_cache(maxsize=1)
def resident(count: int | None) -> data.Dataset:
    """The images as the experiments hold them; no test images."""
    images, labels = pixels(count)
    x = (images[:, None].float() / 255 - MEAN) / STD
    return data.Dataset(
        name="mnist", classes=10, train_x=x, train_y=labels,
        val_x=x[:0], val_y=labels[:0], test_x=x[:0], test_y=labels[:0],
        train_available=len(labels), test_available=0,
    )  # fmt: skip


def loader(kind: str, count: int | None, batch_size: int) -> DataLoader[Any]:
    """A DataLoader in this process, over torchvision's items or over finished tensors.

    Args:
        kind: `torchvision's items` or `TensorDataset`.
        count: How many images; None for all 60,000.
        batch_size: Images per step.
    """
    items: Dataset[Any] = Pictures(*pixels(count))
    if kind == "TensorDataset":
        items = TensorDataset(resident(count).train_x, resident(count).train_y)
    return DataLoader(items, batch_size=batch_size, shuffle=True)


def resident_on(count: int | None, device: torch.device) -> data.Dataset:
    """The images as the experiments hold them on a device."""
    images = resident(count)
    on_device = {
        name: value.to(device) for name, value in vars(images).items() if isinstance(value, Tensor)
    }
    return replace(images, **on_device)


def masked_mlp() -> nn.Module:
    torch.manual_seed(0)
    model = mlp()
    return pol.load_masks(model, random_masks(model))


def epoch_of_ours(count: int | None, batch_size: int) -> float:
    """The experiments' loop; gives the mean loss."""
    images, model = resident(count), masked_mlp()
    optimizer = make_optimizer("adam", model, LR)
    draw = torch.Generator().manual_seed(0)
    return train_epochs(model, images, optimizer, 1, batch_size, draw)


def epoch_through(batches: DataLoader[Any]) -> float:
    """What a script does: an optimizer as it comes, and a loss that is read at every step."""
    model = masked_mlp()
    optimizer = torch.optim.Adam(model.parameters(), lr=LR)
    total = 0.0
    for images, labels in batches:
        optimizer.zero_grad()
        loss = cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        total += loss.item()
    return total / len(batches)
