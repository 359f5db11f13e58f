"""The claims as the papers state them, each with the verdicts of all runs that bear on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from .cells import PAPER_SCALE, PROXY
from .claims import Case, Claim, deciding, detectable, reasoned
from .markdown import NONE, markdown
from .paired import Compared
from .verdicts import MISSING, UNTESTABLE, word

# A claim with more cases than this is shown by those that decide it.
_SHOWN = 3


@dataclass(frozen=True)
class Judged:
    """A claim as one group of runs judges it.

    Attributes:
        claim: the claim with its cases.
        scale: what was run, in a few words.
        departs: every setting that the paper gives otherwise; none at the paper's scale.
        page: the page that shows it.
        runs: how many runs the group has.
    """

    claim: Claim
    scale: str
    departs: tuple[str, ...]
    page: str
    runs: int = 0


@dataclass(frozen=True)
class Stated:
    """A claim of a paper, for one of the data sets that it is made for.

    Attributes:
        source: where in the paper.
        text: the claim.
        place: the data set and network that it is made for.
        judged: what groups of runs say of it.
    """

    source: str
    text: str
    place: str
    judged: tuple[Judged, ...] = ()

    @property
    def leading(self) -> Judged | None:
        """The group that decides: of those that ran it, the one nearest to the paper's scale."""
        ran = [each for each in self.judged if each.claim.verdict != MISSING]
        return min(ran, key=lambda each: (len(each.departs), -each.runs), default=None)

    @property
    def verdict(self) -> str:
        """The verdict of the group that decides."""
        return MISSING if self.leading is None else self.leading.claim.verdict


def verdict_counts(stated: Sequence[Stated]) -> Counter[str]:
    """Count the claims of each verdict."""
    return Counter(word(each.verdict) for each in stated)


def stated_table(stated: Sequence[Stated]) -> str:
    """Tabulate claims with their verdicts, the numbers that decide them, and at which scale.

    What a verdict rests on beyond the numbers stands below the table, once for all claims.
    """
    rows, before = [], ""
    notes: dict[str, int] = {}
    for each in _merged(stated):
        claim = f"{each.source}: {each.text}"
        row = ["" if claim == before else claim, each.place]
        before = claim
        leading = each.leading
        if leading is None:
            rows.append([*row, f"**{each.verdict}**", NONE, NONE, NONE])
            continue
        reason = _reason(leading.claim)
        mark = f" ({notes.setdefault(reason, len(notes) + 1)})" if reason else ""
        decided, effect = _decided(leading.claim)
        kind = PROXY if leading.departs else PAPER_SCALE
        row += [f"**{each.verdict}**{mark}", decided, effect]
        rows.append([*row, f"{kind}: [{leading.scale}]({leading.page})"])
    head = ("claim", "for", "verdict", "decided by", "detectable", "judged on")
    lines = "\n".join(f"- ({number}) {note}." for note, number in notes.items())
    return f"{markdown(head, rows)}\n\n{lines}" if notes else markdown(head, rows)


def _reason(claim: Claim) -> str:
    """Return what a verdict rests on beyond the numbers; empty where they tell."""
    seeds = [case.gain.half is None for case in claim.cases if isinstance(case.gain, Compared)]
    if word(claim.verdict) == UNTESTABLE and seeds and all(seeds):
        return "a single seed has no spread, and an interval needs one"
    return reasoned(claim).removeprefix(claim.verdict).removeprefix(": ")


def _merged(stated: Sequence[Stated]) -> list[Stated]:
    """Put the places of a claim where nothing was run into one row."""
    found: list[Stated] = []
    for each in stated:
        last = found[-1] if found else None
        missing = each.leading is None and last is not None and last.leading is None
        if missing and last is not None and (last.source, last.text) == (each.source, each.text):
            found[-1] = replace(last, place=f"{last.place}; {each.place}")
        else:
            found.append(each)
    return found


def _decided(claim: Claim) -> tuple[str, str]:
    """Write the cases that decide a claim, and the effects that could have been detected."""
    counts, cases = deciding(claim, _SHOWN)
    if not cases:
        return NONE, NONE
    first = f"{counts}closest " if counts else ""
    written = "; ".join(map(_written, cases))
    effects = dict.fromkeys(detectable(case.gain) for case in cases)
    return f"{claim.measure}: {first}{written}", "; ".join(effects)


def _written(case: Case) -> str:
    second = f" and {case.rest}" if case.rest is not None else ""
    paper = "" if case.paper is None else f" (paper {case.paper:+.2f})"
    return f"{case.name} {case.gain}{second}{paper}"
