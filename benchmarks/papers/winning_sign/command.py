"""Find a Winning Sign: may any initialisation win with the right mask and the right signs?

Claim. The signed mask of a sparse network that learning-rate rewinding (LRR) found does not help a
fresh random network, unless the trained normalisation parameters come along. AWS is LRR with the
normalisation parameters drawn, at every training forward, between their trained and their initial
values. Its signed mask makes any random network train to about the accuracy of the AWS solution,
in the same basin: error barriers are low between two trainings of it, and to the AWS solution.

Grid. Warm-up, then rounds that prune 20 % of the survivors by global magnitude, at a constant
learning rate with a new optimizer each; then a final training with the full schedule. Six networks
are trained at each density (Figure 3): dense, the LRR and AWS networks from where they are, and a
fresh initialisation with LRR's signs, with AWS's signs, with LRR's mask alone. Barriers belong to
round 11, density 0.8^11 = 0.086, the paper's "approximately 0.09". Beside them: trained norms kept
(Figure 2), signs of norms (appendix A), VGG (appendix B), Gem-Miner (Figure 4).

Expected. Test accuracy on ImageNet (Table 2), of the papers' networks nearest to ours:

| | remaining | dense | LRR | AWS | init + LRR sign | init + AWS sign |
|---|---|---|---|---|---|---|
| ResNet-50 | 0.27 | 75.26 | 75.11 | 74.48 | 73.20 | 74.65 |
| ResNet-50 | 0.14 | 75.26 | 74.58 | 73.63 | 71.94 | 73.65 |
| MLP-Mixer | 0.21 | 59.57 | 59.18 | 59.23 | 57.54 | 59.17 |
| MLP-Mixer | 0.11 | 59.57 | 58.61 | 58.77 | 56.91 | 58.62 |

For CIFAR-100 and Tiny-ImageNet the paper prints curves and no numbers.

Where ours differ. Data, networks and epochs are far smaller, as each section says: this shows how
the experiment runs and what it gives at this size, not the paper's numbers. A final training of 8
epochs does not converge, so networks that were found over many epochs have an advantage over those
that begin at an initialisation, which the paper's 100 epochs hardly leave them: compare fresh
networks with each other and with dense, LRR and AWS with the dense network trained as long. The
small recipes end in a cosine, the paper's divides the learning rate by 10 twice. The classifier is
neither pruned nor counted nor given signs (the official code leaves it unpruned but does transfer
its signs and those of biases: `--official-signs`). A ticket is taken after the training that
follows its last pruning, as in the official code; Algorithm 1 takes it just before. Barriers
interpolate every parameter and compute batch-norm statistics anew at each point from un-augmented
training images. SGD-noise stability is measured as the paper defines it (one start, two orders of
the data) and as the official script does (two initialisations as well). Gem-Miner spends the epochs
that LRR spends; the learning rate of its scores is the best of 0.1, 1 and 10 in a trial with seed
0; see `benchmarks/papers/winning_sign/gem_miner.py` for what else had to be decided.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from benchmarks.papers.signs.config import DatasetName
from benchmarks.papers.winning_sign.config import AwsArch, AwsConfig
from benchmarks.papers.winning_sign.recipes import choose_recipe

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

    # Data set. The paper: CIFAR-100, Tiny-ImageNet, ImageNet. cifar100 is read where it is there.
    dataset: DatasetName = "cifar10"

    # Network. For a CPU: small_resnet (ResNet-8 whose stem halves the image, batch norm), mixer
    # (three blocks, width 64, LayerNorm), small_vgg (VGG-11 with an eighth of the channels). The
    # paper's: resnet50, mobilenet_v2, shufflenet_v2, efficientnet_b0, mixer_s16, vgg11_bn,
    # resnet32.
    arch: AwsArch = "small_resnet"

    # Training settings: `small` (ours, for a CPU: 3 epochs of warm-up, 14 rounds of 1 epoch, 8
    # epochs of final training), `paper` (the paper's for this data set and network), or a name:
    # cifar100-, tiny_imagenet- or imagenet- and the network.
    recipe: str = "small"

    # What to compute. six: Figure 3 and Table 2; norms: Figure 2; norm_signs: appendix A;
    # gem_miner: Figure 4; rewinding: IMP and weight rewinding, which the paper only discusses.
    parts: tuple[Part, ...] = ("six", "norms", "norm_signs", "gem_miner")

    # Seeds. The paper runs 3 trials. A seed sets initialisations, batch orders and augmentation.
    seeds: tuple[int, ...] = (0, 1, 2)

    # Pruning rounds of 20 percent. Default: the recipe's (small 14, official scripts 15 or 10).
    rounds: int | None = None

    # Rounds whose tickets are finally trained. Default: 5, 8, 11 and 14 where there are so many,
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

    # Work with a random subset of that many training images. Default: 4000 with the recipe small,
    # else all.
    train_size: int | None = None

    # Work with a random subset of that many test images. Default: 2000 with the recipe small,
    # else all.
    test_size: int | None = None

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

    # Where to compute; auto takes a GPU where there is one.
    device: Literal["auto", "cpu", "cuda"] = "auto"

    # Run forward passes in bfloat16.
    bf16: bool = False

    # Train through torch.compile; on a GPU, forward and backward are then captured as CUDA graphs.
    # Compiling takes a while for every network. It changes the last bits of a result, nothing else.
    compile: bool = False

    # Folder with MNIST/raw, cifar10, cifar100. Default: $POLARITY_DATA, else ./data.
    data_root: Path | None = None

    # Let torchvision fetch data that is missing.
    download: bool = False

    # Folder of result files, networks and plots. Finished runs found there are skipped,
    # interrupted ones go on at their last round.
    out: Path = Path("runs/winning_sign")

    # Processes that work at once, one seed each.
    jobs: int = 1

    # Threads of one process.
    threads: int = 1

    # Say nothing about single runs.
    quiet: bool = False

    # Draw the figures into the out folder.
    plot: bool = True


def main(options: WinningSignOptions) -> int:
    """Runs the comparison, prints its tables, draws it, and gives the exit code."""
    problem = _problem(options)
    if problem:
        return _refuse(problem)
    try:
        # Not before here: torch is slow to import, and --help shall not wait for it.
        from benchmarks.harness.place import Place
        from benchmarks.papers.winning_sign.report import group_markdown
        from benchmarks.papers.winning_sign.store import read_known
        from benchmarks.papers.winning_sign.sweep import plan, seeds_of, sweep

        base, at, barrier_at = configuration(options)
        place = Place(
            options.out,
            options.data_root,
            options.download,
            threads=options.threads,
            compile=options.compile,
        )
        bases = seeds_of(base, options.seeds)
        failures = sweep(
            bases,
            place,
            parts=options.parts,
            at=at,
            barrier_at=barrier_at,
            jobs=options.jobs,
            quiet=options.quiet,
        )
    except (ValueError, FileNotFoundError) as error:
        return _refuse(str(error))
    runs = [run for each in bases for run in plan(each, options.parts, at, barrier_at)]
    results = read_known(options.out, runs)
    if results:
        text, figures = group_markdown(results, options.out if options.plot else None)
        print(text)
        for path in figures:
            print(f"plot: {path}")
    for failure in failures:
        print(f"\nFAILED\n{failure}", file=sys.stderr)
    return 1 if failures else 0


def configuration(options: WinningSignOptions) -> tuple[AwsConfig, Sequence[int], int]:
    """The setting that options ask for with the first seed, its rounds, and that of the barriers.

    Raises:
        ValueError: An unknown recipe, or a round that does not exist.
    """
    recipe = choose_recipe(options.recipe, options.dataset, options.arch)
    small = options.recipe == "small"
    final = recipe.final
    changes = {"epochs": options.final_epochs, "lr": options.lr, "batch_size": options.batch_size}
    final = replace(final, **{key: value for key, value in changes.items() if value is not None})
    plan = {
        "rounds": options.rounds,
        "warmup_epochs": options.warmup_epochs,
        "round_epochs": options.round_epochs,
    }
    recipe = replace(
        recipe, final=final, **{key: value for key, value in plan.items() if value is not None}
    )
    last = recipe.rounds
    at = options.at or tuple(dict.fromkeys(min(k, last) for k in REPORTED))
    barrier_at = options.barrier_at if options.barrier_at is not None else min(BARRIER_ROUND, last)
    for k in (*at, barrier_at):
        if not 1 <= k <= last:
            raise ValueError(f"round {k} (--at, --barrier-at) is not one of 1 to {last}")
    base = AwsConfig(
        recipe,
        seed=options.seeds[0],
        train_size=_size(options.train_size, SMALL_TRAIN, small, options.dataset),
        test_size=_size(options.test_size, SMALL_TEST, small, options.dataset),
        recalibrate=options.recalibrate,
        prune_classifier=options.prune_classifier,
        official_signs=options.official_signs,
        score_lr=options.score_lr,
        score_penalty=options.score_penalty,
        device=_device(options.device),
        bf16=options.bf16,
    )
    return base, at, barrier_at


def _size(asked: int | None, ours: int, small: bool, dataset: str) -> int | None:
    # The digits have fewer images than our subsets of the others.
    return asked if asked is not None or not small or dataset == "digits" else ours


def _problem(options: WinningSignOptions) -> str | None:
    if not options.seeds or not options.parts:
        return "at least one seed and one part are needed"
    counts = ("rounds", "warmup_epochs", "round_epochs", "final_epochs", "batch_size")
    for name in (*counts, "recalibrate", "jobs", "threads"):
        value = getattr(options, name)
        if value is not None and value < 1:
            return f"--{name.replace('_', '-')} must be at least 1, not {value}"
    return None


def _refuse(reason: str) -> int:
    print(f"error: {reason}", file=sys.stderr)
    return 1


def _device(wanted: str) -> str:
    import torch

    available = torch.cuda.is_available()
    if wanted == "cuda" and not available:
        raise ValueError("--device cuda, but torch sees no GPU")
    return "cuda" if available and wanted != "cpu" else "cpu"
