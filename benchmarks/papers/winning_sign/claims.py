"""The paper's claims on signed masks, norms, barriers and VGG, each judged on our runs.

A ticket's finder trains its weights for warm-up, rounds and the final training; a fresh network has
the final training alone. Where networks do not converge in that, the longer training is an
advantage by itself. The dense network trained as long as the found ones says how large it is, and a
verdict must survive it. Where it gives a dense network more than any difference of two sparse ones
that Table 2 prints, nothing has converged, and no claim can be tested.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Literal

from ...pages.claims import Case, Claim
from ...pages.paired import Compared, Seeds, Spread, compare, pooled_spread, with_most_seeds
from ...pages.published import transcript
from ...pages.verdicts import FAILS, HOLDS, MISSING, UNTESTABLE, positive
from .contestants import CONTESTANTS
from .summary import Outcomes

# "About", "comparable" and "does not help": a point of accuracy is our bound.
LITTLE = 1.0
_ABOUT = f"within {LITTLE:g} point"
# Every claim by its key: where the paper makes it, and what is judged.
TEXTS = {
    "aws_reaches": ("Table 2, Figure 3", f"init + AWS sign reaches AWS ({_ABOUT})"),
    "lrr_lags": ("Table 2, Figure 3", "init + LRR sign lags behind LRR"),
    "mask_lags": ("Figure 3", "init + LRR mask without signs lags behind LRR"),
    "aws_over_lrr": (
        "Table 2, Figure 3",
        "AWS's signs are better for a fresh network than LRR's",
    ),
    "signs_alone": (
        "Figures 2 and 3",
        f"Where norms start fresh, LRR's mask alone is as good as with its signs ({_ABOUT})",
    ),
    "aws_lrr": ("section 4.2", f"AWS is as good as LRR ({_ABOUT})"),
    "dense": ("abstract", f"init + AWS sign is as good as a dense network ({_ABOUT})"),
    "norms_reach": ("Figure 2", f"init + LRR sign with trained norms reaches LRR ({_ABOUT})"),
    "norms_gain": ("Figure 2", "init + LRR sign is better with trained norms"),
    "norms_barrier": ("Figure 2", "Error barriers are lower with trained norms"),
    "norm_signs": ("appendix A", f"The signs of norms do not help ({_ABOUT})"),
    "noise_barrier": (
        "Figure 3b",
        "The error barrier between two orders of the data is lower with AWS's signs than LRR's",
    ),
    "solution_barrier": (
        "Figure 3c",
        "The error barrier to the ticket's solution is lower with AWS's signs than LRR's",
    ),
    "gem": ("Figure 4", "init + AWS sign is better than Gem-Miner"),
    "vgg": ("appendix B", f"On VGG init + LRR sign reaches LRR ({_ABOUT})"),
}
Side = Literal["first", "second"]
# What must be better, than what, less which bound, and which of the two had the longer training.
_COMPARED: dict[str, tuple[str, str, float, Side | None]] = {
    "aws_reaches": ("init+aws_sign", "aws", LITTLE, "second"),
    "lrr_lags": ("lrr", "init+lrr_sign", 0.0, "first"),
    "mask_lags": ("lrr", "init+lrr_mask", 0.0, "first"),
    "aws_over_lrr": ("init+aws_sign", "init+lrr_sign", 0.0, None),
    "signs_alone": ("init+lrr_mask", "init+lrr_sign", LITTLE, None),
    "aws_lrr": ("aws", "lrr", LITTLE, None),
    # The weights have trained equally long, but the ticket's finder trained before.
    "dense": ("init+aws_sign", "dense", LITTLE, "first"),
    "norms_reach": ("init+lrr_sign+norms", "lrr", LITTLE, "second"),
    "norms_gain": ("init+lrr_sign+norms", "init+lrr_sign", 0.0, None),
    "norm_signs": ("init+lrr_sign+norm_bias", "init+lrr_sign+norm_signs", LITTLE, None),
    "gem": ("init+aws_sign", "gem_miner", 0.0, None),
    "vgg": ("init+lrr_sign", "lrr", LITTLE, "second"),
}
_BARRIERS = {
    "norms_barrier": "barrier of (init + LRR sign) − with trained norms (points of error)",
    "noise_barrier": "barrier of (init + LRR sign) − of (init + AWS sign) (points of error)",
    "solution_barrier": "barrier of (init + LRR sign) − of (init + AWS sign) (points of error)",
}
# The network of Table 2 whose differences ours are compared with.
_PRINTED = {
    "resnet50": "resnet50",
    "small_resnet": "resnet50",
    "resnet20": "resnet50",
    "mobilenet_v2": "mobilenet_v2",
    "mixer_s16": "mlp_mixer",
    "mixer": "mlp_mixer",
}


@dataclass(frozen=True)
class Runs:
    """The runs of one setting, and what two of a seed differ by chance."""

    outcomes: Outcomes

    def seeds(self, name: str, round: int) -> Seeds:
        """Return the final test accuracies of a contestant, by seed."""
        if name == "dense_longer":
            found = self.outcomes.runs("final", name)
        else:
            found = self.outcomes.runs("final", name, 0 if name == "dense" else round)
        return {seed: float(result["test_accuracy"]) for seed, result in found.items()}

    def barriers(self, pair: str) -> Seeds:
        """Return the error barriers of a pair, by seed."""
        found = self.outcomes.runs("barrier", pair)
        return {seed: float(result["barrier"]) for seed, result in found.items()}

    @cached_property
    def spread(self) -> Spread | None:
        """The spread of a difference of two contestants, pooled over all rounds."""
        return pooled_spread(
            with_most_seeds(
                self.seeds(name, round) for name in CONTESTANTS if CONTESTANTS[name].finder
            )
            for round in self.outcomes.rounds
        )

    @cached_property
    def longer(self) -> Compared | None:
        """What a dense network gains by training as long as the found ones."""
        return compare(self.seeds("dense_longer", 0), self.seeds("dense", 0), self.spread)

    def density(self, round: int) -> str:
        """Write the remaining ratio of a round."""
        return f"{self.outcomes.density(round):.3f}"

    def printed(self, name: str, other: str, round: int) -> float | None:
        """Return the difference in Table 2 at the nearest remaining ratio; None without one."""
        network = _PRINTED.get(self.outcomes.arch)
        if network is None:
            return None
        table = transcript("find_a_winning_sign")["table2_imagenet_top1"][network]
        ratio = min(
            (key for key in table if key != "dense"),
            key=lambda key: abs(float(key) - self.outcomes.density(round)),
        )
        values = [
            table["dense"] if each == "dense" else table[ratio].get(each) for each in (name, other)
        ]
        return None if None in values else float(values[0][0] - values[1][0])


def claims(outcomes: Outcomes) -> list[Claim]:
    """Judge the claims that the paper makes for networks of this kind."""
    runs = Runs(outcomes)
    chosen = ("vgg",) if "vgg" in outcomes.arch else [key for key in TEXTS if key != "vgg"]
    return [_converged(runs, _claim(runs, key)) for key in chosen]


def _claim(runs: Runs, key: str) -> Claim:
    """Judge a claim at every remaining ratio that has runs of it, or at the barriers' one."""
    source, text = TEXTS[key]
    if key.endswith("_barrier"):
        return Claim(source, text, _BARRIERS[key], _barrier_cases(runs, key), key)
    first, second, bound, favoured = _COMPARED[key]
    labels = [f"({CONTESTANTS[name].label})" for name in (first, second)]
    measure = " − ".join(labels) + (f" + {bound:g}" if bound else "")
    cases = [
        _equal(runs, first, second, round, bound)
        if favoured is None
        else _unequal(runs, first, second, round, bound, favoured)
        for round in runs.outcomes.rounds
    ]
    ran = [case for case in cases if case.verdict != MISSING]
    return Claim(source, text, f"accuracy, {measure} (points)", tuple(ran or cases[:1]), key)


