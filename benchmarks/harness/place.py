"""Where and how the runs of a sweep take place; none of it changes what a run computes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from benchmarks.harness.data import Dataset, load_dataset


@dataclass(frozen=True)
class Place:
    """Where and how a sweep runs; at most the last bits of a result depend on it.

    Attributes:
        out: Folder of the result files.
        data_root: Folder of the data sets.
        download: Fetch data that is missing.
        keep_checkpoints: Leave the last checkpoint of a finished run on disk.
        threads: Threads of one run; None takes one for networks whose layers are too small to
            share, and an equal share of the cores for the others.
        compile: Train through `torch.compile`; on a GPU the passes are captured as CUDA graphs.
        channels_last: Convolutions and images in NHWC memory order.
    """

    out: Path
    data_root: Path | None = None
    download: bool = False
    keep_checkpoints: bool = False
    threads: int | None = None
    compile: bool = False
    channels_last: bool = False

    def dataset(
        self,
        name: str,
        device: str,
        *,
        train_size: int | None,
        test_size: int | None,
        holdout: float,
    ) -> Dataset:
        """The data set of this process; the runs of a sweep share it."""
        sizes = (train_size, test_size)
        return _resident(name, self.data_root, self.download, device, *sizes, holdout)


def forget_dataset() -> None:
    """Frees the memory of the data set of this process."""
    _resident.cache_clear()


@lru_cache(maxsize=1)
def _resident(
    name: str,
    root: Path | None,
    download: bool,
    device: str,
    train_size: int | None,
    test_size: int | None,
    holdout: float,
) -> Dataset:
    return load_dataset(
        name,
        root,
        download=download,
        device=device,
        train_size=train_size,
        test_size=test_size,
        holdout=holdout,
    )
