"""Sign-In to the Lottery: does training θ as m⊙v help a network that is sparse from the start?

Claim. A random (or SNIP, SynFlow) mask of a fresh network trains better when every weight is the
product of two parameters with m² − v² = β, reset to β every p epochs until epoch T2: more signs
flip, and the minimum is flatter. Without the reset the gain is smaller.

Grid. Densities 0.2, 0.1 and 0.05; random masks with balanced layers; plain training, Sign-In, and
m⊙v without rescaling; the recipes of Tables 6 and 7. p is given nowhere and is swept here.

Expected. Test accuracy with a random mask (Tables 3 and 11; Tables 9 and 11 print baselines that
are 0.05 to 0.16 above those of Table 3):

| | density 0.2 | 0.1 | 0.05 |
|---|---|---|---|
| CIFAR-10 ResNet-20, random | 88.25 | 86.25 | 83.56 |
| + m⊙v | 89.11 | 87.13 | 83.88 |
| + Sign-In | 89.37 | 87.83 | 84.74 |
| CIFAR-100 ResNet-18, random | 73.95 | 72.96 | 71.36 |
| + m⊙v | 74.62 | 73.18 | 72.08 |
| + Sign-In | 75.32 | 73.94 | 72.51 |
| ImageNet ResNet-50, random | 73.87 | 71.56 | 68.72 |
| + m⊙v | 73.96 | 71.83 | 69.15 |
| + Sign-In | 74.12 | 72.19 | 69.38 |

Where ours differ, and what the paper leaves open. The rescale period p; what happens to momentum
at a rescale (kept here, `--rescale-momentum`); which layers are pruned and converted (every
convolution and linear layer, the first and the last among them, as in the public code that the
paper's harness resembles, TurboPrune); the corners of the triangular schedule (that code's);
augmentation (crop and flip). The Frobenius penalty is λ/2·Σ(m⊙v)², so that its gradient in θ is
that of a weight decay λ. Table 7's weight decay of 0 is taken literally for CIFAR: biases and norms
decay no longer either, in Sign-In and in m⊙v. "Balanced" is exact: every layer keeps the same
number of weights, small layers stay dense and the rest share what they cannot use. SynFlow takes
its hundred steps in evaluation mode; TurboPrune's takes one, in training mode, which may be why the
paper's SynFlow numbers are low. Sharpness is the largest Hessian eigenvalue of the training loss in
θ = m⊙v for every method, so that a change of coordinates is not taken for a flatter minimum.

Seen so far. At the small scale that is committed (an eight-layer ResNet, 8000 images, ten epochs,
five seeds) the three methods do not differ: every difference between them is smaller than its
standard deviation over seeds, at every density and for every p, and so are those in sign flips and
sharpness. The inner scaling hardly wears off in ten epochs, so there is little for a rescale to
restore. The paper's runs are twenty times as long; this says nothing against them.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from benchmarks.harness.recipes import SIGN_IN, NetworkName, OptimizerName, Recipe, ScheduleName
from benchmarks.papers.sign_in.config import Densities, Method, SignInConfig
from benchmarks.papers.signs.config import DatasetName

EXPERIMENT = "sign_in"
ARCHS: dict[str, NetworkName] = {"cifar10": "resnet20", "cifar100": "resnet18"}
METHODS: tuple[Method, ...] = ("random", "random+sign_in", "random+mv")


@dataclass
class SignInOptions:
    """Sign-In to the Lottery: sparse training from scratch with and without m⊙v and rescaling.

    `python -m benchmarks sign_in theory` reproduces the paper's theory section instead.
    """

    # Data set. The paper: cifar10, cifar100, ImageNet (for the last:
    # python -m benchmarks.papers.sign_in.imagenet).
    dataset: DatasetName = "digits"

    # Network. Default: the paper's, resnet20 for cifar10 and resnet18 for cifar100; resnet8 (ours)
    # for the others.
    arch: NetworkName | None = None

    # Channels of the first stage of resnet8 to resnet32. Default: 16, the paper's for resnet20.
    width: int | None = None

    # Stride of the first convolution of resnet8 to resnet32; 2 is about four times cheaper.
    # Default: 1, the paper's.
    stem_stride: int | None = None

    # Mask and way of training: a mask (random, snip, grasp, synflow) alone, with Sign-In, or with
    # m⊙v that is never rescaled (mv).
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

    # Inner scaling m² − v². Default: the paper's.
    beta: float = 1.0

    # Named recipe of Tables 6 and 7 that the options below change. Default: cifar100-resnet18 for
    # cifar100, else cifar10-resnet20; the two are equal but for the network.
    recipe: Literal["cifar10-resnet20", "cifar100-resnet18"] | None = None

    # Epochs. Default: the recipe's, 150. T2 and the schedule's corners keep their fractions.
    epochs: int | None = None

    # Batch size. Default: the recipe's, 512.
    batch_size: int | None = None

    # Peak learning rate. Default: the recipe's, 0.2.
    lr: float | None = None

    # Weight decay of plain training; Sign-In and m⊙v have none but the Frobenius decay of the same
    # strength on m⊙v. Default: the recipe's, 1e-4.
    weight_decay: float | None = None

    # Optimizer. Default: the recipe's, sgd with momentum 0.9.
    optimizer: OptimizerName | None = None

    # Schedule. Default: the recipe's, triangular.
    schedule: ScheduleName | None = None

    # Random crop and flip. Default: on for cifar10 and cifar100, off for the others.
    augment: bool | None = None

    # Training images whose loss is differentiated twice for the sharpness; 0 computes none.
    sharpness_images: int = 512

    # Compute sharpness every so many epochs too, beside the end; 0 at the end alone.
    sharpness_every: int = 0

    # Train on a random subset of that many images.
    train_size: int | None = None

    # Test on a random subset of that many images.
    test_size: int | None = None

    # Where to compute; auto takes a GPU where there is one.
    device: Literal["auto", "cpu", "cuda"] = "auto"

    # Forward passes in bfloat16.
    bf16: bool = False

    # Convolutions in NHWC memory order: faster for small images on CPU, and on a GPU in bfloat16.
    channels_last: bool = False

    # Train through torch.compile; on a GPU, forward and backward are then captured as CUDA graphs.
    # Compiling takes a while for every network. It changes the last bits of a result, nothing else.
    compile: bool = False

    # Folder with MNIST/raw, cifar10, …. Default: $POLARITY_DATA, else ./data.
    data_root: Path | None = None

    # Let torchvision fetch data that is missing.
    download: bool = False

    # Folder of result files and plots. Finished runs found there are skipped.
    out: Path = Path("runs/sign_in")

    # Processes that work at once.
    jobs: int = 1

    # Threads of one run. Default: 1 for resnet8 to resnet32, whose layers are too small to share,
    # else the cores divided by the jobs. It changes the last bits of a result, nothing else.
    threads: int | None = None

    # No progress.
    quiet: bool = False

    # Draw figures into the out folder.
    plot: bool = True


def configurations(options: SignInOptions) -> list[SignInConfig]:
    """The runs that options ask for; seed by seed, so that a part of the sweep is a result too."""
    named = SIGN_IN[
        options.recipe
        or ("cifar100-resnet18" if options.dataset == "cifar100" else "cifar10-resnet20")
    ]
    scaled = named.scaled(named.plain.epochs if options.epochs is None else options.epochs)
    augment = options.augment
    recipe = replace(
        scaled.plain,
        augment=options.dataset.startswith("cifar") if augment is None else augment,
        **_given(options),
    )
    until = options.rescale_until or scaled.part.until
    arch = options.arch or ARCHS.get(options.dataset, "resnet8")
    runs = [
        _configuration(options, recipe, arch, method, density, period, until, seed)
        for seed in options.seeds
        for density in options.densities
        for method in options.methods
        for period in options.rescale_periods
    ]
    return list(dict.fromkeys(runs))


def _configuration(
    options: SignInOptions,
    recipe: Recipe,
    arch: NetworkName,
    method: Method,
    density: float,
    period: int,
    until: int,
    seed: int,
) -> SignInConfig:
    rescaled, factors = method.endswith("sign_in"), "+" in method
    mask = method.split("+")[0]
    return SignInConfig(
        dataset=options.dataset,
        arch=arch,
        width=options.width,
        stem_stride=options.stem_stride,
        method=method,
        density=density,
        densities=options.layers if mask == "random" else None,
        score_images=options.score_images if mask in ("snip", "grasp") else None,
        seed=seed,
        epochs=recipe.epochs,
        batch_size=recipe.batch_size,
        optimizer=recipe.optimizer,
        lr=recipe.lr,
        momentum=recipe.momentum,
        # As in both CIFAR rows of Table 7.
        weight_decay=0.0 if factors else recipe.weight_decay,
        schedule=recipe.schedule,
        label_smoothing=recipe.label_smoothing,
        augment=recipe.augment,
        beta=options.beta if factors else None,
        rescale_period=period if rescaled else None,
        rescale_until=until if rescaled else None,
        rescale_momentum=options.rescale_momentum if rescaled else None,
        frobenius_decay=recipe.weight_decay if factors else None,
        sharpness_images=options.sharpness_images,
        sharpness_every=options.sharpness_every,
        train_size=options.train_size,
        test_size=options.test_size,
        device=_device(options.device),
        bf16=options.bf16,
        channels_last=options.channels_last,
    )


def main(options: SignInOptions) -> int:
    """Runs the sweep, prints its tables beside the published numbers and gives the exit code."""
    problems = _problems(options)
    if problems:
        return _refuse("; ".join(problems))
    # Not before here: torch is slow to import, and --help shall not wait for it.
    from benchmarks.harness.place import Place
    from benchmarks.papers.sign_in.sweep import result_file, sweep

    place = Place(
        options.out,
        options.data_root,
        options.download,
        threads=options.threads,
        compile=options.compile,
    )
    try:
        configs = configurations(options)
        outcomes = sweep(configs, place, jobs=options.jobs, quiet=options.quiet)
    except (ValueError, FileNotFoundError) as error:
        return _refuse(str(error))
    paths = [path for config in configs if (path := result_file(options.out, config)).is_file()]
    if paths:
        from benchmarks.harness.results import read_result
        from benchmarks.papers.sign_in.report import markdown_report

        section = markdown_report(
            [read_result(path) for path in paths], options.out if options.plot else None
        )
        print(section.text)
        for path in section.plots:
            print(f"plot: {path}")
    failed = [outcome for outcome in outcomes if outcome.failure is not None]
    for outcome in failed:
        print(f"\nFAILED {outcome.run_id}\n{outcome.failure}", file=sys.stderr)
    if failed:
        print(f"{len(failed)} of {len(configs)} runs failed", file=sys.stderr)
    return 1 if failed else 0


def _given(options: SignInOptions) -> dict[str, object]:
    names = ("batch_size", "lr", "weight_decay", "optimizer", "schedule")
    return {name: value for name in names if (value := getattr(options, name)) is not None}


def _problems(options: SignInOptions) -> list[str]:
    problems = []
    if not (options.methods and options.densities and options.seeds and options.rescale_periods):
        problems.append("at least one method, density, seed and rescale period are needed")
    if not all(0 < density <= 1 for density in options.densities):
        problems.append("--densities are fractions above 0 and at most 1")
    counts = (options.epochs, options.batch_size, options.rescale_until, options.threads)
    if min(options.jobs, *options.rescale_periods, *(n for n in counts if n is not None)) < 1:
        problems.append(
            "--epochs, --batch-size, --rescale-periods, --rescale-until, --jobs and --threads "
            "must be at least 1"
        )
    if options.beta <= 0:
        problems.append(f"--beta {options.beta} is not positive")
    if min(options.sharpness_images, options.sharpness_every) < 0:
        problems.append("--sharpness-images and --sharpness-every must not be negative")
    return problems


def _refuse(reason: str) -> int:
    print(f"error: {reason}", file=sys.stderr)
    return 1


def _device(wanted: str) -> str:
    import torch

    available = torch.cuda.is_available()
    if wanted == "cuda" and not available:
        raise ValueError("--device cuda, but torch sees no GPU")
    return "cuda" if available and wanted != "cpu" else "cpu"
