"""The paper's claims on sparse training from scratch (Tables 3, 9, 11, Figure 5), judged."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from statistics import fmean

from ...pages.claims import Case, Claim
from ...pages.paired import Seeds, Spread, compare, pooled_spread, with_most_seeds
from ...pages.published import transcript
from ...pages.verdicts import MISSING, UNTESTABLE, positive
from .summary import Arm, Comparison, label

# Below this fraction of β the inner scaling of m⊙v has worn off, so that a rescale has something to
# restore. Above it Sign-In trains as m⊙v does, and no claim about it can be tested.
WORN = 0.9
_SCORED = ("snip", "synflow")
# Every claim by its key: where the paper makes it, and what it says.
TEXTS = {
    "table3": ("Table 3", "Sign-In improves training with a random mask"),
    "table11": ("Table 11", "Rescaling is essential: m⊙v without it gains less than Sign-In"),
    "table9": ("Table 9", "Sign-In improves SNIP and SynFlow too"),
    "random": ("Table 9", "A random mask is in most cases better than SNIP's and SynFlow's"),
    "flips": ("Figure 5", "With Sign-In more signs flip in a random mask"),
    "flat": ("Figure 5", "Sign-In finds a flatter minimum of a random mask"),
    "rate": ("Control", "Sign-In gains over plain weights at the rate at which m⊙v moves them"),
}


@dataclass(frozen=True)
class Runs:
    """The runs of a group, and what two of a seed differ by chance."""

    group: Comparison

    @cached_property
    def spread(self) -> Spread | None:
        """The spread of a difference in accuracy, pooled over methods of a mask and densities."""
        return self.spread_of("test_accuracy")

    def spread_of(self, key: str) -> Spread | None:
        """Pool the spread of a difference over all tables of one mask and one density."""
        masks = dict.fromkeys(arm[0].split("+")[0] for arm in self.group.arms)
        return pooled_spread(
            with_most_seeds(
                self.seeds(arm, density, key)
                for arm in self.group.arms
                if arm[0].split("+")[0] == mask
            )
            for mask in masks
            for density in self.group.densities
        )

    def arm(self, method: str) -> Arm:
        """Return a method with the rescale period that has most runs."""
        found = (arm for arm in self.group.main_arms if arm[0] == method)
        return next(found, (method, None))

    def seeds(self, arm: Arm, density: float, key: str = "test_accuracy") -> Seeds:
        """Return a number of `final` by seed, where it was measured."""
        return {
            result["config"]["seed"]: float(value)
            for result in self.group.of(arm, density)
            if (value := result["final"].get(key)) is not None
        }

    def left(self, mask: str, density: float) -> float | None:
        """Return the fraction of β that m⊙v has at the end; None where it was not run."""
        found = [
            result["final"]["inner_scaling"]["mean"] / result["config"]["beta"]
            for result in self.group.of((f"{mask}+mv", None), density)
        ]
        return fmean(found) if found else None


def claims(group: Comparison) -> list[Claim]:
    """Judge the claims that the paper makes for runs of this kind."""
    runs = Runs(group)
    masks = dict.fromkeys(arm[0].split("+")[0] for arm in group.arms)
    scored = [mask for mask in _SCORED if mask in masks] or _SCORED
    gain = "accuracy with Sign-In − {} (points)"
    better, flatter = ("random+sign_in", "random"), ("random", "random+sign_in")
    found = {
        "table3": (gain.format("without"), [_gain(runs, *better, d) for d in group.densities]),
        "table11": (
            gain.format("with m⊙v"),
            [_gain(runs, "random+sign_in", "random+mv", d) for d in group.densities],
        ),
        "table9": (
            gain.format("without"),
            [_gain(runs, f"{mask}+sign_in", mask, d) for mask in scored for d in group.densities],
        ),
        "random": (
            "accuracy of the random mask − of the other (points)",
            [_against_random(runs, mask, d) for mask in scored for d in group.densities],
        ),
        "flips": (
            "flips per 100 survivors, with Sign-In − without",
            _measured(runs, "flips_cumulative", better, 100.0),
        ),
        "flat": (
            "largest Hessian eigenvalue at the end, without Sign-In − with",
            _measured(runs, "sharpness", flatter, 1.0),
        ),
        "rate": (
            gain.format("with the rate of m⊙v alone"),
            [_gain(runs, "random+sign_in", "random+matched", d) for d in group.densities],
        ),
    }
    return [
        Claim(*TEXTS[key], measure, tuple(cases), key) for key, (measure, cases) in found.items()
    ]


def _gain(runs: Runs, first: str, second: str, density: float) -> Case:
    ours, theirs = (runs.seeds(runs.arm(method), density) for method in (first, second))
    gain = compare(ours, theirs, runs.spread)
    paper = _printed_gain(runs.group.config["dataset"], first, second, density)
    mask = first.split("+")[0]
    name = f"density {density:g}" if mask == "random" else f"{label((mask, None))}, {density:g}"
    return _worn(runs, mask, density, Case(name, positive(gain, paper), gain, paper))


def _against_random(runs: Runs, mask: str, density: float) -> Case:
    ours, theirs = (runs.seeds((method, None), density) for method in ("random", mask))
    # Masks of two kinds share initialisation and batches, and no rows of one table.
    gain = compare(ours, theirs)
    paper = _printed_gain(runs.group.config["dataset"], "random", mask, density)
    name = f"{label((mask, None))}, {density:g}"
    return Case(name, positive(gain, paper), gain, paper)


def _measured(runs: Runs, key: str, methods: tuple[str, str], factor: float) -> list[Case]:
    """Compare two methods in another number than accuracy, times a factor; none is printed."""
    cases, of_run = [], runs.spread_of(key)
    spread = None if of_run is None else Spread(factor * of_run.std, of_run.freedom)
    for density in runs.group.densities:
        more, less = (
            {s: factor * value for s, value in runs.seeds(runs.arm(m), density, key).items()}
            for m in methods
        )
        gain = compare(more, less, spread)
        case = Case(f"density {density:g}", positive(gain, None), gain, None)
        cases.append(_worn(runs, "random", density, case))
    return cases


def _worn(runs: Runs, mask: str, density: float, case: Case) -> Case:
    """Take the verdict back where m⊙v kept its inner scaling: a rescale had nothing to restore."""
    left = runs.left(mask, density)
    if case.verdict == MISSING or left is None or left < WORN:
        return case
    known = [runs.left(mask, each) for each in runs.group.densities]
    kept = dict.fromkeys(f"{each:.2f}" for each in sorted(filter(None, known)))
    ends = dict.fromkeys([next(iter(kept)), list(kept)[-1]])
    why = (
        f"β̂ keeps {' to '.join(ends)} of β without a rescale, so that one restores next to nothing"
    )
    return Case(case.name, UNTESTABLE, case.gain, case.paper, why=why)


def _printed_gain(dataset: str, first: str, second: str, density: float) -> float | None:
    """Return what the paper prints for a difference; None where it prints none."""
    paper, sparsity = transcript("sign_in_to_the_lottery"), f"{1 - density:.4g}"
    network = {"cifar10": "cifar10_resnet20", "cifar100": "cifar100_resnet18"}.get(dataset)
    rows = dict(paper["table9_pai"].get(network, {}))
    rows["random+mv"] = paper["table11_rescaling"].get(network, {}).get("no_rescale", {})
    if second == "random" and first == "random+sign_in":
        # Table 9 prints another baseline than Table 3, whose gain this is.
        found = paper["table3_random_mask"].get(network, {}).get(sparsity)
        return None if found is None else float(found["sign_in"][0] - found["random"][0])
    ours, theirs = (rows.get(method, {}).get(sparsity) for method in (first, second))
    return None if ours is None or theirs is None else float(ours[0] - theirs[0])
