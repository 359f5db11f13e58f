"""Where and how the runs of a sweep take place; none of it changes what a run computes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

from .data import Dataset, load_dataset


class DataSettings(Protocol):
    """What a run's settings say of its data."""

    @property
    def dataset(self) -> str: ...
    @property
    def device(self) -> str: ...
    @property
    def train_size(self) -> int | None: ...
    @property
    def test_size(self) -> int | None: ...


@dataclass(frozen=True)
class Place:
    """Where and how a sweep runs; at most the last bits of a result depend on it.

    Attributes:
        out: folder of the result files.
        data_root: folder of the data sets.
        download: fetch data that is missing.
        jobs: processes that work at once.
        backend: who performs the runs: `loky` for processes of this machine, `dask` or `ray`.
        scheduler: address of the Dask or Ray cluster.
        threads: threads of one run; None lets the experiment choose.
        quiet: show no progress.
        compile: train through `torch.compile`; on a GPU the passes are captured as CUDA graphs.
        graphs: replay training steps as CUDA graphs, where the experiment offers it.
        channels_last: convolutions and images in NHWC memory order.
        keep_checkpoints: leave the last checkpoint of a finished run on disk.
    """

    out: Path
    data_root: Path | None = None
    download: bool = False
    jobs: int = 1
    backend: str = "loky"
    scheduler: str | None = None
    threads: int | None = None
    quiet: bool = False
    compile: bool = False
    graphs: bool = False
    channels_last: bool = False
    keep_checkpoints: bool = False

    @property
    def on_cluster(self) -> bool:
        """Whether the workers of a cluster perform the runs."""
        return self.backend != "loky"

    def dataset(self, config: DataSettings, *, holdout: float = 0) -> Dataset:
        """Return the data set of a run; the runs that this process performs share it.

        Args:
            config: settings of the run.
            holdout: training images set aside for model selection; none where nothing is selected.
        """
        return _resident(
            config.dataset,
            self.data_root,
            download=self.download,
            device=config.device,
            train_size=config.train_size,
            test_size=config.test_size,
            # An experiment without this setting uses the images as they are.
            resolution=getattr(config, "resolution", None),
            holdout=holdout,
        )


def forget_dataset() -> None:
    """Free the memory of the data set of this process."""
    _resident.cache_clear()


_resident = lru_cache(maxsize=1)(load_dataset)
