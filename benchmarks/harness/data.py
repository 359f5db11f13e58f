"""Image data sets as resident tensors from local files, split the same way for all runs."""

from __future__ import annotations

import gzip
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn.functional import avg_pool2d

from .names import DatasetName

DATASETS: tuple[str, ...] = get_args(DatasetName)

# The split must not depend on the seed of a run, or seeds would be compared on different data.
SPLIT_SEED = 20240917
DIGITS_TEST_FRACTION = 0.2
_IDX_FOLDERS = {"mnist": "MNIST/raw", "fashion_mnist": "FashionMNIST/raw"}
_TORCHVISION = {
    "mnist": "MNIST",
    "fashion_mnist": "FashionMNIST",
    "cifar10": "CIFAR10",
    "cifar100": "CIFAR100",
}

_Images = NDArray[np.uint8]
_Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Dataset:
    """One data set on one device: float32 NCHW images, int64 labels.

    Attributes:
        name: name of the data set.
        classes: number of classes.
        train_x: images that are trained on; `train_y` holds their labels.
        val_x: training images set aside for model selection, possibly none.
        test_x: test images.
        train_available: training images the data set has, before any subset or hold-out.
        test_available: test images the data set has.
        pooled_from: height of the images before average pooling; None where nothing was pooled.
    """

    name: str
    classes: int
    train_x: torch.Tensor
    train_y: torch.Tensor
    val_x: torch.Tensor
    val_y: torch.Tensor
    test_x: torch.Tensor
    test_y: torch.Tensor
    train_available: int
    test_available: int
    pooled_from: int | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        channels, height, width = self.train_x.shape[1:]
        return channels, height, width

    def facts(self) -> dict[str, Any]:
        """Return the sizes that a result file states."""
        return {
            "name": self.name,
            "classes": self.classes,
            "shape": list(self.shape),
            "train": len(self.train_y),
            "held_out": len(self.val_y),
            "test": len(self.test_y),
            "train_available": self.train_available,
            "test_available": self.test_available,
            "pooled_from": self.pooled_from,
        }


def default_root() -> Path:
    """Return `$POLARITY_DATA` where it is set, else `./data`."""
    return Path(os.environ.get("POLARITY_DATA", "data"))


def load_dataset(
    name: str,
    root: str | Path | None = None,
    *,
    download: bool = False,
    device: str | torch.device = "cpu",
    train_size: int | None = None,
    test_size: int | None = None,
    resolution: int | None = None,
    holdout: float = 0.1,
) -> Dataset:
    """Read a data set and move all of it to the device.

    Args:
        name: one of `DATASETS`.
        root: folder that holds the data sets; `default_root()` by default.
        download: let torchvision fetch what is missing.
        device: where the tensors are kept.
        train_size: number of training images in a random subset, the held-out ones included.
        test_size: number of test images in a random subset.
        resolution: height and width of the images after average pooling over squares of pixels;
            their own by default.
        holdout: training images set aside for model selection: a fraction below 1, a number from 1.

    Returns:
        The data set, normalised per channel with the statistics of the images trained on.

    Raises:
        FileNotFoundError: the files are not under `root`.
        ValueError: the name is unknown, the data set is smaller than a size, or the images cannot
            be divided into squares.
    """
    if name not in DATASETS:
        raise ValueError(f"unknown data set {name!r}; known are {', '.join(DATASETS)}")
    images, labels, test_images, test_labels = _read(
        name, Path(root) if root is not None else default_root(), download
    )
    generator = torch.Generator().manual_seed(SPLIT_SEED)
    order = torch.randperm(len(labels), generator=generator).numpy()
    test_order = torch.randperm(len(test_labels), generator=generator).numpy()
    train_available, test_available = len(labels), len(test_labels)
    order = order[: checked_size("train_size", train_size, train_available)]
    test_index = np.sort(test_order[: checked_size("test_size", test_size, test_available)])
    held = _held_out(holdout, len(order))
    # Sorted, so that a run over everything reads the images in their published order.
    val_index, train_index = np.sort(order[:held]), np.sort(order[held:])

    pooled = _squares(images.shape[1:3], resolution)
    train = _as_float(images[train_index], pooled)
    mean = train.mean(dim=(0, 2, 3), keepdim=True)
    # A constant channel is not scaled.
    std = train.std(dim=(0, 2, 3), keepdim=True).clamp_min(1e-6)

    def ready(pixels: torch.Tensor) -> torch.Tensor:
        return pixels.sub_(mean).div_(std).to(device)

    def ready_labels(values: _Labels) -> torch.Tensor:
        return torch.from_numpy(values).to(device)

    return Dataset(
        name=name,
        classes=int(labels.max()) + 1,
        train_x=ready(train),
        train_y=ready_labels(labels[train_index]),
        val_x=ready(_as_float(images[val_index], pooled)),
        val_y=ready_labels(labels[val_index]),
        test_x=ready(_as_float(test_images[test_index], pooled)),
        test_y=ready_labels(test_labels[test_index]),
        train_available=train_available,
        test_available=test_available,
        pooled_from=None if pooled == 1 else images.shape[1],
    )


