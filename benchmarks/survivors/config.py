"""The settings of one run: what decides its outcome, the run's name, and its random streams.

Nothing here needs torch, so that `--help` answers at once.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ..harness.settings import settings_digest, stream_seed

EXPERIMENT = "survivors"


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides what a run computes, and nothing else."""

    dataset: str
    seed: int
    rounds: int
    prune_base: float
    epochs: int
    lr: float
    batch_size: int
    train_size: int | None = None
    test_size: int | None = None
    arch: str = "fc"
    optimizer: str = "adam"
    init: str = "glorot_normal"
    device: str = "cpu"
    experiment: str = EXPERIMENT

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> RunConfig:
        """Read back the settings as a result file states them."""
        return cls(**stored)

    @property
    def digest(self) -> str:
        """Short hash of the settings."""
        return settings_digest(asdict(self))

    @property
    def run_id(self) -> str:
        """Readable and unique name of the run, fit for a file name."""
        return f"{self.experiment}-{self.dataset}-{self.arch}-seed{self.seed}-{self.digest}"

    def stream(self, purpose: str, number: int = 0) -> int:
        """Return the seed of one of the run's random streams, or of one of its rounds."""
        return stream_seed(f"polarity survivors, seed {self.seed}, {purpose} {number}")
