"""The command line of the dense-to-sparse experiment: its options, and the runs they ask for."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro

from ....harness.command_line import RunOptions, conduct, too_small
from ....harness.names import DatasetName, NetworkName
from ....harness.settings import same_named
from ..config import Densities
from .config import (
    AT_INITIALISATION,
    METHODS,
    SEARCH,
    STARTS,
    Calendar,
    DenseToSparseConfig,
)
from .report import describe

if TYPE_CHECKING:
    from ....harness.sweep import Outcome

Table = Literal["1", "5", "10"]


@dataclass
class DenseToSparseOptions:
    """Sign-In to the Lottery: AC/DC, RigL and STR, and training from the masks they learn.

    The same as the command `sign_in dense-to-sparse`.
    """

    # Tables of the paper whose rows are run; their sources are run with them. 1: the methods, and
    # six starts from the mask of each. 5: AC/DC with and without Sign-In. 10: random starts from
    # six masks, with and without Sign-In.
    tables: tuple[Table, ...] = ("1", "5", "10")

    # Run these arms alone, by name (acdc, acdc/sign10, snip+sign_in, …). Default: all.
    arms: tuple[str, ...] = ()

    # Seeds of all arms.
    seeds: tuple[int, ...] = (0, 1, 2)

    # Further seeds of AC/DC and RigL and their starts in Table 1, where effects are largest.
    more_seeds: tuple[int, ...] = (3, 4)

    # Density of Tables 1 and 10; and of Table 5, with the others below.
    density: float = 0.1

    # Further densities of Table 5. Default: the paper's.
    table5_densities: tuple[float, ...] = (0.2, 0.05)

    # Data set. The paper: ImageNet.
    dataset: DatasetName = "cifar10"

    # Height and width to which images are averaged. Default: 16, four times cheaper than 32.
    resolution: int | None = 16

    # Train on a random subset of this many images.
    train_size: int | None = 5000

    # Test on a random subset of this many images.
    test_size: int | None = None

    # Network. The paper: ResNet-50.
    arch: NetworkName = "resnet8"

    # Channels of the first stage of resnet8 to resnet32.
    width: int | None = 16

    # Stride of the first convolution of resnet8 to resnet32.
    stem_stride: int | None = None

    # Epochs. The paper: 100. Its epochs 10 and 30 and all schedules keep their fractions.
    epochs: int = 30

    # Batch size.
    batch_size: int = 128

    # Peak learning rate, of a triangular schedule.
    lr: float = 0.2

    # Weight decay; under Sign-In, the strength of the Frobenius decay that replaces it.
    weight_decay: float = 1e-4

    # Random crop and flip.
    augment: bool = True

    # Largest shift of a random crop, in pixels: 4 at 32x32.
    crop_padding: int = 2

    # How random masks, those of RigL among them, spread over layers. Default: as in appendix G.
    layers: Densities = "balanced"

    # Training images that snip looks at.
    score_images: int = 512

    # Published calendar of AC/DC's phases.
    acdc_calendar: Calendar = "imagenet"

    # Updates of RigL's mask: one every ΔT steps, ΔT as large as this many allow.
    rigl_updates: int = 60

    # Fraction of all steps after which RigL's mask stays as it is.
    rigl_until: float = 0.75

    # Fraction of the survivors that RigL's first update exchanges.
    rigl_fraction: float = 0.3

    # Whether an update of RigL takes the place of the gradient step, as in the published code.
    rigl_replace_step: bool = True

    # Initial s of STR.
    str_s0: float = -8.0

    # Weight decay of STR's s. Default: searched for, on the first seed, for all.
    str_decay: float | None = None

    # Least and largest decay of the search. At the default scale 3e-3 ends at density 0.24, 7e-3 at
    # 0.08; six halvings of the ratio between these tell densities apart that differ by 0.003.
    search_between: tuple[float, float] = (4e-3, 1e-2)

    # Most runs of the search.
    search_runs: int = 6

    # Distance from the density at which the search ends.
    search_tolerance: float = 0.005

    # Rescale period p of Sign-In in epochs; until half of the epochs.
    rescale_period: int = 1

    # What a rescale does to momentum.
    rescale_momentum: Literal["keep", "zero", "transform"] = "keep"

    # Inner scaling m² − v² of Sign-In.
    beta: float = 1.0

    # Training images whose loss is differentiated twice for the sharpness, at five epochs; 0
    # computes none. The time grows with their number: 48 take a tenth of a run, 256 a third.
    sharpness_images: int = 48

    # Test every this many epochs as well as after the last; 0 only after the last.
    test_every: int = 0

    # Convolutions in NHWC memory order: faster for small images on a CPU.
    channels_last: bool = True

    # Where runs take place, and what is shown of them.
    where: tyro.conf.OmitArgPrefixes[RunOptions] = field(
        default_factory=lambda: RunOptions(out=Path("runs/dense_to_sparse"))
    )


def main(options: DenseToSparseOptions) -> int:
    """Run the sweep, and print and draw what there is.

    Returns:
        0, or 1 where a run failed or the settings, the data or the folder were refused.
    """
    where = options.where

    def perform() -> tuple[list[DenseToSparseConfig], list[Outcome]]:
        # Not before here: torch is slow to import, and --help must not wait for it.
        from .sweep import sweep

        configs = configurations(options)
        return configs, sweep(configs, where.place())

    return conduct(where, _problems(options), perform, describe)


def configurations(options: DenseToSparseOptions) -> list[DenseToSparseConfig]:
    """Return the runs that options ask for, seed by seed: a part of the sweep is a result too."""
    found: list[DenseToSparseConfig] = []
    everything = arms_of(options.tables, options.density, options.table5_densities)
    table1 = arms_of(("1",), options.density, ()) if "1" in options.tables else []
    more = [each for each in table1 if each[0].split("/")[0] in ("acdc", "rigl")]
    for seed in dict.fromkeys((*options.seeds, *options.more_seeds)):
        arms = everything if seed in options.seeds else more
        found += [configuration(options, arm, density, seed) for arm, density in arms]
    # First, because it takes longest and STR needs it.
    searches = [search for run in found if (search := run.search) is not None]
    runs = list(dict.fromkeys([*searches, *found]))
    return [run for run in runs if not options.arms or run.arm in options.arms]


def arms_of(
    tables: tuple[Table, ...], density: float, table5_densities: tuple[float, ...]
) -> list[tuple[str, float]]:
    """Return the arms of tables and their densities.

    What a run needs comes well before it, so that with several jobs it is there in time.
    """
    found: list[tuple[str, float]] = []
    starts: dict[str, list[tuple[str, float]]] = {method: [] for method in METHODS}
    if "1" in tables or "10" in tables:
        found += [("acdc", density), ("rigl", density)]
    if "5" in tables:
        for each in (density, *table5_densities):
            found += [("acdc", each), ("acdc+sign_in", each)]
    if "10" in tables:
        for mask in AT_INITIALISATION:
            found += [(mask, density), (f"{mask}+sign_in", density)]
    for method in METHODS:
        if "1" in tables:
            starts[method] += [(f"{method}/{start}", density) for start in STARTS]
        if "10" in tables:
            names = (f"{method}/random", f"{method}/random+sign_in")
            starts[method] += [(name, density) for name in names]
    found += starts["acdc"]
    if starts["str"]:
        found.append(("str", density))
    return list(dict.fromkeys([*found, *starts["rigl"], *starts["str"]]))


def configuration(
    options: DenseToSparseOptions, arm: str, density: float, seed: int
) -> DenseToSparseConfig:
    """Return the settings of one run; what its arm does not use is None."""
    source, sign_in = arm.split("/")[0], arm.endswith("+sign_in")
    method = source.removesuffix("+sign_in")
    searched = method == "str" and options.str_decay is None

    def only(needed: bool, **values: Any) -> dict[str, Any]:
        return {name: value if needed else None for name, value in values.items()}

    filled = {
        "arm": arm,
        "density": density,
        "seed": seed,
        "optimizer": "sgd",
        "momentum": 0.9,
        "schedule": "triangular",
        "label_smoothing": 0.0,
        "weight_decay": 0.0 if sign_in else options.weight_decay,
        **only(method in ("random", "rigl"), densities=options.layers),
        **only(method == "snip", score_images=options.score_images),
        **only(
            sign_in,
            beta=options.beta,
            rescale_period=options.rescale_period,
            rescale_until=max(1, round(options.epochs / 2)),
            rescale_momentum=options.rescale_momentum,
            frobenius_decay=options.weight_decay,
        ),
        **only(method == "acdc", acdc_calendar=options.acdc_calendar),
        **only(
            method == "rigl",
            rigl_updates=options.rigl_updates,
            rigl_until=options.rigl_until,
            rigl_fraction=options.rigl_fraction,
            rigl_replace_step=options.rigl_replace_step,
        ),
        **only(method == "str", str_s0=options.str_s0, str_decay=options.str_decay),
        **only(
            searched,
            search_seed=options.seeds[0],
            search_between=options.search_between,
            search_runs=options.search_runs,
            search_tolerance=options.search_tolerance,
        ),
        "device": options.where.chosen_device(),
        "bf16": options.where.bf16,
    }
    return DenseToSparseConfig(**{**same_named(options, DenseToSparseConfig), **filled})


def _problems(options: DenseToSparseOptions) -> list[str]:
    problems = []
    if not (options.tables and options.seeds):
        problems.append("at least one table and seed are needed")
    known = {arm for arm, _ in arms_of(("1", "5", "10"), 0.1, ())} | {SEARCH}
    if unknown := [arm for arm in options.arms if arm not in known]:
        problems.append(f"--arms {unknown[0]} is none of {', '.join(sorted(known))}")
    if not all(0 < each <= 1 for each in (options.density, *options.table5_densities)):
        problems.append("--density and --table5-densities are fractions above 0 and at most 1")
    if not (0 < options.rigl_until <= 1 and 0 < options.rigl_fraction <= 1):
        problems.append("--rigl-until and --rigl-fraction are fractions above 0 and at most 1")
    if not 0 < options.search_between[0] < options.search_between[1]:
        problems.append("--search-between are two decays, the smaller first")
    if options.beta <= 0:
        problems.append(f"--beta {options.beta} is not positive")
    counted = ("epochs", "batch_size", "rigl_updates", "search_runs", "rescale_period")
    problems += too_small(options, counted)
    if min(options.sharpness_images, options.test_every, options.crop_padding) < 0:
        problems.append("--sharpness-images, --test-every and --crop-padding must not be negative")
    return problems
