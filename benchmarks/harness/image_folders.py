"""Images in folders, one a class, read while a network trains: ImageNet, Tiny-ImageNet."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import torch
from torch.utils.data import DataLoader, Dataset

from .data import SPLIT_SEED, checked_size, default_root
from .names import FOLDERS
from .settings import stream_seed

# Random crops of training images: of random size and shape, or of a padded image.
Crop = Literal["resized", "padded"]
_CROPS: dict[str, Crop] = {"imagenet": "resized", "tiny_imagenet": "padded"}
# ImageNet's usual channel statistics.
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

Batch = tuple[torch.Tensor, torch.Tensor]


def read_folder(split: Path, size: int, crop: Crop | None = None) -> Any:
    """Return torchvision's `ImageFolder` of one split, with normalised float32 images.

    Args:
        split: folder with one folder of images per class.
        size: height and width that images are cut to.
        crop: cut and flip at random, for training; None takes the centre.
    """
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import v2

    end = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(_MEAN, _STD)]
    centre = [v2.Resize(round(size * 256 / 224)), v2.CenterCrop(size)]
    cuts: dict[Crop | None, list[Any]] = {
        None: centre,
        "resized": [v2.RandomResizedCrop(size), v2.RandomHorizontalFlip()],
        "padded": [
            *(v2.Resize(size), v2.CenterCrop(size)),
            *(v2.RandomCrop(size, padding=max(1, size // 16)), v2.RandomHorizontalFlip()),
        ],
    }
    return ImageFolder(str(split), v2.Compose([*cuts[crop], *end]))


@dataclass(frozen=True)
class ImageFolders:
    """A data set of image files, of which batches are read when they are asked for.

    Attributes:
        name: name of the data set.
        classes: number of classes.
        size: height and width of an image.
        augmented: training images, cut and flipped at random.
        plain: the same images without chance.
        test: test images.
        train_index: which of the training images are used.
        test_index: which of the test images are used.
        device: where batches are moved to.
        workers: processes that read images; 0 reads in this one. No result depends on it.
    """

    name: str
    classes: int
    size: int
    augmented: Dataset[Any]
    plain: Dataset[Any]
    test: Dataset[Any]
    train_index: torch.Tensor
    test_index: torch.Tensor
    device: str = "cpu"
    workers: int = 0

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        return 3, self.size, self.size

    def facts(self) -> dict[str, Any]:
        """Return the sizes that a result file states."""
        return {
            "name": self.name,
            "classes": self.classes,
            "shape": list(self.shape),
            "train": len(self.train_index),
            "held_out": 0,
            "test": len(self.test_index),
            "train_available": len(self.plain),  # type: ignore[arg-type]
            "test_available": len(self.test),  # type: ignore[arg-type]
            "pooled_from": None,
        }

    def training_batches(
        self, order: torch.Tensor, size: int, *, seed: int, augment: bool
    ) -> Iterator[Batch]:
        """Read training images and labels in batches.

        Args:
            order: places among the images that are used.
            size: images per batch; the last one may be smaller.
            seed: of the crops and flips of this pass, image by image.
            augment: cut and flip at random.
        """
        images = self.augmented if augment else self.plain
        yield from self._batches(images, self.train_index[order], size, seed)

    def test_batches(self, size: int) -> Iterator[Batch]:
        """Read the test images and labels in batches."""
        yield from self._batches(self.test, self.test_index, size, 0)

    def _batches(
        self, images: Dataset[Any], index: torch.Tensor, size: int, seed: int
    ) -> Iterator[Batch]:
        loader: DataLoader[Any] = DataLoader(
            _Seeded(images, index.tolist(), seed),
            size,
            num_workers=self.workers,
            pin_memory=torch.device(self.device).type == "cuda",
            # What seeds the workers' own streams, which nothing draws from.
            generator=torch.Generator(),
        )
        for pixels, labels in loader:
            yield pixels.to(self.device), labels.to(self.device)


class _Seeded(Dataset[Any]):
    """Some images of a data set, each with a random stream of its own."""

    def __init__(self, images: Dataset[Any], index: list[int], seed: int) -> None:
        self._images, self._index, self._seed = images, index, seed

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, place: int) -> Any:
        image = self._index[place]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(stream_seed(f"{self._seed}, image {image}"))
            return self._images[image]


@lru_cache(maxsize=1)
def load_folders(
    name: str,
    root: Path | None = None,
    *,
    size: int | None = None,
    device: str = "cpu",
    train_size: int | None = None,
    test_size: int | None = None,
    workers: int = 0,
) -> ImageFolders:
    """Find the images of a data set; none is read yet.

    Args:
        name: one of `FOLDERS`.
        root: folder that holds the data set: `NAME/train` and `NAME/val`, a folder per class in
            each; `default_root()` by default.
        size: height and width of the images; that of `FOLDERS` by default.
        device: where batches are moved to.
        train_size: number of training images in a random subset.
        test_size: number of test images in a random subset.
        workers: processes that read images.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: unknown name, the splits have other classes, or fewer images than a size.
    """
    if name not in FOLDERS:
        raise ValueError(f"unknown folder of images {name!r}; known are {', '.join(FOLDERS)}")
    folder = (root if root is not None else default_root()) / name
    missing = [part for part in ("train", "val") if not (folder / part).is_dir()]
    if missing:
        raise FileNotFoundError(
            f"{name}: looked in {folder.resolve()} for {' and '.join(missing)}, with one folder of "
            "images per class. Say where the data is with --data-root (or $POLARITY_DATA)"
        )
    size = FOLDERS[name] if size is None else size
    augmented = read_folder(folder / "train", size, _CROPS[name])
    plain, test = read_folder(folder / "train", size), read_folder(folder / "val", size)
    if plain.classes != test.classes:
        raise ValueError(
            f"{folder.resolve()}: train has {len(plain.classes)} classes and val has "
            f"{len(test.classes)}; expected the same folders in both"
        )
    draw = torch.Generator().manual_seed(SPLIT_SEED)
    train_order = torch.randperm(len(plain), generator=draw)
    test_order = torch.randperm(len(test), generator=draw)
    return ImageFolders(
        name=name,
        classes=len(plain.classes),
        size=size,
        augmented=augmented,
        plain=plain,
        test=test,
        train_index=train_order[: checked_size("train_size", train_size, len(plain))].sort()[0],
        test_index=test_order[: checked_size("test_size", test_size, len(test))].sort()[0],
        device=device,
        workers=workers,
    )
