"""The command line of the AWS experiment: its options, and the setting they ask for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from ...harness.command_line import RunOptions, conduct, no_graphs, too_small
from ...harness.names import FOLDERS, DatasetName, FolderName
from ...harness.settings import given, same_named
from .config import AwsArch, AwsConfig
from .grid import plan
from .recipes import choose_recipe
from .report import describe

if TYPE_CHECKING:
    from ...harness.sweep import Outcome

Part = Literal["six", "norms", "norm_signs", "gem_miner", "rewinding"]
# Rounds that are reported where they exist: densities 0.33, 0.17, 0.086 and 0.044.
REPORTED = (5, 8, 11, 14)
# Density 0.086, the paper's "approximately 0.09".
BARRIER_ROUND = 11
SMALL_TRAIN, SMALL_TEST = 4000, 2000


@dataclass
class WinningSignOptions:
    """Find a Winning Sign: six networks, their error barriers, the ablations and Gem-Miner.

    Without further options: a small ResNet on a subset of CIFAR-10, at a scale for a CPU.
    """

    # Data set. The paper: CIFAR-100, Tiny-ImageNet, ImageNet. The last two are folders of images,
    # imagenet and tiny_imagenet in --data-root, with train and val below, a folder per class.
    # Default: that of a named recipe, else cifar10.
    dataset: DatasetName | FolderName | None = None

    # Network. For a CPU: small_resnet (ResNet-8 whose stem halves the image, batch norm), mixer
    # (three blocks, width 64, LayerNorm), small_vgg (VGG-11 with an eighth of the channels). The
    # paper's: resnet50, mobilenet_v2, shufflenet_v2, efficientnet_b0, mixer_s16, vgg11_bn,
    # resnet32. Default: that of a named recipe, else small_resnet.
    arch: AwsArch | None = None

    # Training settings: `small` (ours, for a CPU: 3 epochs of warm-up, 14 rounds of 1 epoch, 8
    # epochs of final training), `paper` (the paper's for this data set and network), or a name:
    # cifar100-, tiny_imagenet- or imagenet- and the network, which stands for both of them.
    recipe: str = "small"

    # What to compute. six: Figure 3 and Table 2; norms: Figure 2; norm_signs: appendix A;
    # gem_miner: Figure 4; rewinding: IMP and weight rewinding, which the paper only discusses.
    parts: tuple[Part, ...] = ("six", "norms", "norm_signs", "gem_miner")

    # Seeds. The paper runs 3 trials. A seed sets initialisations, batch orders and augmentation.
    seeds: tuple[int, ...] = (0, 1, 2)

    # Pruning rounds of 20 percent. Default: the recipe's (small 14, official scripts 15 or 10).
    rounds: int | None = None

    # Rounds whose tickets are finally trained. Default: 5, 8, 11 and 14 as far as they exist,
    # densities 0.33, 0.17, 0.086 and 0.044; and the last.
    at: tuple[int, ...] = ()

    # Round of the error barriers. Default: 11 (density 0.086), or the last before it.
    barrier_at: int | None = None

    # Epochs before the first pruning. Default: the recipe's.
    warmup_epochs: int | None = None

    # Epochs after each pruning. Default: the recipe's.
    round_epochs: int | None = None

    # Epochs of every final training. Default: the recipe's.
    final_epochs: int | None = None

    # Peak learning rate. Default: the recipe's.
    lr: float | None = None

    # Batch size. Default: the recipe's.
    batch_size: int | None = None

    # Work with a random subset of this many training images. Default: 4000 with the recipe small,
    # else all.
    train_size: int | None = None

    # Work with a random subset of this many test images. Default: 2000 with the recipe small,
    # else all.
    test_size: int | None = None

    # Height and width of images from folders. Default: 224 for imagenet, 64 for tiny_imagenet.
    image_size: int | None = None

    # Processes that read images from folders, for each seed. No result depends on it.
    workers: int = 8

    # Training images from which batch-norm statistics are computed at each point of a barrier.
    recalibrate: int = 500

    # Count and prune the classifier too; the official code does not.
    prune_classifier: bool = False

    # Transfer the signs of the classifier and of biases with every ticket, as the official code.
    official_signs: bool = False

    # Gem-Miner: learning rate of the scores (SGD, momentum 0.9). Ours: of 0.1, 1 and 10 the one
    # whose subnetworks were best before any weight was trained, on both small networks.
    score_lr: float = 10.0

    # Gem-Miner: penalty on the squared scores.
    score_penalty: float = 1e-6

    # On a GPU, replay every training step as one CUDA graph: meant for networks whose steps take
    # longer to launch than to compute.
    graphs: bool = False

    # Where runs take place, and what is shown of them.
    where: tyro.conf.OmitArgPrefixes[RunOptions] = field(
        default_factory=lambda: RunOptions(out=Path("runs/winning_sign"))
    )


def main(options: WinningSignOptions) -> int:
    """Run the comparison, print its tables compared with the published numbers, and draw it.

    Returns:
        0, or 1 where a seed failed or the settings, the data or the folder were refused.
    """
    where = options.where

    def perform() -> tuple[list[AwsConfig], list[Outcome]]:
        # Not before here: torch is slow to import, and --help must not wait for it.
        from .sweep import sweep

        base, at, barrier_at = configuration(options)
        chains = [
            plan(replace(base, seed=seed), options.parts, at, barrier_at)
            for seed in dict.fromkeys(options.seeds)
        ]
        configs = [config for chain in chains for config in chain.runs]
        return configs, sweep(chains, where.place(graphs=options.graphs), options.workers)

    return conduct(where, _problems(options), perform, describe)


def configuration(options: WinningSignOptions) -> tuple[AwsConfig, Sequence[int], int]:
    """Return the setting of the first seed, its rounds, and the round of the barriers.

    Raises:
        ValueError: an unknown recipe, or a round that does not exist.
    """
    recipe = choose_recipe(options.recipe, options.dataset, options.arch)
    small = options.recipe == "small"
    changed = given(epochs=options.final_epochs, lr=options.lr, batch_size=options.batch_size)
    recipe = replace(
        recipe,
        final=replace(recipe.final, **changed),
        **given(
            rounds=options.rounds,
            warmup_epochs=options.warmup_epochs,
            round_epochs=options.round_epochs,
        ),
    )
    if options.image_size is not None and recipe.dataset not in FOLDERS:
        raise ValueError(
            f"--image-size {options.image_size} is for images from folders ({', '.join(FOLDERS)}), "
            f"and {recipe.dataset} has one size"
        )
    if options.graphs and recipe.dataset in FOLDERS:
        raise ValueError(
            f"--graphs replays steps on images in memory, and {recipe.dataset} is read from files"
        )
    last = recipe.rounds
    at = options.at or tuple(dict.fromkeys(min(k, last) for k in REPORTED))
    barrier_at = options.barrier_at if options.barrier_at is not None else min(BARRIER_ROUND, last)
    for k in (*at, barrier_at):
        if not 1 <= k <= last:
            raise ValueError(f"round {k} (--at, --barrier-at) is not one of 1 to {last}")
    filled = {
        "recipe": recipe,
        "seed": options.seeds[0],
        "train_size": _size(options.train_size, SMALL_TRAIN, small, recipe.dataset),
        "test_size": _size(options.test_size, SMALL_TEST, small, recipe.dataset),
        "device": options.where.chosen_device(),
        "bf16": options.where.bf16,
    }
    base = AwsConfig(**{**same_named(options, AwsConfig), **filled})
    return base, at, barrier_at


def _size(asked: int | None, ours: int, small: bool, dataset: str) -> int | None:
    # The digits have fewer images than our subsets of the others.
    return asked if asked is not None or not small or dataset == "digits" else ours


def _problems(options: WinningSignOptions) -> list[str]:
    counts = ("rounds", "warmup_epochs", "round_epochs", "final_epochs", "batch_size")
    problems = too_small(options, (*counts, "recalibrate", "image_size"))
    problems += no_graphs(options.where, options.graphs)
    if options.workers < 0:
        problems.append(f"--workers must not be negative, not {options.workers}")
    if not options.seeds or not options.parts:
        problems.append("at least one seed and one part are needed")
    return problems
