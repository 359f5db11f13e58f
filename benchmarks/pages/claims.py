"""Claims of a paper with what our runs say of them, and their tables."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from .markdown import NONE, markdown
from .verdicts import FAILS, HOLDS, MISSING, PARTLY, UNTESTABLE, WORDS, together, word

# A claim with more cases than this is told by those that came nearest to another verdict.
_MOST = 6


class Number(Protocol):
    """A difference or a share with its interval, and the effect that could have been detected."""

    @property
    def low(self) -> float | None: ...

    @property
    def high(self) -> float | None: ...

    @property
    def detectable(self) -> float | None: ...


@dataclass(frozen=True)
class Case:
    """A claim for one of the things that it is made for: a method, a strategy, a density.

    Attributes:
        name: of the thing.
        verdict: what our runs say.
        gain: the difference that must be positive, or the share of runs that must be the paper's.
        paper: the paper's; None where it prints no number.
        rest: where the claim has a second half, the difference that must not be negative.
        why: what the verdict rests on, where the differences alone do not tell.
    """

    name: str
    verdict: str
    gain: Number | None
    paper: float | None
    rest: Number | None = None
    why: str = ""


@dataclass(frozen=True)
class Claim:
    """A claim of a paper, and what our runs say of it.

    Attributes:
        source: the table or figure.
        text: the claim.
        measure: which difference decides, and in which unit.
        cases: what it is made for.
        key: what tells the claim from the paper's others, where a list of them asks for it.
    """

    source: str
    text: str
    measure: str
    cases: tuple[Case, ...]
    key: str = ""

    @property
    def verdict(self) -> str:
        """All cases together."""
        return together(case.verdict for case in self.cases)


def tally(claims: Sequence[Claim]) -> str:
    """Say how many claims have which verdict."""
    found = Counter(word(claim.verdict) for claim in claims)
    counts = [f"{each}: {found[each]}" for each in WORDS if found[each]]
    claims_of = "claim" if len(claims) == 1 else "claims"
    told = f"The verdicts on {len(claims)} {claims_of}: {'; '.join(counts)}."
    common = _common(claims)
    return f"{told} Of all that were run, for one reason: {common}." if common else told


def claim_table(claims: Sequence[Claim]) -> str:
    """Tabulate the claims with their verdicts and the numbers that decide them."""
    common = _common(claims)
    rows = [
        [claim.source, claim.text, claim.verdict if common else reasoned(claim), _told(claim)]
        for claim in claims
    ]
    return markdown(("paper", "claim", "verdict", "decided by"), rows)


def case_table(claims: Sequence[Claim]) -> str:
    """Tabulate every case of every claim."""
    head = ("claim", "what", "for", "first", "second", "detectable", "paper's first", "verdict")
    rows = []
    for claim in claims:
        for place, case in enumerate(claim.cases):
            named = [f"{claim.source}: {claim.text}", claim.measure] if not place else ["", ""]
            rows.append(
                [
                    *named,
                    case.name,
                    shown(case.gain),
                    shown(case.rest),
                    detectable(case.gain),
                    NONE if case.paper is None else f"{case.paper:+.2f}",
                    f"{case.verdict}: {case.why}" if case.why else case.verdict,
                ]
            )
    return markdown(head, rows)


def reasoned(claim: Claim) -> str:
    """Write a claim's verdict, with the reason where all of its cases have the same."""
    reason = _reason(claim)
    return f"{claim.verdict}: {reason}" if reason else claim.verdict


def _reason(claim: Claim) -> str:
    reasons = {case.why for case in claim.cases if case.verdict != MISSING}
    (reason,) = reasons if len(reasons) == 1 else ("",)
    return reason


def _common(claims: Sequence[Claim]) -> str:
    """Return the reason of all verdicts, where several claims have one and the same."""
    ran = [claim for claim in claims if claim.verdict != MISSING]
    reasons = {_reason(claim) for claim in ran}
    return reasons.pop() if len(ran) > 1 and len(reasons) == 1 else ""


def shown(found: Number | None) -> str:
    """Write a difference with its interval."""
    return NONE if found is None else str(found)


def detectable(found: Number | None) -> str:
    """Write the effect that could have been detected."""
    return NONE if found is None or found.detectable is None else f"{found.detectable:.2f}"


def deciding(claim: Claim, most: int) -> tuple[str, Sequence[Case]]:
    """Return the cases to tell of a claim, and if there are more than `most` how all came out."""
    ran = [case for case in claim.cases if case.verdict != MISSING]
    if len(ran) <= most:
        return "", ran
    counts = Counter(case.verdict for case in claim.cases)
    return f"{', '.join(f'{count} {each}' for each, count in counts.items())}; ", closest(claim)


def _told(claim: Claim) -> str:
    counts, cases = deciding(claim, _MOST)
    return f"{counts}{'closest: ' if counts else ''}{'; '.join(map(decider, cases))}" or MISSING


def decider(case: Case) -> str:
    """Write the numbers of a case that decide it, and what they decide."""
    if case.verdict == MISSING:
        return f"{case.name}: {MISSING}"
    decides = case.rest is not None and case.verdict in (PARTLY, FAILS)
    second = f" and {case.rest}" if decides else ""
    return f"{case.name}: {case.gain}{second}, {case.verdict.removesuffix(' at this size')}"


def closest(claim: Claim) -> list[Case]:
    """Return the cases that decide a claim: of each verdict the one that came nearest to another.

    Where nothing is testable it is the case whose detectable effect is smallest.
    """
    verdict = word(claim.verdict)
    if verdict == MISSING:
        return []
    if verdict == UNTESTABLE:
        known = [case for case in claim.cases if case.gain is not None]
        return sorted(known, key=lambda case: _or_infinite(case.gain, "detectable"))[:1]
    chosen = []
    for each, margin in ((HOLDS, "low"), (PARTLY, "low"), (FAILS, "high")):
        cases = [case for case in claim.cases if case.verdict == each]
        nearness = [abs(_or_infinite(case.gain, margin)) for case in cases]
        if cases:
            chosen.append(cases[nearness.index(min(nearness))])
    return chosen


def _or_infinite(found: Number | None, name: str) -> float:
    value = None if found is None else getattr(found, name)
    return math.inf if value is None else float(value)
