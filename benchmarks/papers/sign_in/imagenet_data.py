"""ImageNet's folders, and random images in their place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset, TensorDataset

# ImageNet's usual channel statistics.
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

Datasets = tuple[Dataset[Any], Dataset[Any], int]


def random_images(count: int, size: int, classes: int, seed: int) -> Datasets:
    """Return random images for training, a quarter as many for testing, and the classes."""
    draw = torch.Generator().manual_seed(seed)
    sets = []
    for each in (count, max(1, count // 4)):
        images = torch.randn(each, 3, size, size, generator=draw)
        labels = torch.randint(classes, (each,), generator=draw)
        sets.append(TensorDataset(images, labels))
    return sets[0], sets[1], classes


def image_folders(root: Path, size: int) -> Datasets:
    """Return the images of the folders `train` and `val`, and the number of their classes."""
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import v2

    end = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(_MEAN, _STD)]
    crop = [v2.RandomResizedCrop(size), v2.RandomHorizontalFlip()]
    centre = [v2.Resize(round(size * 256 / 224)), v2.CenterCrop(size)]
    train_set = ImageFolder(str(root / "train"), v2.Compose([*crop, *end]))
    val_set = ImageFolder(str(root / "val"), v2.Compose([*centre, *end]))
    return train_set, val_set, len(train_set.classes)