def read_idx(path: Path) -> _Images:
    """Read one idx file of unsigned bytes, gzipped or not."""
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    if raw[:3] != b"\x00\x00\x08":
        raise ValueError(f"{path} is not an idx file of unsigned bytes")
    dimensions = raw[3]
    shape = np.frombuffer(raw, dtype=">u4", count=dimensions, offset=4).astype(int)
    return np.frombuffer(raw, dtype=np.uint8, offset=4 + 4 * dimensions).reshape(tuple(shape))


def read_mosaics(folder: Path, split: str, size: int = 32) -> tuple[_Images, _Labels]:
    """Read the images of one split from a folder of square-tiled WebP mosaics.

    Args:
        folder: folder with `labels.npz` and `<split>-NNN.webp`.
        split: `train` or `test`.
        size: height and width of one image.

    Returns:
        Images (N, size, size, 3) in row-major order of the tiles, and their labels.
    """
    with np.load(folder / "labels.npz") as stored:
        labels = stored[split].astype(np.int64)
    images = np.empty((len(labels), size, size, 3), dtype=np.uint8)
    filled = 0
    for path in sorted(folder.glob(f"{split}-*.webp")):
        with Image.open(path) as opened:
            mosaic = np.asarray(opened.convert("RGB"))
        across = mosaic.shape[1] // size
        for row in range(mosaic.shape[0] // size):
            band = mosaic[row * size : (row + 1) * size]
            # The last mosaic may end in empty tiles; they carry no label.
            tiles = min(across, len(labels) - filled)
            band = band[:, : tiles * size].reshape(size, tiles, size, 3)
            images[filled : filled + tiles] = band.swapaxes(0, 1)
            filled += tiles
    if filled != len(labels):
        raise ValueError(f"{folder}: {split} has {len(labels)} labels but only {filled} images")
    return images, labels


def _read(name: str, root: Path, download: bool) -> tuple[_Images, _Labels, _Images, _Labels]:
    if name == "digits":
        return _read_digits()
    if name in _IDX_FOLDERS:
        return _read_idx_folder(name, root, download)
    if (root / name / "labels.npz").is_file():
        return (*read_mosaics(root / name, "train"), *read_mosaics(root / name, "test"))
    return _read_torchvision(name, root, download)


def _read_digits() -> tuple[_Images, _Labels, _Images, _Labels]:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    pixels, labels = load_digits(return_X_y=True)
    # Sixteen grey levels, spread over the byte range that the other data sets use.
    images = (pixels * (255 / 16)).round().astype(np.uint8).reshape(-1, 8, 8)
    train, test = train_test_split(
        np.arange(len(labels)),
        test_size=DIGITS_TEST_FRACTION,
        stratify=labels,
        random_state=0,
    )
    labels = labels.astype(np.int64)
    return images[train], labels[train], images[test], labels[test]


def _read_idx_folder(
    name: str, root: Path, download: bool
) -> tuple[_Images, _Labels, _Images, _Labels]:
    folder = root / _IDX_FOLDERS[name]
    stems = (
        "train-images-idx3-ubyte",
        "train-labels-idx1-ubyte",
        "t10k-images-idx3-ubyte",
        "t10k-labels-idx1-ubyte",
    )
    if download and not all(_idx_path(folder, stem) for stem in stems):
        _torchvision(name, root, train=True, download=True)
    paths = [_idx_path(folder, stem) for stem in stems]
    if not all(paths):
        missing = ", ".join(stem for stem, path in zip(stems, paths, strict=True) if path is None)
        raise _not_found(name, folder, f"{missing} (.gz or unpacked)")
    train_x, train_y, test_x, test_y = (read_idx(path) for path in paths if path is not None)
    return train_x, train_y.astype(np.int64), test_x, test_y.astype(np.int64)


def _idx_path(folder: Path, stem: str) -> Path | None:
    # torchvision's old files are called "train-images.idx3-ubyte" on some mirrors.
    candidates = (stem, f"{stem}.gz", stem.replace("-idx", ".idx"))
    return next((folder / c for c in candidates if (folder / c).is_file()), None)


def _read_torchvision(
    name: str, root: Path, download: bool
) -> tuple[_Images, _Labels, _Images, _Labels]:
    parts: list[Any] = []
    for train in (True, False):
        split = _torchvision(name, root, train=train, download=download)
        parts += [np.asarray(split.data), np.asarray(split.targets, dtype=np.int64)]
    return parts[0], parts[1], parts[2], parts[3]


def _torchvision(name: str, root: Path, *, train: bool, download: bool) -> Any:
    import torchvision.datasets

    kind = getattr(torchvision.datasets, _TORCHVISION[name])
    try:
        return kind(str(root), train=train, download=download)
    except RuntimeError as error:
        if download:
            raise
        wanted = f"labels.npz with WebP mosaics in {name}/, or torchvision's {kind.__name__} files"
        raise _not_found(name, root, wanted) from error


def _not_found(name: str, folder: Path, wanted: str) -> FileNotFoundError:
    return FileNotFoundError(
        f"{name}: looked in {folder.resolve()} for {wanted}. "
        "Say where the data is with --data-root (or $POLARITY_DATA), or fetch it with --download."
    )


def _squares(size: tuple[int, ...], resolution: int | None) -> int:
    """Return the side of the squares of pixels that are averaged to reach a resolution."""
    height, width = size
    if resolution is None:
        return 1
    if height != width or resolution < 1 or height % resolution:
        raise ValueError(
            f"resolution={resolution}, but the images are {height}x{width}: a divisor of a common "
            "height and width is needed"
        )
    return height // resolution


def _as_float(images: _Images, pooled: int = 1) -> torch.Tensor:
    """Convert bytes NHW or NHWC to a float32 NCHW tensor in [0, 1], averaged over squares."""
    if images.ndim == 3:
        images = images[..., None]
    nchw = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    pixels = torch.from_numpy(nchw).to(torch.float32).div_(255)
    return pixels if pooled == 1 else avg_pool2d(pixels, pooled)


def checked_size(what: str, size: int | None, available: int) -> int:
    """Return the size of a subset; all that is available where none is asked for."""
    if size is None:
        return available
    if not 0 < size <= available:
        raise ValueError(f"{what}={size}, but there are {available} images")
    return size


def _held_out(holdout: float, available: int) -> int:
    held = round(holdout * available) if holdout < 1 else int(holdout)
    if holdout < 0 or held >= available:
        raise ValueError(f"holdout={holdout} leaves none of {available} images to train on")
    return held
