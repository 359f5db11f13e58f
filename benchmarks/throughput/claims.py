"""What the timings say of a claim on cost: "m⊙w adds roughly 5 % training time"."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from ..pages.claims import Case, Claim
from ..pages.published import transcript
from ..pages.stated import Judged, Stated
from ..pages.verdicts import HOLDS, UNTESTABLE

# "Roughly 5 %": up to half as much again is our bound.
_ROUGHLY = 7.5
_GROUP = "training step with Sign-In: "
_OURS = "polarity Sign-In"


@dataclass(frozen=True)
class Timed:
    """How much longer a step takes, in percent, with the quartiles of the rounds.

    Attributes:
        median: of the rounds.
        low: lower quartile.
        high: upper quartile.
        detectable: quartiles are no interval of a mean, and tell no such effect.
    """

    median: float
    low: float
    high: float
    detectable: float | None = None

    def __str__(self) -> str:
        return f"{self.median:+.1f} % (quartiles {self.low:+.1f} to {self.high:+.1f})"


def stated(results: Path) -> list[Stated]:
    """Return the claim on the cost of Sign-In, with what each file of timings says of it."""
    judged = []
    for path in sorted(results.glob("*.json")):
        cases = tuple(_cases(path))
        if cases:
            text = "One step with Sign-In takes little longer than the dense step"
            claim = Claim("section 4", text, "time added to a dense step", cases)
            scale = f"timings, {path.stem.replace('-', ', ').replace(', threads', ' threads')}"
            departs = () if any("ResNet-50" in case.name for case in cases) else ("no ResNet-50",)
            judged.append(Judged(claim, scale, departs, "throughput.md", len(cases)))
    text = transcript("sign_in_to_the_lottery")["cost_claim"]
    return [Stated("section 4", text, "ImageNet, ResNet-50, a GPU", tuple(judged))]


def _cases(path: Path) -> list[Case]:
    """Judge the rows of a file; none but a ResNet-50 on a GPU can decide the claim."""
    result = json.loads(path.read_text(encoding="utf-8"))
    gpu = str(result["machine"].get("device", "cpu")) != "cpu"
    cases = []
    for row in result["rows"]:
        if not row["group"].startswith(_GROUP) or row.get("what") != _OURS:
            continue
        low, high = row["ratio_quartiles"]
        found = Timed(*(100 * (ratio - 1) for ratio in (row["ratio"], low, high)))
        name = row["group"].removeprefix(_GROUP)
        decides = gpu and "ResNet-50" in name
        verdict = HOLDS if decides and found.high <= _ROUGHLY else UNTESTABLE
        why = "" if decides else "no ResNet-50 was timed on a GPU"
        cases.append(Case(name, verdict, found, 5.0, why=why))
    return cases
