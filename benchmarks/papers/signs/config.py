"""The settings of one run: what decides its outcome, the run's name, and its random streams.

Nothing here needs torch, so that `--help` answers at once.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from ...harness.names import Init
from ...harness.settings import settings_digest, stream_seed

# The papers' four, and the control: survivors get their initial values back, magnitudes included.
Strategy = Literal["mask1", "mask0", "gradual", "standard", "rewind"]
Scope = Literal["global", "layer"]
Kind = Literal["phi", "epsilon", "delta", "delta_largest"]
# Which entries survive: those of largest magnitude, or random ones, as many in each layer.
Survivors = Literal["magnitude", "random"]

# Applied one after the other; empty is the unperturbed run that every sweep shares at its zero.
Perturbation = tuple[tuple[Kind, float], ...]

_STREAMS = {"init": 0, "batches": 1, "signs": 2, "masks": 3}
Stream = Literal["init", "batches", "signs", "masks"]
# What has no part in training the dense network, round 0.
_AFTER_ROUND_0 = (
    "experiment",
    "strategy",
    "perturbation",
    "rounds",
    "prune_base",
    "prune_scope",
    "sign_scope",
    "survivors",
    "mix",
    "keep_rest",
)


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides what a run computes, and nothing else.

    How many processes run, where files lie and what is shown on the screen stay out: two runs that
    differ in these alone are the same run.
    """

    experiment: str
    dataset: str
    arch: str
    strategy: Strategy
    perturbation: Perturbation
    seed: int
    rounds: int
    prune_base: float
    epochs: int
    optimizer: str
    lr: float
    momentum: float
    weight_decay: float
    batch_size: int
    prune_scope: Scope
    sign_scope: Scope
    mix: float
    init: Init
    keep_rest: bool
    holdout: float
    train_size: int | None = None
    test_size: int | None = None
    weights: str | None = None
    device: str = "cpu"
    bf16: bool = False
    survivors: Survivors = "magnitude"
    resolution: int | None = None
    width: int | None = None

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> RunConfig:
        """Read back the settings as a result file states them."""
        perturbation = tuple((kind, value) for kind, value in stored["perturbation"])
        return cls(**{**stored, "perturbation": perturbation})

    @property
    def digest(self) -> str:
        """Short hash of the settings; a weights file counts by its content, not by its path."""
        return settings_digest(self._decisive())

    @property
    def dense_digest(self) -> str:
        """Short hash of the settings that decide round 0, the training of the dense network."""
        decisive = self._decisive()
        return settings_digest({k: v for k, v in decisive.items() if k not in _AFTER_ROUND_0})

    def _decisive(self) -> dict[str, Any]:
        settings = asdict(self)
        if self.weights is not None:
            settings["weights"] = _file_digest(self.weights)
        return settings

    @property
    def run_id(self) -> str:
        """Readable and unique name of the run, fit for a file name."""
        parts = (
            self.experiment,
            self.dataset,
            self.arch,
            self.strategy,
            perturbation_label(self.perturbation),
            f"seed{self.seed}",
            self.digest,
        )
        return "-".join(parts)

    def stream(self, purpose: Stream) -> int:
        """Return the seed of one of the run's random streams; no two streams or seeds share one."""
        return run_stream(self.seed, purpose)


def run_stream(seed: int, purpose: Stream) -> int:
    """Return the seed of a random stream of the runs of a seed."""
    return stream_seed(f"polarity benchmark, seed {seed}, stream {_STREAMS[purpose]}")


def perturbation_label(perturbation: Perturbation, separator: str = "") -> str:
    """Return `epsilon0.3`, or `unperturbed`; kinds that apply together are joined by a plus."""
    if not perturbation:
        return "unperturbed"
    return "+".join(f"{kind}{separator}{value:g}" for kind, value in perturbation)


@lru_cache
def _file_digest(path: str) -> str:
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"no weights at {file.resolve()} (--weights)")
    return hashlib.sha256(file.read_bytes()).hexdigest()
