"""What the two sign papers share: options, the defaults they leave open, and the end of a sweep.

Neither paper names an optimizer, learning rate, batch size or initialisation. Both use the network
names and the prune base of Zhou et al., "Deconstructing lottery tickets" (2019), whose public code
is therefore where such defaults come from; every help text says so where it holds.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from benchmarks.pages.published import epochs_per_round
from benchmarks.papers.signs.config import (
    Arch,
    DatasetName,
    Init,
    OptimizerName,
    RunConfig,
    Scope,
    Strategy,
)
from benchmarks.papers.signs.grid import expand, perturbation_grid

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


@dataclass
class SignOptions:
    """Options of an experiment in which survivors keep a sign and lose their magnitude."""

    # Data set. The papers use mnist, cifar10 and cifar100; digits (8x8, no download) is a proxy
    # that runs in seconds.
    dataset: DatasetName = "digits"

    # Network. Default: fc for digits, mnist and fashion_mnist, conv2 for cifar10, vgg16 for
    # cifar100. The papers: fc on MNIST; conv2, conv4, conv6, vgg16 on CIFAR-10; vgg16 on
    # CIFAR-100.
    arch: Arch | None = None

    # Where a survivor's sign comes from: the initialisation (mask1), the trained weights (mask0),
    # a mix (gradual), or the trained weights with the mask not enforced (standard). Default: the
    # papers' four.
    strategies: tuple[Strategy, ...] = ("gradual", "mask0", "mask1", "standard")

    # Fractions of the survivors whose signs are flipped, in [0, 1]. Without --epsilon, --delta and
    # --phi, fragility sweeps 0, 0.1, ..., 0.9 and zero_crossing its published phi values.
    epsilon: tuple[float, ...] = ()

    # Fractions of the survivors, smallest trained magnitudes first, whose signs are drawn anew,
    # in [0, 1].
    delta: tuple[float, ...] = ()

    # Thresholds that the reference weight must reach to count as positive.
    phi: tuple[float, ...] = ()

    # Apply every combination of the given phi, epsilon and delta together, in this order, instead
    # of sweeping each alone.
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

    # Work with a random subset of that many training images (held-out ones included).
    train_size: int | None = None

    # Work with a random subset of that many test images.
    test_size: int | None = None

    # For vgg16_pretrained: a state_dict file of torchvision's vgg16 or vgg16_bn. Its features are
    # loaded, the classifier is drawn.
    weights: str | None = None

    # Where to compute; auto takes a GPU where there is one.
    device: Literal["auto", "cpu", "cuda"] = "auto"

    # Run forward passes in bfloat16. The papers do not say; off.
    bf16: bool = False

    # Train through torch.compile; on a GPU, forward and backward are then captured as CUDA graphs,
    # which is meant for networks as small as fc. Compiling takes a while for every run. It changes
    # the last bits of a result, nothing else.
    compile: bool = False

    # Convolutions in NHWC memory order, for conv and VGG: meant for a GPU, with --bf16 above all.
    # It changes the last bits of a result, nothing else.
    channels_last: bool = False

    # Folder with MNIST/raw, cifar10, …. Default: $POLARITY_DATA, else ./data.
    data_root: Path | None = None

    # Let torchvision fetch data that is missing.
    download: bool = False

    # Folder of result files, checkpoints and plots. Finished runs found there are skipped,
    # interrupted ones go on.
    out: Path = Path("runs")

    # Processes that work at once, each on its own share of the cores.
    jobs: int = 1

    # Threads of one run. Default: 1 for fc, whose layers are too small to share, else the cores
    # divided by the jobs. It changes the last bits of a result, nothing else.
    threads: int | None = None

    # Keep the last checkpoint of finished runs.
    keep_checkpoints: bool = False

    # No progress.
    quiet: bool = False

    # Draw the sweep into the out folder.
    plot: bool = True


def configurations(options: SignOptions, experiment: str) -> list[RunConfig]:
    """The runs that options ask for, every open default filled in.

    Args:
        options: Options with at least one perturbation value.
        experiment: `fragility` or `zero_crossing`.

    Returns:
        One configuration per run.
    """
    arch = options.arch or ARCHS[options.dataset]
    published = epochs_per_round(experiment, options.dataset)
    base = RunConfig(
        experiment=experiment,
        dataset=options.dataset,
        arch=arch,
        strategy=options.strategies[0],
        perturbation=(),
        seed=options.seeds[0],
        rounds=options.rounds,
        prune_base=options.prune_base,
        epochs=options.epochs if options.epochs is not None else published or OUR_EPOCHS,
        optimizer=options.optimizer,
        lr=options.lr if options.lr is not None else LEARNING_RATES[arch],
        momentum=options.momentum,
        weight_decay=options.weight_decay,
        batch_size=options.batch_size,
        prune_scope=options.scope,
        sign_scope=options.sign_scope,
        mix=options.mix,
        init=options.init or _default_init(arch),
        keep_rest=options.keep_rest,
        holdout=options.holdout,
        train_size=options.train_size,
        test_size=options.test_size,
        weights=options.weights,
        device=_device(options.device),
        bf16=options.bf16,
    )
    points = perturbation_grid(
        options.phi, options.epsilon, options.delta, combined=options.combined
    )
    return expand(base, options.strategies, points, options.seeds)


def perform(options: SignOptions, experiment: str) -> int:
    """Runs the sweep, prints its tables beside the published numbers and draws it.

    Returns:
        0, or 1 where a run failed or the settings or the data were refused.
    """
    problems = _problems(options)
    if problems:
        return _refuse("; ".join(problems))
    # Not before here: torch is slow to import, and --help shall not wait for it.
    from benchmarks.harness.place import Place
    from benchmarks.papers.signs.sweep import Outcome, sweep

    place = Place(
        options.out,
        options.data_root,
        options.download,
        options.keep_checkpoints,
        options.threads,
        options.compile,
        options.channels_last,
    )
    try:
        configs = configurations(options, experiment)
        outcomes = sweep(configs, place, jobs=options.jobs, quiet=options.quiet)
    except (ValueError, FileNotFoundError) as error:
        return _refuse(str(error))
    _conclude(configs, options)
    failed: list[Outcome] = [outcome for outcome in outcomes if outcome.failure is not None]
    for outcome in failed:
        print(f"\nFAILED {outcome.run_id}\n{outcome.failure}", file=sys.stderr)
    if failed:
        print(f"{len(failed)} of {len(configs)} runs failed", file=sys.stderr)
    return 1 if failed else 0


def _conclude(configs: Sequence[RunConfig], options: SignOptions) -> None:
    from benchmarks.harness.results import read_result, result_path
    from benchmarks.report import experiment_markdown

    paths = [result_path(options.out, config) for config in configs]
    results = [read_result(path) for path in paths if path.is_file()]
    if not results:
        return
    section = experiment_markdown(results, options.out if options.plot else None)
    print(section.text)
    for path in section.plots:
        print(f"plot: {path}")


def _problems(options: SignOptions) -> list[str]:
    problems = []
    if not options.strategies or not options.seeds:
        problems.append("at least one strategy and one seed are needed")
    if options.rounds < 0 or (options.epochs is not None and options.epochs < 1):
        problems.append("rounds must not be negative, and epochs must be at least 1")
    if not 0 < options.prune_base < 1:
        problems.append(f"--prune-base {options.prune_base} is not between 0 and 1")
    if min(options.batch_size, options.jobs, options.threads or 1) < 1:
        problems.append("--batch-size, --jobs and --threads must be at least 1")
    if not 0 <= options.mix <= 1:
        problems.append(f"--mix {options.mix} is not a share between 0 and 1")
    return problems


def _refuse(reason: str) -> int:
    print(f"error: {reason}", file=sys.stderr)
    return 1


def _default_init(arch: Arch) -> Init:
    from benchmarks.models import default_init

    return default_init(arch)


def _device(wanted: str) -> str:
    import torch

    available = torch.cuda.is_available()
    if wanted == "cuda" and not available:
        raise ValueError("--device cuda, but torch sees no GPU")
    return "cuda" if available and wanted != "cpu" else "cpu"
