"""`python -m benchmarks zero_crossing untrained`: the smallest survivors of fresh networks."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from ....harness.command_line import RunOptions, conduct
from ....harness.names import Init
from ..config import Scope
from .config import NETWORKS, UntrainedConfig
from .report import describe

if TYPE_CHECKING:
    from ....harness.sweep import Outcome


@dataclass
class UntrainedOptions:
    """The smallest survivors of fresh networks, pruned by magnitude as in round 1.

    The networks of both sign papers; nothing is trained and no data is read. It takes some minutes.
    """

    # Seeds of the initialisation; fragility and zero_crossing train the same networks.
    seeds: tuple[int, ...] = (0, 1, 2)

    # Density after the first round. Default: the papers'.
    prune_base: float = 0.8

    # Compare magnitudes across the network (global) or within each layer (layer). Not in the
    # papers; the experiments' default is global.
    scopes: tuple[Scope, ...] = ("global", "layer")

    # Initialise as PyTorch does too, further to the experiments' defaults (glorot_normal, for VGG
    # kaiming_normal). Not in the papers.
    torch_init: bool = True

    # Where networks are pruned, and what is shown of them.
    where: tyro.conf.OmitArgPrefixes[RunOptions] = field(
        default_factory=lambda: RunOptions(out=Path("runs/untrained"))
    )


def main(options: UntrainedOptions) -> int:
    """Prune the networks and print their table; gives 0, or 1 where one failed."""

    def perform() -> tuple[list[UntrainedConfig], list[Outcome]]:
        # Not before here: torch is slow to import, and --help must not wait for it.
        from ....harness.untrained import compute
        from .run import measure

        configs = configurations(options)
        return configs, compute(configs, options.where.place(), measure)

    return conduct(options.where, _problems(options), perform, describe)


def configurations(options: UntrainedOptions) -> list[UntrainedConfig]:
    """Return the networks of every seed, with the experiments' initialisation first."""
    from ....models import default_init

    more: tuple[Init, ...] = ("torch",) if options.torch_init else ()
    return [
        UntrainedConfig(
            dataset=dataset,
            arch=arch,
            init=init,
            prune_base=options.prune_base,
            prune_scope=scope,
            seed=seed,
            device=options.where.chosen_device(),
        )
        for dataset, arch in NETWORKS
        for init in (default_init(arch), *more)
        for scope in dict.fromkeys(options.scopes)
        for seed in dict.fromkeys(options.seeds)
    ]


def _problems(options: UntrainedOptions) -> list[str]:
    problems = []
    if not (options.seeds and options.scopes):
        problems.append("at least one seed and one scope are needed")
    if not 0 < options.prune_base < 1:
        problems.append(f"--prune-base {options.prune_base:g} is not between 0 and 1")
    if options.where.bf16 or options.where.compile:
        problems.append("--bf16 and --compile are not offered: nothing is trained")
    return problems
