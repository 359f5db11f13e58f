"""The settings of one run of the dense-to-sparse experiment. Nothing here needs torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Literal

from ....harness.names import OptimizerName, ScheduleName
from ....harness.recipes import Recipe
from ....harness.settings import same_named, settings_digest, stream_seed
from ..config import Densities, Purpose

EXPERIMENT = "dense_to_sparse"

Calendar = Literal["imagenet", "cifar10"]
Start = Literal["sign10", "sign30", "sign_final", "mag10", "mag_final", "random", "random+sign_in"]

METHODS = ("acdc", "rigl", "str")
STARTS: tuple[Start, ...] = ("sign10", "sign30", "sign_final", "mag10", "mag_final", "random")
AT_INITIALISATION = ("snip", "synflow", "random")
SEARCH = "str/find_decay"


@dataclass(frozen=True)
class DenseToSparseConfig:
    """Everything that decides what a run computes.

    What an arm does not use is None. A start keeps the settings of the run that its mask is from.

    Attributes:
        arm: `acdc`, `rigl`, `str`, `acdc+sign_in`; one of those and a start, as in `acdc/sign10`;
            a mask at initialisation, as in `snip+sign_in`; or `str/find_decay`.
        densities: how a random mask, RigL's too, spreads over layers.
        weight_decay: what the optimizer gets; 0 under Sign-In, which has `frobenius_decay`.
        rigl_updates: updates from the first step to `rigl_until`; one every ΔT steps.
        rigl_until: T_end as a fraction of all steps.
        str_decay: weight decay of s; None where it is searched for.
        search_seed: seed on which it is searched for.
        search_between: least and largest decay of the search.
        crop_padding: largest shift of an augmented image.
    """

    dataset: str
    resolution: int | None
    arch: str
    width: int | None
    stem_stride: int | None
    arm: str
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
    crop_padding: int
    beta: float | None
    rescale_period: int | None
    rescale_until: int | None
    rescale_momentum: str | None
    frobenius_decay: float | None
    acdc_calendar: Calendar | None
    rigl_updates: int | None
    rigl_until: float | None
    rigl_fraction: float | None
    rigl_replace_step: bool | None
    str_s0: float | None
    str_decay: float | None
    search_seed: int | None
    search_between: tuple[float, float] | None
    search_runs: int | None
    search_tolerance: float | None
    sharpness_images: int
    test_every: int
    train_size: int | None = None
    test_size: int | None = None
    device: str = "cpu"
    bf16: bool = False
    channels_last: bool = False
    experiment: str = EXPERIMENT

    @property
    def method(self) -> str:
        """What finds the mask: a method of `METHODS`, or a mask at initialisation."""
        return self.arm.split("/")[0].removesuffix("+sign_in")

    @property
    def start(self) -> str | None:
        """What a run starts from, besides the mask of its source; None for the others."""
        if "/" not in self.arm or self.arm == SEARCH:
            return None
        return self.arm.split("/")[1].removesuffix("+sign_in")

    @property
    def mask(self) -> str:
        """How the mask at initialisation is chosen; RigL begins with a random one."""
        return "random" if self.method == "rigl" else self.method

    @property
    def parametrized(self) -> bool:
        """Whether weights train as m⊙v."""
        return self.arm.endswith("+sign_in")

    @property
    def warmup_epochs(self) -> int:
        """The paper's epoch 10 of 100: a tenth of the epochs."""
        return max(1, round(0.1 * self.epochs))

    @property
    def middle_epochs(self) -> int:
        """The paper's epoch 30 of 100: three tenths of the epochs."""
        return max(1, round(0.3 * self.epochs))

    def measures_sharpness(self, epoch: int) -> bool:
        """Whether sharpness is computed after an epoch."""
        last = self.epochs
        return epoch in (1, self.warmup_epochs, self.middle_epochs, round(2 * last / 3), last)

    @property
    def source(self) -> DenseToSparseConfig:
        """The run that the mask, the signs and the magnitudes of a start are from."""
        return replace(
            self,
            arm=self.arm.split("/")[0],
            weight_decay=self.frobenius_decay or self.weight_decay,
            beta=None,
            rescale_period=None,
            rescale_until=None,
            rescale_momentum=None,
            frobenius_decay=None,
        )

    @property
    def is_source(self) -> bool:
        """Whether starts of this run are part of the experiment."""
        return self.arm in METHODS

    @property
    def search(self) -> DenseToSparseConfig | None:
        """The search for the decay of this STR run; None where there is none."""
        if self.method != "str" or self.str_decay is not None or self.search_seed is None:
            return None
        return replace(self.source, arm=SEARCH, seed=self.search_seed)

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
        arm = self.arm.replace("/", "_")
        parts = [EXPERIMENT, self.dataset, self.arch, arm, f"density{self.density:g}"]
        return "-".join([*parts, f"seed{self.seed}", self.digest])

    def stream(self, purpose: Purpose) -> int:
        """Return the seed of a stream, which arms share.

        Starts have streams of their own: a fresh initialisation must not be that of the run which
        learned the mask, and the same order of images would lead it along the same path.
        """
        of = "start" if self.start else "run"
        return stream_seed(f"polarity dense_to_sparse, seed {self.seed}, {of}, {purpose}")
