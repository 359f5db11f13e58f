"""What results say of a paper's claims: one word each, by one rule.

A claim is that a difference is positive, and the paper prints how large it is. An interval below
zero contradicts it with any power: if the claim were true, one in forty experiments at most
would give it. Otherwise, where the effect that our seeds could have detected with 80 % power is
larger than the paper's, the claim is not testable at this size: what few seeds find is found too
large. It holds if the 95 % interval lies above zero, and does not hold if the interval lies below
the paper's effect. An interval that holds both decides nothing.
"""

from __future__ import annotations

from collections.abc import Iterable

from .paired import Compared

HOLDS = "holds"
PARTLY = "holds partly"
FAILS = "does not hold"
UNTESTABLE = "not testable at this size"
MISSING = "not run"
WORDS = (HOLDS, PARTLY, FAILS, UNTESTABLE, MISSING)
# What `positive` does, as every paper's page says it.
RULE = """\
A claim *does not hold* if the interval lies below zero. Otherwise it is *not testable at this size*
where the detectable effect exceeds the paper's; it *holds* if the interval lies above zero, and
*does not hold* if it lies below the paper's effect; in between, nothing is decided."""


def word(verdict: str) -> str:
    """Return a verdict without the number of cases that were testable."""
    return verdict.split(" (")[0]


def positive(found: Compared | None, paper: float | None) -> str:
    """Judge the claim that a difference is positive.

    Args:
        found: our difference.
        paper: the paper's; None where it prints none, and the interval alone decides.
    """
    if found is None:
        return MISSING
    if found.low is None or found.high is None:
        return UNTESTABLE
    if found.high < 0:
        return FAILS
    if _blind(found, paper):
        return UNTESTABLE
    if found.low > 0:
        return HOLDS
    return FAILS if paper is not None and found.high < paper else UNTESTABLE


def reaches(
    gain: Compared | None, rest: Compared | None, paper: float, *, allowance: float = 0
) -> str:
    """Judge the claim that one thing is better than a second and no worse than a third.

    It holds partly if it is better than the second and worse than the third.

    Args:
        gain: the difference to the second: positive.
        rest: the difference to the third: not negative.
        paper: the paper's gain.
        allowance: how far below the third the paper says that it may be.
    """
    if gain is None or rest is None:
        return MISSING
    if _blind(gain, paper) or _blind(rest, paper):
        return UNTESTABLE
    if gain.low is None or rest.high is None:
        return UNTESTABLE
    worse = rest.high < -allowance
    if gain.low > 0:
        return PARTLY if worse else HOLDS
    return FAILS if worse else UNTESTABLE


def together(verdicts: Iterable[str]) -> str:
    """Sum up one claim's verdicts: those that are testable decide, and their number is named."""
    run = [verdict for verdict in verdicts if verdict != MISSING]
    testable = [verdict for verdict in run if verdict != UNTESTABLE]
    if not testable:
        return UNTESTABLE if run else MISSING
    word = testable[0] if len(set(testable)) == 1 else PARTLY
    return word if len(testable) == len(run) else f"{word} ({len(testable)} of {len(run)} testable)"


def _blind(found: Compared, paper: float | None) -> bool:
    if found.detectable is None:
        return True
    return paper is not None and found.detectable > paper
