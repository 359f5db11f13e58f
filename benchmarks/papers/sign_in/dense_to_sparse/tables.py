"""Tables 1, 5 and 10 from our runs, flips and curvature, layerwise densities, STR's search."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from ....harness.results import Result
from ....pages.claims import Case, detectable, shown
from ....pages.estimates import Estimate, estimate
from ....pages.markdown import NONE, markdown
from ....pages.paired import Compared, Seeds, Spread, compare
from .claims import (
    paper10_gain,
    table1_case,
    table5_case,
    table10_case,
)
from .config import METHODS
from .summary import (
    DENSITY,
    MASKS,
    NAMES,
    TABLE1,
    Comparison,
    arm_name,
    by_layer,
    paper1,
    paper5,
    paper10,
    table5_densities,
    table10_arms,
)

# How a mask spreads over layers, by the name of the option.
LAYERS = {"balanced": "balanced", "erk": "ERK", "uniform": "uniform"}
# What every row of Tables 1, 5 and 10 says of its runs.
_RUNS = ("density", "mask updates", "steps")
_COMPARED = ("difference [95 %]", "detectable", "paper's", "verdict")


def table1(group: Comparison) -> str:
    """Tabulate the accuracies of Table 1 in its layout."""
    head = ["start"]
    for method in METHODS:
        head += [NAMES[method], "paper"]
    rows = []
    for start in TABLE1:
        row = [row_name(group, start)]
        for method in METHODS:
            row += [_accuracy(group, _arm(method, start)), f"{paper1(method, start):.2f}"]
        rows.append(row)
    return markdown(head, rows)


def method_table(group: Comparison, method: str) -> str:
    """Tabulate a column of Table 1: differences, the ones that decide, verdicts, and the runs."""
    rows = []
    spread = group.spread_to_baseline(method)
    for start in TABLE1:
        arm = _arm(method, start)
        over, case = NONE, None
        if start:
            over = shown(difference_to_baseline(group, method, start, spread))
            case = table1_case(group, method, start)
        said = [row_name(group, start), _accuracy(group, arm), over, *_case(case)]
        rows.append([*said, *_runs(group, arm, DENSITY), _missing(group, arm)])
    compared = ("over the baseline [95 %]", "decides [95 %]", *_COMPARED[1:])
    return markdown(("start", "accuracy (%)", *compared, *_RUNS, "no value given"), rows)


def growth_table(group: Comparison) -> str | None:
    """Tabulate RigL by how its mask spreads over layers, with how many entries ever grew."""
    layers = group.layers_of_rigl
    if not layers:
        return None
    first = next(iter(layers))
    rows = []
    for name, results in layers.items():
        runs = Comparison(tuple(results))
        compared = None
        if name != first:
            compared = compare(runs.accuracy("rigl"), group.accuracy("rigl"), None)
        rows.append(
            [
                LAYERS.get(name, name),
                _accuracy(runs, "rigl"),
                shown(compared) if compared is not None else NONE,
                *_runs(runs, "rigl", DENSITY),
                _counted(runs, "exchanged"),
                _counted(runs, "ever_grown"),
                _percent(estimate(_ever_grown(result) for result in results)),
            ]
        )
    over = f"over {LAYERS.get(first, first)} [95 %]"
    grew = ("grown in all", "entries that ever grew", "of those pruned at first")
    return markdown(("layers", "accuracy (%)", over, *_RUNS, *grew), rows)


def _ever_grown(result: Result) -> float | None:
    """Return which share of the entries that are pruned at first grew; None if it is not known."""
    grew = result["final"]["ever_grown"]
    pruned = sum(layer["total"] - layer["survivors"] for layer in result["layers"])
    return None if grew is None else float(grew) / pruned


def _counted(group: Comparison, key: str) -> str:
    found = group.final("rigl", key)
    if found is None:
        return NONE
    return f"{found.mean:,.0f} ± {found.std:,.0f}" if found.std else f"{found.mean:,.0f}"


def table5(group: Comparison) -> str:
    """Tabulate AC/DC with and without Sign-In at the densities of Table 5."""
    rows = []
    for density in table5_densities():
        for arm in ("acdc", "acdc+sign_in"):
            case = table5_case(group, density) if "+" in arm else None
            rows.append(
                [
                    f"{density:g}",
                    arm_name(arm),
                    _accuracy(group, arm, density),
                    _printed(*paper5(arm, density)),
                    *_case(case),
                    *_runs(group, arm, density),
                ]
            )
    return markdown(("target", "method", "accuracy (%)", "paper", *_COMPARED, *_RUNS), rows)


def table10(group: Comparison) -> str:
    """Tabulate random starts of six masks, with and without Sign-In, as Table 10 has them."""
    rows = []
    for mask in MASKS:
        for arm, sign_in in zip(table10_arms(mask), (False, True), strict=True):
            rows.append(
                [
                    NAMES[mask],
                    "Random + Sign-In" if sign_in else "Random",
                    _accuracy(group, arm),
                    _printed(*paper10(mask, sign_in=sign_in)),
                    *(table10_cells(group, mask) if sign_in else [NONE] * 4),
                    *_runs(group, arm, DENSITY),
                ]
            )
    return markdown(("mask", "init", "accuracy (%)", "paper", *_COMPARED, *_RUNS), rows)


def _printed(mean: float, std: float | None) -> str:
    """Write a number of the paper, with its deviation where it prints one."""
    return f"{mean:.2f}" if std is None else f"{mean:.2f} ± {std:.2f}"


def table10_cells(group: Comparison, mask: str) -> list[str]:
    """Compare Sign-In with the plain random start of a mask, in the direction with − without."""
    plain, with_sign_in = table10_arms(mask)
    found = compare(group.accuracy(with_sign_in), group.accuracy(plain), group.spread10())
    paper = paper10_gain(mask)
    verdict = table10_case(group, mask).verdict
    return [shown(found), detectable(found), f"{paper:+.2f}", verdict]


def sign_table(group: Comparison) -> str:
    """Tabulate flips by stage, flips per survivor and sharpness of every arm at density 0.1."""
    head = ["arm", "n", "init → k10", "k10 → end", "init → end", "without a sign at init or k10"]
    head += ["flips per survivor", "sharpness at the end"]
    rows = []
    for arm in sign_arms(group):
        stages = [
            group.final(arm, key) for key in ("init_to_warmup", "warmup_to_end", "init_to_end")
        ]
        rows.append(
            [
                arm_name(arm),
                str(len(group.of(arm))),
                *(_percent(found) for found in stages),
                _uncounted(group.of(arm)),
                _number(group.final(arm, "flips_cumulative")),
                _number(group.final(arm, "sharpness")),
            ]
        )
    return markdown(head, rows)


def sign_arms(group: Comparison) -> list[str]:
    """Return the arms whose flips are tabulated, where they have runs."""
    arms = [*METHODS, "acdc+sign_in"]
    for mask in MASKS:
        arms += table10_arms(mask)
    return [arm for arm in arms if group.of(arm)]


def layer_table(group: Comparison) -> str | None:
    """Tabulate the layerwise densities of all masks at density 0.1, as Figure 9 shows them."""
    arms = [arm for arm in mask_arms() if group.of(arm)]
    if not arms:
        return None
    layers = group.of(arms[0])[0]["layers"]
    columns = [
        [fmean(values) for values in zip(*by_layer(group.of(arm), "density"), strict=True)]
        for arm in arms
    ]
    rows = [
        [layer["name"], f"{layer['total']:,}", *(f"{column[place]:.4f}" for column in columns)]
        for place, layer in enumerate(layers)
    ]
    total = sum(layer["total"] for layer in layers)
    rows.append(["all", f"{total:,}", *(_density(group, arm) for arm in arms)])
    return markdown(("layer", "weights", *(arm_name(arm) for arm in arms)), rows)


def mask_arms() -> list[str]:
    """Return the arms that find or choose the masks."""
    return list(MASKS)


def search_table(search: Result) -> str:
    """Tabulate the runs of the search for STR's decay; the chosen one is marked."""
    rows = [
        [
            str(place),
            f"{trial['decay']:.4g}",
            f"{trial['density']:.4f}",
            f"{trial['accuracy']:.2f}",
            "chosen" if trial["decay"] == search["decay"] else "",
        ]
        for place, trial in enumerate(search["trials"], start=1)
    ]
    return markdown(("run", "decay of s", "density", "accuracy (%)", ""), rows)


