"""The runs of a comparison: which networks are found, trained and compared. No torch needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .config import AwsConfig
from .contestants import CONTESTANTS, PARTS


@dataclass(frozen=True)
class Chain:
    """All runs of one seed, in the order in which they need each other."""

    runs: tuple[AwsConfig, ...]

    @property
    def run_id(self) -> str:
        """Name of the chain in messages about its end."""
        first = self.runs[0]
        return f"{first.experiment}-{first.recipe.dataset}-{first.recipe.arch}-seed{first.seed}"


def plan(base: AwsConfig, parts: Sequence[str], at: Sequence[int], barrier_at: int) -> Chain:
    """Return the runs of one seed, each once, in an order that gives whole tables early.

    Args:
        base: the setting and its seed.
        parts: names in `PARTS`.
        at: rounds whose tickets are finally trained.
        barrier_at: round whose networks the barriers are measured between.
    """
    chosen = [PARTS[part] for part in parts]
    everywhere = dict.fromkeys(name for part in chosen for name in part.everywhere)
    once = dict.fromkeys(name for part in chosen for name in part.once)
    pairs = dict.fromkeys(name for part in chosen for name in part.pairs)
    finders = {CONTESTANTS[name].finder for name in (*everywhere, *once)}
    runs = [base.task("final", "dense")]
    runs += [base.task("rounds", str(finder)) for finder in sorted(finders - {None}, key=str)]
    for round in (barrier_at, *at):
        runs += [base.task("final", name, round) for name in everywhere]
    runs += [base.task("final", name, barrier_at) for name in once]
    runs += [base.task("barrier", name, barrier_at) for name in pairs]
    return Chain(tuple(dict.fromkeys(runs)))
