"""What a run trains and tests on: tensors in memory, or folders of images."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ...harness import folder_training, recipe_training
from ...harness.data import Dataset
from ...harness.image_folders import ImageFolders, load_folders
from ...harness.names import FOLDERS
from ...harness.place import Place
from ...harness.recipes import Recipe
from ...harness.training import evaluate as evaluate_tensors
from .config import AwsConfig

Images = Dataset | ImageFolders
# Images per batch where batch-norm statistics are computed at a point of a barrier.
_RECALIBRATION_BATCH = 250


def load(config: AwsConfig, place: Place, workers: int = 0) -> Images:
    """Return the images of a run; nothing is selected, so nothing is held out.

    Raises:
        ValueError: the data set is smaller than a size.
        FileNotFoundError: it is not there.
    """
    if config.dataset not in FOLDERS:
        return place.dataset(config)
    return load_folders(
        config.dataset,
        place.data_root,
        size=config.image_size,
        device=config.device,
        train_size=config.train_size,
        test_size=config.test_size,
        workers=workers,
    )


def train(
    model: nn.Module, images: Images, recipe: Recipe, *, graphs: bool = False, **how: Any
) -> list[recipe_training.Record]:
    """Train a model in place; it is tested after the last epoch alone.

    Args:
        model: as for `recipe_training.train`.
        images: what it is trained and tested on.
        recipe: how to train.
        graphs: as for `recipe_training.train`; not offered for folders.
        how: what else both ways of training take.
    """
    if not isinstance(images, ImageFolders):
        return recipe_training.train(model, images, recipe, test_every=0, graphs=graphs, **how)
    if graphs:
        raise ValueError(f"graphs replay steps on images in memory, and {images.name} is in files")
    return folder_training.train(model, images, recipe, **how)


def evaluate(model: nn.Module, images: Images) -> tuple[float, float]:
    """Return mean loss and accuracy in percent on the test images."""
    if isinstance(images, ImageFolders):
        return folder_training.evaluate(model, images)
    return evaluate_tensors(model, images.test_x, images.test_y)


def calibration(images: Images, count: int, generator: torch.Generator) -> list[torch.Tensor]:
    """Return training images without augmentation, `count` of them drawn at random, in batches."""
    if isinstance(images, ImageFolders):
        order = torch.randperm(len(images.train_index), generator=generator)[:count]
        batches = images.training_batches(order, _RECALIBRATION_BATCH, seed=0, augment=False)
        return [pixels for pixels, _ in batches]
    chosen = torch.randperm(len(images.train_y), generator=generator)[:count]
    pixels = images.train_x[chosen.to(images.train_x.device)]
    return list(torch.split(pixels, _RECALIBRATION_BATCH))
