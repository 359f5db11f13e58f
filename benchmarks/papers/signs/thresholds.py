"""What a threshold of polarity can act on, and what the best of a grid gains by chance."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from ...harness.results import Result
from ...pages.best import best_by_chance
from ...pages.markdown import NONE, markdown
from ...pages.paired import level_spread
from .summary import Sweep
from .zero_crossing import SMALL_PHI

# Their references are trained weights, which are survivors of pruning by magnitude.
BY_TRAINED_WEIGHTS = ("mask0", "standard")


def chance_table(sweep: Sweep) -> str:
    """Tabulate the gain of the best small threshold over zero, and what chance gives.

    The gain is the paper's: of means over seeds, chosen by the test images. If no threshold did
    anything, all would be runs with other seeds, and the best of them would gain this much. Points
    with fewer seeds than zero are left out.
    """
    rows = []
    for strategy in sweep.strategies:
        found = {
            point: sweep.final(strategy, point, "test_accuracy")
            for point in sweep.points
            if abs(sweep.value(point)) <= SMALL_PHI
        }
        zero = found.get(())
        if zero is None:
            continue
        known = {p: each for p, each in found.items() if each and each.count >= zero.count}
        spread = level_spread(sweep.seeds(strategy, point) for point in known)
        if spread is None or len(known) < 2:
            continue
        gain = max(each.mean for each in known.values()) - zero.mean
        chance = best_by_chance(len(known), spread.std / zero.count**0.5)
        rows.append([strategy, f"{gain:.2f}", str(len(known)), str(chance)])
    if not rows:
        return ""
    head = ("strategy", "gain of the best over φ = 0 (points)", "points of the grid")
    return markdown((*head, "by chance"), rows)


def acting_table(results: Sequence[Result]) -> str:
    """Tabulate the smallest survivors, and how many thresholds below them changed nothing.

    `mask0` and `standard` ask for the sign of trained survivors. All of these are larger than the
    smallest one, so that a threshold nearer to zero changes no sign: such a run must be the
    unperturbed one, bit for bit. Machines round differently: only runs of one are compared.

    Args:
        results: runs that differ in strategy, threshold, seed and machine alone.
    """
    rows = []
    for strategy in BY_TRAINED_WEIGHTS:
        mine = [each for each in results if each["config"]["strategy"] == strategy]
        zero = {_twin(each): each for each in mine if not each["config"]["perturbation"]}
        smallest = smallest_survivor(zero.values())
        if smallest is None:
            continue
        below = [each for each in mine if _twin(each) in zero and 0 < _threshold(each) < smallest]
        same = sum(_numbers(result) == _numbers(zero[_twin(result)]) for result in below)
        equal = f"{same} of {len(below)}" if below else NONE
        rows.append([strategy, f"{smallest:.1e}", equal])
    if not rows:
        return ""
    head = ("strategy", "smallest survivor of any layer, round and seed")
    return markdown((*head, "runs with |φ| below it that equal φ = 0 bit for bit"), rows)


def _twin(result: Result) -> tuple[int, str]:
    """Return what a run and the unperturbed one must share to be compared bit for bit."""
    return result["config"]["seed"], json.dumps(result.get("machine"), sort_keys=True)


def _threshold(result: Result) -> float:
    """Return |φ|; zero for unperturbed runs and for other perturbations."""
    perturbation = result["config"]["perturbation"]
    kinds = [kind for kind, _ in perturbation]
    return abs(perturbation[0][1]) if kinds == ["phi"] else 0.0


def smallest_survivor(results: Iterable[Result]) -> float | None:
    """Return the smallest survivor of any layer and round; None where none is recorded."""
    sizes = [
        layer["smallest"]
        for result in results
        for record in result["rounds"]
        for layer in record.get("layers", ())
        if layer.get("smallest") is not None
    ]
    return min(sizes, default=None)


def _numbers(result: Result) -> list[dict[str, object]]:
    """Return all that a run recorded but the time it took."""
    return [
        {key: value for key, value in record.items() if key != "seconds"}
        for record in result["rounds"]
    ]