def _converged(runs: Runs, claim: Claim) -> Claim:
    """Take all verdicts back where a dense network is far from what longer training gives it."""
    longer = runs.longer
    if longer is None or longer.low is None or longer.low < largest_printed():
        return claim
    why = f"underfitted: a dense network gains {longer} by training as long as LRR's and AWS's"
    cases = tuple(
        case if case.verdict == MISSING else replace(case, verdict=UNTESTABLE, why=why)
        for case in claim.cases
    )
    return replace(claim, cases=cases)


@cache
def largest_printed() -> float:
    """Return the largest difference of two sparse networks that Table 2 prints at one ratio."""
    table = transcript("find_a_winning_sign")["table2_imagenet_top1"]
    accuracies = [
        [mean for mean, _ in methods.values()]
        for network in table.values()
        for ratio, methods in network.items()
        if ratio != "dense"
    ]
    return max(max(each) - min(each) for each in accuracies)


def _barrier_cases(runs: Runs, key: str) -> tuple[Case, ...]:
    """Compare barriers; Figures 2 and 3 print no numbers."""
    if key == "norms_barrier":
        low = "init+lrr_sign+norms"
        told = {"noise": "between two orders of the data", "solution": "to the ticket's solution"}
        return tuple(
            _barrier(runs, f"{kind}:init+lrr_sign", f"{kind}:{low}", name)
            for kind, name in told.items()
        )
    kind = key.removesuffix("_barrier")
    return (_barrier(runs, f"{kind}:init+lrr_sign", f"{kind}:init+aws_sign"),)


