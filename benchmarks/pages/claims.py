"""Claims of a paper with what our runs say of them, and their tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from .markdown import NONE, markdown
from .paired import Compared
from .verdicts import FAILS, HOLDS, MISSING, PARTLY, UNTESTABLE, together


@dataclass(frozen=True)
class Case:
    """A claim for one of the things that it is made for: a method, a strategy, a density.

    Attributes:
        name: of the thing.
        verdict: what our runs say.
        gain: the difference that must be positive.
        paper: the paper's; None where it prints no number.
        rest: where the claim has a second half, the difference that must not be negative.
    """

    name: str
    verdict: str
    gain: Compared | None
    paper: float | None
    rest: Compared | None = None


@dataclass(frozen=True)
class Claim:
    """A claim of a paper, and what our runs say of it.

    Attributes:
        source: the table or figure.
        text: the claim.
        measure: which difference decides, and in which unit.
        cases: what it is made for.
    """

    source: str
    text: str
    measure: str
    cases: tuple[Case, ...]

    @property
    def verdict(self) -> str:
        """All cases together."""
        return together(case.verdict for case in self.cases)


def tally(claims: Sequence[Claim]) -> str:
    """Say how many claims have which verdict."""
    found = Counter(claim.verdict.split(" (")[0] for claim in claims)
    words = (HOLDS, PARTLY, FAILS, UNTESTABLE, MISSING)
    counts = [f"{word}: {found[word]}" for word in words if found[word]]
    return f"The verdicts on {len(claims)} claims: {'; '.join(counts)}."


def claim_table(claims: Sequence[Claim]) -> str:
    """Tabulate the claims with their verdicts and the numbers that decide them."""
    rows = [
        [claim.source, claim.text, claim.verdict, "; ".join(map(_decider, claim.cases))]
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
                    case.verdict,
                ]
            )
    return markdown(head, rows)


def shown(found: Compared | None) -> str:
    """Write a difference with its interval."""
    return NONE if found is None else str(found)


def detectable(found: Compared | None) -> str:
    """Write the effect that could have been detected."""
    return NONE if found is None or found.detectable is None else f"{found.detectable:.2f}"


def _decider(case: Case) -> str:
    if case.verdict == MISSING:
        return f"{case.name}: {MISSING}"
    decides = case.rest is not None and case.verdict in (PARTLY, FAILS)
    second = f" and {case.rest}" if decides else ""
    return f"{case.name}: {case.gain}{second}, {case.verdict.removesuffix(' at this size')}"
