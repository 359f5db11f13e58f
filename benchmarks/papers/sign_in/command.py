"""The command line of the Sign-In experiment: its options, and the runs they ask for."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from ...harness.command_line import RunOptions, conduct, no_graphs, too_small
from ...harness.names import DatasetName, NetworkName, OptimizerName, ScheduleName
from ...harness.recipes import Recipe
from ...harness.settings import given, same_named
from .config import Densities, Method, SignInConfig
from .recipes import SIGN_IN
from .report import describe

if TYPE_CHECKING:
    from ...harness.sweep import Outcome

ARCHS: dict[str, NetworkName] = {"cifar10": "resnet20", "cifar100": "resnet18"}
METHODS: tuple[Method, ...] = ("random", "random+sign_in", "random+mv")


@dataclass
class SignInOptions:
    """Sign-In to the Lottery: sparse training from scratch with and without m⊙v and rescaling.

    The command `sign_in theory` reproduces the paper's theory section instead.
    """

    # Data set. The paper: cifar10, cifar100, ImageNet (for the last: torchrun -m
    # benchmarks.papers.sign_in.imagenet; where it is installed, polarity_bench.papers.…). Default:
    # that of a named recipe, else digits.
    dataset: DatasetName | None = None

    # Network. Default: that of a named recipe, else the paper's, resnet20 for cifar10 and resnet18
    # for cifar100; resnet8 (ours) for the others.
    arch: NetworkName | None = None

    # Channels of the first stage of resnet8 to resnet32. Default: 16, the paper's for resnet20.
    width: int | None = None

    # Stride of the first convolution of resnet8 to resnet32; 2 is about four times cheaper.
    # Default: 1, the paper's.
    stem_stride: int | None = None

    # Mask and way of training: a mask (random, snip, grasp, synflow) alone, with Sign-In, with m⊙v
    # that is never rescaled (mv), or plainly with the rates and the decay that m⊙v starts with
    # (matched; a control).
    methods: tuple[Method, ...] = METHODS

    # Fractions of the weights that survive. Default: the paper's.
    densities: tuple[float, ...] = (0.2, 0.1, 0.05)

    # How a random mask spreads them over layers. Default: the paper's, the same number in each.
    layers: Densities = "balanced"

    # Training images that snip and grasp look at. Not in the paper.
    score_images: int = 512

    # Seeds of initialisation, mask and batches; methods of one seed share all three.
    seeds: tuple[int, ...] = (0, 1, 2)

    # Rescale periods p in epochs; several are a sweep. The paper never gives p; 1 is our choice.
    rescale_periods: tuple[int, ...] = (1,)

    # Epoch T2 from which on nothing is rescaled. Default: half of the epochs, the paper's for
    # CIFAR (75 of 150; ImageNet 75 of 100, DeiT 225 of 300).
    rescale_until: int | None = None

    # What a rescale does to momentum: keep it, zero it, or express it in the new factors. The
    # paper does not say; keep is what happens where nothing is done.
    rescale_momentum: Literal["keep", "zero", "transform"] = "keep"

    # Inner scaling m² − v², of the control too. Default: the paper's.
    beta: float = 1.0

    # Recipe of Tables 6 and 7 by its name, which stands for its data set and network too; the
    # options below change it. Default: that of the data set, with any network.
    recipe: Literal["cifar10-resnet20", "cifar100-resnet18"] | None = None

    # Epochs. Default: the recipe's, 150. T2 and the schedule's corners keep their fractions.
    epochs: int | None = None

    # Batch size. Default: the recipe's, 512.
    batch_size: int | None = None

    # Peak learning rate. Default: the recipe's, 0.2.
    lr: float | None = None

    # Weight decay of plain training; Sign-In, m⊙v and their control have none but the Frobenius
    # decay of the same strength on their weights. Default: the recipe's, 1e-4.
    weight_decay: float | None = None

    # Optimizer. Default: the recipe's, sgd with momentum 0.9.
    optimizer: OptimizerName | None = None

    # Schedule. Default: the recipe's, triangular.
    schedule: ScheduleName | None = None

    # Random crop and flip. Default: on for cifar10 and cifar100, off for the others.
    augment: bool | None = None

    # Training images whose loss is differentiated twice for the sharpness; 0 computes none.
    sharpness_images: int = 512

    # Compute sharpness every this many epochs as well as at the end; 0 only at the end.
    sharpness_every: int = 0

    # Train on a random subset of this many images.
    train_size: int | None = None

    # Test on a random subset of this many images.
    test_size: int | None = None

    # Convolutions in NHWC memory order: faster for small images on CPU, and on a GPU in bfloat16.
    channels_last: bool = False

    # On a GPU, replay every training step as one CUDA graph: meant for networks whose steps take
    # longer to launch than to compute.
    graphs: bool = False

    # Where runs take place, and what is shown of them.
    where: tyro.conf.OmitArgPrefixes[RunOptions] = field(
        default_factory=lambda: RunOptions(out=Path("runs/sign_in"))
    )


def main(options: SignInOptions) -> int:
    """Run the sweep, print its tables compared with the published numbers, and draw it.

    Returns:
        0, or 1 where a run failed or the settings, the data or the folder were refused.
    """
    where = options.where

    def perform() -> tuple[list[SignInConfig], list[Outcome]]:
        # Not before here: torch is slow to import, and --help must not wait for it.
        from .sweep import sweep

        configs = configurations(options)
        return configs, sweep(configs, where.place(graphs=options.graphs))

    return conduct(where, _problems(options), perform, describe)


def configurations(options: SignInOptions) -> list[SignInConfig]:
    """Return the runs that options ask for, seed by seed: a part of the sweep is a result too."""
    if options.recipe is None:
        dataset = options.dataset or "digits"
        # Of the two, which are equal but for the network.
        named = SIGN_IN["cifar100-resnet18" if dataset == "cifar100" else "cifar10-resnet20"]
        arch = options.arch or ARCHS.get(dataset, "resnet8")
    else:
        named = SIGN_IN[options.recipe]
        dataset, arch = named.dataset, named.arch
    options = replace(options, dataset=dataset, arch=arch)
    scaled = named.scaled(named.plain.epochs if options.epochs is None else options.epochs)
    augment = options.augment
    recipe = replace(
        scaled.plain,
        augment=dataset.startswith("cifar") if augment is None else augment,
        **given(
            batch_size=options.batch_size,
            lr=options.lr,
            weight_decay=options.weight_decay,
            optimizer=options.optimizer,
            schedule=options.schedule,
        ),
    )
    until = options.rescale_until or scaled.part.until
    runs = [
        _configuration(options, recipe, method, density, period, until, seed)
        for seed in options.seeds
        for density in options.densities
        for method in options.methods
        for period in options.rescale_periods
    ]
    return list(dict.fromkeys(runs))


def _configuration(
    options: SignInOptions,
    recipe: Recipe,
    method: Method,
    density: float,
    period: int,
    until: int,
    seed: int,
) -> SignInConfig:
    mask, _, way = method.partition("+")
    rescaled = way == "sign_in"
    asked = {**same_named(options, SignInConfig), **same_named(recipe, SignInConfig)}
    filled = {
        "method": method,
        "density": density,
        "densities": options.layers if mask == "random" else None,
        "score_images": options.score_images if mask in ("snip", "grasp") else None,
        "seed": seed,
        # As in both CIFAR rows of Table 7.
        "weight_decay": 0.0 if way else recipe.weight_decay,
        "beta": options.beta if way else None,
        "rescale_period": period if rescaled else None,
        "rescale_until": until if rescaled else None,
        "rescale_momentum": options.rescale_momentum if rescaled else None,
        "frobenius_decay": recipe.weight_decay if way else None,
        "device": options.where.chosen_device(),
        "bf16": options.where.bf16,
    }
    return SignInConfig(**{**asked, **filled})


def _problems(options: SignInOptions) -> list[str]:
    problems = []
    if not (options.methods and options.densities and options.seeds and options.rescale_periods):
        problems.append("at least one method, density, seed and rescale period are needed")
    if not all(0 < density <= 1 for density in options.densities):
        problems.append("--densities are fractions above 0 and at most 1")
    if options.recipe is not None:
        named = SIGN_IN[options.recipe]
        asked = (options.dataset or named.dataset, options.arch or named.arch)
        if asked != (named.dataset, named.arch):
            problems.append(
                f"--recipe {options.recipe} trains {named.arch} on {named.dataset}, not {asked[1]} "
                f"on {asked[0]}: leave --dataset and --arch out, or --recipe"
            )
    problems += too_small(options, ("epochs", "batch_size", "rescale_periods", "rescale_until"))
    problems += no_graphs(options.where, options.graphs)
    if options.beta <= 0:
        problems.append(f"--beta {options.beta} is not positive")
    if min(options.sharpness_images, options.sharpness_every) < 0:
        problems.append("--sharpness-images and --sharpness-every must not be negative")
    return problems
