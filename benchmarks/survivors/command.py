"""`python -m benchmarks survivors`: rounds of pruning, timed dense, with masks, and compact."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import tyro

from ..harness.command_line import RunOptions, conduct, too_small
from ..harness.names import DatasetName
from ..harness.settings import same_named
from .config import RunConfig
from .report import describe

if TYPE_CHECKING:
    from ..harness.sweep import Outcome


@dataclass
class SurvivorOptions:
    """Time rounds of magnitude pruning: the dense network, masks, and survivors alone.

    The recipe is that of the Fragility experiment without signs: fc (784-300-100-10 on MNIST),
    Adam, pruning across the network, and initial values for the survivors.
    """

    # Data set. digits (8x8, no download) is too small to gain anything: a sign of life.
    dataset: DatasetName = "mnist"

    # Seeds; each is a run with a result file.
    seeds: tuple[int, ...] = (0, 1, 2)

    # Pruning rounds after the dense training.
    rounds: int = 20

    # Density after round k is prune-base to the power of k: 0.8 ** 20 = 0.012.
    prune_base: float = 0.8

    # Epochs per round.
    epochs: int = 6

    # Learning rate of Adam.
    lr: float = 1.2e-3

    # Batch size.
    batch_size: int = 128

    # Random training images to use instead of all.
    train_size: int | None = None

    # Random test images to use instead of all.
    test_size: int | None = None

    # Where runs take place, and what is shown of them. Times need --jobs 1 and a quiet machine.
    where: tyro.conf.OmitArgPrefixes[RunOptions] = field(default_factory=RunOptions)


def main(options: SurvivorOptions) -> int:
    """Run the seeds, print their tables and draw the figure; gives 0, or 1 where a run failed."""

    def perform() -> tuple[list[RunConfig], list[Outcome]]:
        # Not before here: torch is slow to import, and --help must not wait for it.
        from .sweep import sweep

        configs = configurations(options)
        return configs, sweep(configs, options.where.place())

    return conduct(options.where, _problems(options), perform, describe)


def configurations(options: SurvivorOptions) -> list[RunConfig]:
    """Return one run for each seed."""
    shared = {**same_named(options, RunConfig), "device": options.where.chosen_device()}
    return [RunConfig(**shared, seed=seed) for seed in options.seeds]


def _problems(options: SurvivorOptions) -> list[str]:
    problems = too_small(options, ("epochs", "batch_size"))
    if not options.seeds:
        problems.append("at least one seed is needed")
    if options.rounds < 0:
        problems.append(f"--rounds must not be negative, not {options.rounds}")
    if not 0 < options.prune_base < 1:
        problems.append(f"--prune-base {options.prune_base} is not between 0 and 1")
    if options.where.bf16 or options.where.compile:
        problems.append("--bf16 and --compile are not offered: survivors are timed in plain eager")
    return problems
