"""The settings of one run of the Sign-In experiment. Nothing here needs torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

from ...harness.names import OptimizerName, ScheduleName
from ...harness.recipes import Recipe
from ...harness.settings import same_named, settings_digest, stream_seed

EXPERIMENT = "sign_in"

Method = Literal[
    "random",
    "random+sign_in",
    "random+mv",
    "random+matched",
    "snip",
    "snip+sign_in",
    "snip+mv",
    "snip+matched",
    "grasp",
    "grasp+sign_in",
    "grasp+mv",
    "grasp+matched",
    "synflow",
    "synflow+sign_in",
    "synflow+mv",
    "synflow+matched",
]
Densities = Literal["balanced", "erk", "uniform"]
Purpose = Literal["init", "mask", "batches"]


@dataclass(frozen=True)
class SignInConfig:
    """Everything that decides what a run computes.

    What a method does not use is None, so that the runs which a sweep over it shares are the same
    runs. `weight_decay` is what the optimizer gets of Table 6 or, under Sign-In, m⊙v and their
    control, of Table 7; `frobenius_decay` is that of the weights then.
    """

    dataset: str
    arch: str
    width: int | None
    stem_stride: int | None
    method: Method
    density: float
    densities: Densities | None
    score_images: int | None
    seed: int
    epochs: int
    batch_size: int
    optimizer: OptimizerName
    lr: float
    momentum: float
    weight_decay: float
    schedule: ScheduleName
    label_smoothing: float
    augment: bool
    beta: float | None
    rescale_period: int | None
    rescale_until: int | None
    rescale_momentum: str | None
    frobenius_decay: float | None
    sharpness_images: int
    sharpness_every: int
    train_size: int | None = None
    test_size: int | None = None
    device: str = "cpu"
    bf16: bool = False
    channels_last: bool = False
    experiment: str = EXPERIMENT

    @property
    def mask(self) -> str:
        """How the mask is chosen: `random`, `snip`, `grasp` or `synflow`."""
        return self.method.split("+")[0]

    @property
    def way(self) -> str:
        """How the weights train: plainly (empty), as `mv`, with `sign_in`, or `matched`."""
        return self.method.partition("+")[2]

    @property
    def parametrized(self) -> bool:
        """Whether weights train as m⊙v, with or without rescaling."""
        return self.way in ("mv", "sign_in")

    @property
    def warmup_epochs(self) -> int:
        """Epochs until the triangular schedule has its peak; a fifth for every schedule."""
        return max(1, round(0.2 * self.epochs))

    def measures_sharpness(self, epoch: int) -> bool:
        """Whether sharpness is computed after an epoch."""
        if epoch == self.epochs:
            return True
        return bool(self.sharpness_every) and epoch % self.sharpness_every == 0

    @property
    def recipe(self) -> Recipe:
        """The part of the settings that training needs."""
        return Recipe(**same_named(self, Recipe))

    @property
    def digest(self) -> str:
        """Short hash of the settings."""
        return settings_digest(asdict(self))

    @property
    def run_id(self) -> str:
        """Readable and unique name of the run, fit for a file name."""
        parts = ["sign_in", self.dataset, self.arch, self.method, f"density{self.density:g}"]
        if self.rescale_period is not None:
            parts.append(f"p{self.rescale_period}")
        return "-".join([*parts, f"seed{self.seed}", self.digest])

    def stream(self, purpose: Purpose) -> int:
        """Return the seed of a stream; methods share initialisation, mask and batches."""
        return stream_seed(f"polarity sign_in, seed {self.seed}, {purpose}")