def row_name(group: Comparison, start: str) -> str:
    """Return the name of a row of Table 1, with our epochs in place of the paper's."""
    what = {"sign": "sign", "mag": "magnitude"}
    if start == "":
        return "Baseline"
    if start == "random":
        return "Random init"
    kind = what["sign" if start.startswith("sign") else "mag"]
    moment = start.removeprefix("sign").removeprefix("mag").removeprefix("_")
    if moment == "final":
        return f"Final {kind}"
    return f"Epoch {group.epochs_named[moment]} {kind} (k{moment})"


def difference_to_baseline(
    group: Comparison, method: str, start: str, spread: Spread | None
) -> Compared | None:
    """Compare a row of Table 1 with its baseline."""
    ours: Seeds = group.accuracy(_arm(method, start))
    return compare(ours, group.accuracy(method), spread)


def _arm(method: str, start: str) -> str:
    return f"{method}/{start}" if start else method


def _case(case: Case | None) -> list[str]:
    if case is None:
        return [NONE] * 4
    paper = NONE if case.paper is None else f"{case.paper:+.2f}"
    return [shown(case.gain), detectable(case.gain), paper, case.verdict]


def _accuracy(group: Comparison, arm: str, density: float = DENSITY) -> str:
    found = group.final(arm, "test_accuracy", density)
    return NONE if found is None else f"{found} (n = {found.count})"


def _percent(found: Estimate | None) -> str:
    if found is None:
        return NONE
    # Shares that are the same in all runs have no spread to show.
    spread = f" ± {100 * found.std:.1f}" if found.std else ""
    return f"{100 * found.mean:.1f}{spread} %"


def _number(found: Estimate | None) -> str:
    return NONE if found is None else str(found)


def _density(group: Comparison, arm: str, density: float = DENSITY) -> str:
    found = group.final(arm, "density", density)
    if found is None:
        return NONE
    return f"{found.mean:.4f}" if not found.std else f"{found.mean:.4f} ± {found.std:.4f}"


def _runs(group: Comparison, arm: str, density: float) -> list[str]:
    """Return achieved density, mask updates and steps."""
    counts = [_counts(group, arm, key, density) for key in ("mask_updates", "steps")]
    return [_density(group, arm, density), *counts]


def _counts(group: Comparison, arm: str, key: str, density: float) -> str:
    found = sorted(set(group.seeds(arm, key, density).values()))
    return " / ".join(f"{value:,.0f}" for value in found) or NONE


def _missing(group: Comparison, arm: str) -> str:
    """Return the share of survivors that the source had no sign or magnitude for."""
    starts = [start for result in group.of(arm) if (start := result["final"].get("start"))]
    return _percent(estimate(start["missing"] / start["survivors"] for start in starts))


def _uncounted(results: Sequence[Result]) -> str:
    """Return the largest share of survivors that a stage leaves out: they had no sign then."""
    shares = [
        1 - min(compared.values())
        for result in results
        if (compared := result["final"].get("compared"))
    ]
    return _percent(estimate(shares))
