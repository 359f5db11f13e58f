"""ImageNet's folders, and random images in their place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset, TensorDataset

from ...harness.image_folders import read_folder

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
    train_set = read_folder(root / "train", size, "resized")
    return train_set, read_folder(root / "val", size), len(train_set.classes)
