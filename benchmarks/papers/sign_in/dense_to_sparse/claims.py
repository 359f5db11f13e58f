"""The paper's claims around Tables 1, 5 and 10 and Figures 1, 5 and 8, each judged on our runs."""

from __future__ import annotations

from collections.abc import Callable
from statistics import fmean

from ....pages.claims import Case, Claim
from ....pages.paired import Compared, Seeds, Spread, compare
from ....pages.verdicts import positive, reaches
from .config import METHODS
from .summary import (
    DENSITY,
    MASKS,
    NAMES,
    Comparison,
    by_layer,
    paper1,
    paper5,
    paper10,
    table5_densities,
    table10_arms,
)

# "With an error of about 1 %": what the paper allows the signs of epoch 10, in points.
_ABOUT = 1.0


def claims(group: Comparison) -> list[Claim]:
    """Judge every claim."""
    return [*table1_claims(group), *sign_in_claims(group), *flip_claims(group), *_flat(group)]


def table1_case(group: Comparison, method: str, start: str) -> Case:
    """Judge a row of Table 1: signs recover the baseline, magnitudes do not, random starts fail.

    A row of signs must gain over the random start and not stay below the baseline. A row of
    magnitudes must stay below its row of signs and not gain over the random start. The random start
    must stay below the baseline.
    """

    def between(first: str, second: str) -> tuple[Compared | None, float]:
        arms = (f"{method}/{each}" if each else method for each in (first, second))
        starts = first and second
        spread = group.spread_of_starts(method) if starts else group.spread_to_baseline(method)
        ours, theirs = (group.accuracy(arm) for arm in arms)
        paper = paper1(method, first) - paper1(method, second)
        return compare(ours, theirs, spread), paper

    name = NAMES[method]
    if start == "random":
        gain, paper = between("", "random")
        return Case(name, positive(gain, paper), gain, paper)
    if start.startswith("sign"):
        gain, paper = between(start, "random")
        rest, _ = between(start, "")
    else:
        gain, paper = between(start.replace("mag", "sign"), start)
        rest, _ = between("random", start)
    allowance = _ABOUT if start == "sign10" else 0.0
    return Case(name, reaches(gain, rest, paper, allowance=allowance), gain, paper, rest)


def table1_claims(group: Comparison) -> list[Claim]:
    """Judge the claims of Table 1."""
    ten, thirty = (f"epoch {epoch}" for epoch in group.epochs_named.values())
    signs = "accuracy over a random start (points); and over the baseline, not below "
    magnitudes = "signs − magnitudes (points); and random start − magnitudes, not below 0"
    rows = [
        ("sign_final", "Final signs and the mask recover the baseline", f"{signs}0"),
        ("sign30", f"So do the signs of the paper's epoch 30 (ours: {thirty})", f"{signs}0"),
        (
            "sign10",
            f"The signs of epoch 10 (ours: {ten}) recover it to about 1 point",
            f"{signs}−1",
        ),
        ("mag10", "Magnitudes of epoch 10 with random signs do not", magnitudes),
        ("mag_final", "Final magnitudes with random signs do not", magnitudes),
        ("random", "The mask with a random start does not", "baseline − random start (points)"),
    ]
    return [
        Claim("Table 1", text, measure, tuple(table1_case(group, m, start) for m in METHODS))
        for start, text, measure in rows
    ]


def sign_in_claims(group: Comparison) -> list[Claim]:
    """Judge what Tables 5 and 10 say of Sign-In."""
    measure = "accuracy with Sign-In − without (points)"
    return [
        Claim(
            "Table 5",
            "AC/DC improves with Sign-In",
            measure,
            tuple(table5_case(group, density) for density in table5_densities()),
        ),
        Claim(
            "Table 10",
            "Sign-In improves random starts of AC/DC, RigL, SNIP and random masks",
            measure,
            tuple(table10_case(group, mask) for mask in MASKS if paper10_gain(mask) > 0),
        ),
        Claim(
            "Table 10",
            "It does not where the first layers are sparse: STR and SynFlow",
            "accuracy without Sign-In − with (points)",
            tuple(table10_case(group, mask) for mask in MASKS if paper10_gain(mask) <= 0),
        ),
    ]