def _equal(runs: Runs, first: str, second: str, round: int, bound: float = 0.0) -> Case:
    """Judge that the first is better, less the bound; both have had the same training."""
    gain = compare(_raised(runs.seeds(first, round), bound), runs.seeds(second, round), runs.spread)
    paper = None if bound else runs.printed(first, second, round)
    return Case(runs.density(round), positive(gain, paper), gain, paper)


def _unequal(runs: Runs, first: str, second: str, round: int, bound: float, favoured: Side) -> Case:
    """Judge that the first is better, less the bound, where one of them has trained for longer.

    Args:
        runs: the runs.
        first: what must be better.
        second: what it is compared with.
        round: the ticket's round.
        bound: what the claim allows the first to lack.
        favoured: which of the two had the longer training, its own or its ticket's. A verdict in
            its favour must survive what longer training gives to a dense network.
    """
    ours, theirs = _raised(runs.seeds(first, round), bound), runs.seeds(second, round)
    gain = compare(ours, theirs, runs.spread)
    paper = None if bound else runs.printed(first, second, round)
    verdict = positive(gain, paper)
    in_favour = HOLDS if favoured == "first" else FAILS
    case = Case(runs.density(round), verdict, gain, paper)
    if gain is None or verdict != in_favour:
        return case
    if runs.longer is None:
        why = "no dense network was trained as long as the found ones"
        return Case(case.name, UNTESTABLE, gain, paper, why=why)
    corrected = _corrected(runs, ours, theirs, 1.0 if favoured == "second" else -1.0)
    if positive(corrected, paper) == verdict:
        return case
    why = f"a dense network gains {runs.longer} by training as long"
    return Case(case.name, UNTESTABLE, gain, paper, why=why)


def _corrected(runs: Runs, ours: Seeds, theirs: Seeds, sign: float) -> Compared | None:
    """Compare with what longer training gives a dense network taken from the favoured side."""
    longer, dense = runs.seeds("dense_longer", 0), runs.seeds("dense", 0)
    shifted = {
        seed: value + sign * (longer[seed] - dense[seed])
        for seed, value in ours.items()
        if seed in longer and seed in dense
    }
    # Two differences vary by more than one.
    spread = runs.spread and Spread(math.sqrt(2) * runs.spread.std, runs.spread.freedom)
    return compare(shifted, theirs, spread)


def _barrier(runs: Runs, high: str, low: str, name: str | None = None) -> Case:
    # A high barrier varies by far more than a low one, so nothing is pooled.
    gain = compare(runs.barriers(high), runs.barriers(low))
    round = runs.outcomes.barrier_round
    named = name or (runs.density(round) if round else "all")
    return Case(named, positive(gain, None), gain, None)


def _raised(seeds: Seeds, by: float) -> Seeds:
    return {seed: value + by for seed, value in seeds.items()}
