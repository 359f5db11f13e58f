"""The command lines of the two sign papers: their options, and the defaults they leave open.

Neither paper names an optimizer, learning rate, batch size or initialisation. Both use the network
names and the prune base of Zhou et al., "Deconstructing lottery tickets" (2019), whose public code
is therefore where such defaults come from; every help text says so where it holds.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar

import tyro

from ...harness.command_line import RunOptions, conduct, no_graphs, too_small
from ...harness.names import Arch, DatasetName, Init, OptimizerName
from ...harness.settings import same_named
from ...pages.published import epochs_per_round
from . import fragility, zero_crossing
from .config import RunConfig, Scope, Strategy, Survivors
from .grid import expand, perturbation_grid
from .report import describe

if TYPE_CHECKING:
    from ...harness.sweep import Outcome

# Zhou et al. (2019) for fc and conv nets; VGG is ours, a usual step of Adam at that depth.
LEARNING_RATES: dict[str, float] = {
    "fc": 1.2e-3,
    "conv2": 2e-4,
    "conv4": 3e-4,
    "conv6": 3e-4,
    "vgg16": 3e-4,
    "vgg16_bn": 3e-4,
    "vgg16_pretrained": 3e-4,
}
ARCHS: dict[str, Arch] = {
    "digits": "fc",
    "mnist": "fc",
    "fashion_mnist": "fc",
    "cifar10": "conv2",
    "cifar100": "vgg16",
}
# For data sets that no paper uses: MNIST's.
OUR_EPOCHS = 10
# The second paper names a pretrained VGG on CIFAR-100.
_PRETRAINED = (zero_crossing.EXPERIMENT, "cifar100")
_GRIDS = ("epsilon", "delta", "delta_largest", "phi")


@dataclass
class SignOptions:
    """Options of an experiment in which survivors keep a sign and lose their magnitude."""

    experiment: ClassVar[str]

    # Data set. The papers use mnist, cifar10 and cifar100; digits (8x8, no download) is a proxy
    # that runs in seconds.
    dataset: DatasetName = "digits"

    # Network. Default: fc for digits, mnist and fashion_mnist, conv2 for cifar10; for cifar100
    # vgg16, or vgg16_pretrained (with --weights) for zero_crossing. The papers: fc on MNIST; conv2,
    # conv4, conv6, vgg16 on CIFAR-10; those VGGs on CIFAR-100.
    arch: Arch | None = None

    # Where a survivor's sign comes from: the initialisation (mask1), the trained weights (mask0),
    # a mix (gradual), or the trained weights with the mask not enforced (standard). Default: the
    # papers' four. The control rewind gives the survivors their initial values, magnitudes
    # included, as iterative magnitude pruning does; nothing perturbs it.
    strategies: tuple[Strategy, ...] = ("gradual", "mask0", "mask1", "standard")

    # Fractions of the survivors whose signs are flipped, in [0, 1]; 0.5 makes all signs random.
    # Without any perturbation fragility sweeps epsilon 0, 0.1, ..., 0.9, on cifar10 and cifar100
    # delta 0, 0.1, 0.2, 0.5, 0.8, 1, and zero_crossing its published phi values.
    epsilon: tuple[float, ...] = ()

    # Fractions of the survivors, smallest trained magnitudes first, whose signs are drawn anew,
    # in [0, 1].
    delta: tuple[float, ...] = ()

    # The same with the largest first: a control that the papers do not have.
    delta_largest: tuple[float, ...] = ()

    # Thresholds that the reference weight must reach to count as positive.
    phi: tuple[float, ...] = ()

    # Apply every combination of the given phi, epsilon, delta and delta-largest together, in this
    # order, instead of sweeping each alone.
    combined: bool = False

    # Seeds. The papers do not say how many they ran; a seed sets initialisation, batch order and
    # random signs, never the split of the data.
    seeds: tuple[int, ...] = (0,)

    # Pruning rounds after the dense training: 10 are 11 trainings and end at density 0.8^10 =
    # 0.107, the papers' final sparsity of about 89 percent. Default: the papers'.
    rounds: int = 10

    # Density after round k is prune-base to the power of k. Default: the papers'.
    prune_base: float = 0.8

    # Epochs per round. Default: the paper's, where it has one (fragility: mnist 10, cifar10 10,
    # cifar100 50; zero_crossing: mnist 10, cifar10 80, cifar100 50), else 10 (ours).
    epochs: int | None = None

    # Optimizer, new in every round. Not in the papers; Adam as in the code of Zhou et al. 2019.
    optimizer: OptimizerName = "adam"

    # Learning rate. Not in the papers. Default: fc 1.2e-3, conv2 2e-4, conv4 and conv6 3e-4 as in
    # the code of Zhou et al. 2019; VGG 3e-4 (ours).
    lr: float | None = None

    # Batch size. Not in the papers; 60 as in the code of Zhou et al. 2019.
    batch_size: int = 60

    # Momentum of sgd. Not in the papers; ours.
    momentum: float = 0.9

    # Weight decay. Not in the papers; none, as in the code of Zhou et al. 2019.
    weight_decay: float = 0.0

    # Compare magnitudes across the network (global) or within each layer (layer). Not in the
    # papers; global is our choice, the code of Zhou et al. 2019 prunes per layer.
    scope: Scope = "global"

    # Which entries survive: those of largest magnitude, or, as a control that the papers do not
    # have, random ones, as many in each layer as by magnitude.
    survivors: Survivors = "magnitude"

    # Draw the signs that epsilon and delta touch per layer or across the network. Not in the
    # papers; per layer is our choice.
    sign_scope: Scope = "layer"

    # Share of weights that gradual refers to the trained signs. Default: the papers'.
    mix: float = 0.7

    # Initialisation. Not in the papers. Default: glorot_normal with zero biases for fc and conv,
    # as in the code of Zhou et al. 2019; kaiming_normal for VGG (ours).
    init: Init | None = None

    # Keep trained biases, norms and running statistics at a round instead of restoring the initial
    # ones. Not in the papers; restoring is what the code of Zhou et al. 2019 does.
    keep_rest: bool = False

    # Training images set aside for model selection: a fraction below 1, a number from 1. Not in
    # the papers, which select on the test set; we report both.
    holdout: float = 0.1

    # Work with a random subset of this many training images (held-out ones included).
    train_size: int | None = None

    # Work with a random subset of this many test images.
    test_size: int | None = None

    # Height and width of the images after average pooling. Default: their own, as in the papers.
    resolution: int | None = None

    # Channels of the first convolutions of vgg16 and vgg16_bn. Default: 64, VGG-16's own.
    width: int | None = None

    # For vgg16_pretrained: a state_dict file of torchvision's vgg16 or vgg16_bn. Its features are
    # loaded, the classifier is drawn.
    weights: str | None = None

    # Convolutions in NHWC memory order, for conv and VGG: meant for a GPU, with --bf16 above all.
    # It changes the last bits of a result, nothing else.
    channels_last: bool = False

    # On a GPU, replay every training step as one CUDA graph: meant for networks whose steps take
    # longer to launch than to compute, such as fc and conv2.
    graphs: bool = False

    # Keep the last checkpoint of finished runs.
    keep_checkpoints: bool = False

    # Where runs take place, and what is shown of them.
    where: tyro.conf.OmitArgPrefixes[RunOptions] = field(default_factory=RunOptions)


@dataclass
class FragilityOptions(SignOptions):
    """The Fragility of Polarity: accuracy after pruning while signs are flipped or randomised.

    Without a perturbation, epsilon 0, 0.1, …, 0.9 is swept (the range of Figure 1), and delta on
    cifar10 and cifar100, whose tables are those of delta.
    """

    experiment: ClassVar[str] = fragility.EXPERIMENT


@dataclass
class ZeroCrossingOptions(SignOptions):
    """Beyond the Zero-Crossing: accuracy after pruning while the threshold of polarity moves.

    Without a perturbation, the published phi_center values are swept: 0, ±5e-5,
    ±1e-4, ±5e-4, ±1e-3, ±1e-1.
    """

    experiment: ClassVar[str] = zero_crossing.EXPERIMENT


def main(options: SignOptions) -> int:
    """Run the sweep, print its tables compared with the published numbers, and draw it.

    Returns:
        0, or 1 where a run failed or the settings, the data or the folder were refused.
    """
    where = options.where

    def perform() -> tuple[list[RunConfig], list[Outcome]]:
        # Not before here: torch is slow to import, and --help must not wait for it.
        from .sweep import sweep

        place = where.place(
            channels_last=options.channels_last,
            graphs=options.graphs,
            keep_checkpoints=options.keep_checkpoints,
        )
        configs = configurations(options)
        return configs, sweep(configs, place)

    return conduct(where, _problems(options), perform, describe)


def configurations(options: SignOptions) -> list[RunConfig]:
    """Return the runs that options ask for, every open default filled in."""
    experiment = options.experiment
    if not any(getattr(options, grid) for grid in _GRIDS):
        options = replace(options, **_default_grid(experiment, options.dataset))
    arch = options.arch or _default_arch(experiment, options.dataset)
    published = epochs_per_round(experiment, options.dataset)
    asked = same_named(options, RunConfig)
    filled = {
        "arch": arch,
        "strategy": options.strategies[0],
        "perturbation": (),
        "seed": options.seeds[0],
        "epochs": options.epochs if options.epochs is not None else published or OUR_EPOCHS,
        "lr": options.lr if options.lr is not None else LEARNING_RATES[arch],
        "prune_scope": options.scope,
        "init": options.init or _default_init(arch),
        "device": options.where.chosen_device(),
        "bf16": options.where.bf16,
    }
    base = RunConfig(**{**asked, **filled})
    points = perturbation_grid(
        options.phi,
        options.epsilon,
        options.delta,
        options.delta_largest,
        combined=options.combined,
    )
    return expand(base, options.strategies, points, options.seeds)


def _problems(options: SignOptions) -> list[str]:
    problems = []
    if not options.strategies or not options.seeds:
        problems.append("at least one strategy and one seed are needed")
    if options.rounds < 0:
        problems.append(f"--rounds must not be negative, not {options.rounds}")
    if not 0 < options.prune_base < 1:
        problems.append(f"--prune-base {options.prune_base} is not between 0 and 1")
    problems += too_small(options, ("epochs", "batch_size", "resolution", "width"))
    problems += no_graphs(options.where, options.graphs)
    if not 0 <= options.mix <= 1:
        problems.append(f"--mix {options.mix} is not a share between 0 and 1")
    return problems


def _default_grid(experiment: str, dataset: str) -> dict[str, tuple[float, ...]]:
    """Return the perturbations of the paper's cells for a data set."""
    if experiment == zero_crossing.EXPERIMENT:
        return {"phi": zero_crossing.PHI}
    return (
        {"delta": fragility.DELTA}
        if dataset in fragility.BY_DELTA
        else {"epsilon": fragility.EPSILON}
    )


def _default_arch(experiment: str, dataset: str) -> Arch:
    return "vgg16_pretrained" if (experiment, dataset) == _PRETRAINED else ARCHS[dataset]


def _default_init(arch: Arch) -> Init:
    from ...models import default_init

    return default_init(arch)