def table5_case(group: Comparison, density: float) -> Case:
    """Judge a column of Table 5."""
    arms = ("acdc+sign_in", "acdc")
    ours, theirs = (group.accuracy(arm, density) for arm in arms)
    gain = compare(ours, theirs, group.spread5())
    paper = paper5(arms[0], density)[0] - paper5(arms[1], density)[0]
    return Case(f"density {density:g}", positive(gain, paper), gain, paper)


def table10_case(group: Comparison, mask: str) -> Case:
    """Judge a row of Table 10, in the direction that the paper prints for it."""
    plain, with_sign_in = table10_arms(mask)
    gain = compare(group.accuracy(with_sign_in), group.accuracy(plain), group.spread10())
    paper = paper10_gain(mask)
    if paper <= 0:
        gain, paper = None if gain is None else -gain, -paper
    return Case(NAMES[mask], positive(gain, paper), gain, paper)


def flip_claims(group: Comparison) -> list[Claim]:
    """Judge what Figures 1, 5 and 8 say of flips; their numbers are not printed."""
    early, late = "init_to_warmup", "warmup_to_end"
    percent = "% of the survivors"

    def flips(arm: str, key: str) -> Seeds:
        return {seed: 100 * value for seed, value in group.seeds(arm, key).items()}

    def cases(one: Callable[[str], tuple[Seeds, Seeds]]) -> tuple[Case, ...]:
        return tuple(_case(NAMES[method], *one(method)) for method in METHODS)

    plain, sign_in = (group.seeds(a, "flips_cumulative") for a in table10_arms("random"))
    return [
        Claim(
            "Figure 1",
            "Dense-to-sparse training flips most signs before the end of the warm-up",
            f"flips before − after it ({percent})",
            cases(lambda method: (flips(method, early), flips(method, late))),
        ),
        Claim(
            "Figure 1",
            "After it, signs are more stable than in the same mask trained from scratch",
            f"later flips from scratch − in the method ({percent})",
            cases(lambda method: (flips(f"{method}/random", late), flips(method, late))),
        ),
        Claim(
            "Figure 5",
            "With Sign-In more signs flip in a random mask",
            "flips so far per survivor, with Sign-In − without",
            (_case("Random", sign_in, plain),),
        ),
        Claim(
            "Figure 8",
            "With Sign-In, AC/DC flips more signs of later layers after the warm-up",
            f"with Sign-In − without, mean of the later half of the layers ({percent})",
            (_case("AC/DC", _later(group, "acdc+sign_in"), _later(group, "acdc")),),
        ),
    ]


def _flat(group: Comparison) -> list[Claim]:
    measure = "largest Hessian eigenvalue at the end, random mask − "
    random = group.seeds("random", "sharpness")
    return [
        Claim(
            "Figure 5",
            "Dense-to-sparse training ends in flatter minima than a random mask from scratch",
            f"{measure}method",
            tuple(_case(NAMES[m], random, group.seeds(m, "sharpness")) for m in METHODS),
        ),
        Claim(
            "Figure 5",
            "Sign-In finds a flatter minimum of a random mask",
            f"{measure}the same with Sign-In",
            (_case("Random", random, group.seeds("random+sign_in", "sharpness")),),
        ),
    ]


def _case(name: str, more: Seeds, less: Seeds, spread: Spread | None = None) -> Case:
    """Judge a claim for which the paper prints no number: the interval decides."""
    gain = compare(more, less, spread)
    return Case(name, positive(gain, None), gain, None)


def _later(group: Comparison, arm: str) -> Seeds:
    """Return late flips in the later half of the layers, in percent, by seed."""
    results = group.of(arm, DENSITY)
    layers = by_layer(results, "warmup_to_end")
    return {
        result["config"]["seed"]: 100 * fmean(flips[len(flips) // 2 :])
        for result, flips in zip(results, layers, strict=True)
    }


def paper10_gain(mask: str) -> float:
    """Return what Table 10 prints for Sign-In over the plain random start of a mask."""
    return paper10(mask, sign_in=True)[0] - paper10(mask, sign_in=False)[0]
