"""Runs that differ from those of a section in one setting: two tables in place of many sections."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from statistics import fmean

from ...harness.results import Result
from ...pages.captions import Row
from ...pages.estimates import cell, estimate
from ...pages.markdown import NONE, markdown
from ...pages.paired import Seeds, pooled_spread, with_most_seeds
from ...pages.section import seeds
from .captions import AXES, settings
from .config import Perturbation, RunConfig
from .summary import STRATEGIES, VARIED, accuracies, devices
from .tables import SYMBOLS, point_label

EPOCHS, SURVIVORS = "epochs", "survivors"
# An optimizer comes with its own learning rate, momentum and weight decay: one setting.
_OF_OPTIMIZER = {"optimizer", "lr", "momentum", "weight_decay"}
# These have tables of their own, for any number of seeds.
_OWN_TABLE = (EPOCHS, SURVIVORS)
# Numbers of steps that differ by less than this fraction are called the same.
_SAME_STEPS = 0.05
# Where the accuracies of a run are looked up.
_Place = tuple[str, Perturbation]


@dataclass(frozen=True)
class Changed:
    """Runs that differ from a section's in one setting.

    Attributes:
        setting: the field of `RunConfig`; of an optimizer's settings `optimizer`.
        text: the setting with its value, as captions write it.
        results: the runs.
    """

    setting: str
    text: str
    results: list[Result]


@dataclass(frozen=True)
class Gathered:
    """The runs of a section.

    Attributes:
        main: runs that differ in strategy, perturbation and seed alone.
        changed: runs with one other setting, which have no section of their own.
    """

    main: list[Result]
    changed: tuple[Changed, ...] = ()

    def by(self, *settings: str) -> list[Changed]:
        """Return the runs with another value of one of some settings."""
        return [each for each in self.changed if each.setting in settings]

    @property
    def sensitivity(self) -> list[Changed]:
        """The runs for the table of sensitivity."""
        return [each for each in self.changed if each.setting not in _OWN_TABLE]

    @property
    def results(self) -> list[Result]:
        """All runs."""
        return [*self.main, *(result for each in self.changed for result in each.results)]


def gather(groups: Sequence[list[Result]]) -> list[Gathered]:
    """Put groups that differ from a larger one in one setting into its section.

    The larger one has the same data set and network, and of these the most seeds. A group goes into
    its section if it has one seed of it; with other epochs, or survivors chosen otherwise, any.
    """
    mains: dict[tuple[str, str], list[Result]] = {}
    for group in groups:
        main = mains.setdefault(_place(group), group)
        if _size(group) > _size(main):
            mains[_place(group)] = group
    found = {id(group): _change(mains[_place(group)], group) for group in groups}
    return [
        Gathered(
            group,
            tuple(
                change
                for other in groups
                if mains[_place(other)] is group and (change := found[id(other)]) is not None
            ),
        )
        for group in groups
        if found[id(group)] is None
    ]


def sensitivity_table(gathered: Gathered) -> list[str]:
    """Tabulate the runs with one changed setting, next to the section's of the same seed."""
    changed = gathered.sensitivity
    if not changed:
        return []
    ran = [result for each in changed for result in each.results]
    columns = _columns(ran)
    rows = []
    for seed in seeds(ran):
        mine = [each for each in changed if seeds(each.results) == [seed]]
        for text, results in (
            ("none, as above", gathered.main),
            *((each.text, each.results) for each in mine),
        ):
            values = [_accuracies(results, column).get(seed) for column in columns]
            rows.append([text, str(seed), *(NONE if v is None else f"{v:.2f}" for v in values)])
    head = ["changed", "seed", *(_head(column, ran) for column in columns)]
    return [
        f"### Sensitivity (one seed, no verdict)\n\n{_introduction(gathered, ran)}",
        markdown(head, rows),
    ]


def steps_section(sections: Sequence[Gathered]) -> list[str]:
    """Tabulate what damaged signs cost by the training steps of a round, over data sets.

    A table has the runs whose settings are the same but for data set and epochs; there is none
    where no runs with other epochs are in a section.
    """
    families: dict[str, list[Gathered]] = {}
    for gathered in sections:
        fields = _fields(gathered.main)
        family = {name: value for name, value in fields.items() if name not in ("dataset", EPOCHS)}
        families.setdefault(repr(sorted(family.items())), []).append(gathered)
    tables = [_steps_table(family) for family in families.values()]
    found = [part for table in tables for part in table]
    return ["## Steps or task", *found] if found else []


def _steps_table(family: Sequence[Gathered]) -> list[str]:
    changed = [each.results for gathered in family for each in gathered.by(EPOCHS)]
    if not changed:
        return []
    ran = [result for results in changed for result in results]
    shared = set.intersection(*(set(seeds(results)) for results in changed))
    points = [point for point in _points(ran) if point]
    groups = sorted([*changed, *(gathered.main for gathered in family)], key=_steps)
    rows = []
    # What the largest perturbation costs each strategy, by steps of a round and data set.
    costs: dict[tuple[int, str], list[float]] = {}
    for strategy in (each for each in STRATEGIES if each in {_strategy(r) for r in ran}):
        for group in groups:
            zero = _of(_accuracies(group, (strategy, ())), shared)
            lost = [_lost(zero, _of(_accuracies(group, (strategy, p)), shared)) for p in points]
            if not any(lost):
                continue
            config = group[0]["config"]
            if lost[-1]:
                costs.setdefault((_steps(group), config["dataset"]), []).extend(lost[-1].values())
            row = [strategy, config["dataset"], str(config["epochs"]), f"{_steps(group):,}"]
            rows.append([*row, *(cell(estimate(found.values())) for found in (zero, *lost))])
    head = ["strategy", "data set", "epochs per round", "steps per round", f"{_kind(ran)} = 0"]
    head += [f"lost at {_head(('', point), ran)}" for point in points]
    number = ", ".join(map(str, sorted(shared)))
    return [
        f"What damaged signs cost, in points, by the number of training steps of a round: "
        f"{len(ran)} runs with other epochs than their sections above, next to those. Seed "
        f"{number} in all rows, no verdict.",
        markdown(head, rows),
        *([_steps_or_task(costs, _head(("", points[-1]), ran))] if costs else []),
    ]


def _steps_or_task(costs: Mapping[tuple[int, str], Sequence[float]], name: str) -> str:
    """Say what steps change on one data set, and what the data set changes at the same steps."""
    lost: dict[str, dict[int, float]] = {}
    for (steps, dataset), values in sorted(costs.items()):
        lost.setdefault(dataset, {})[steps] = fmean(values)
    told = [
        f"{dataset}, {', '.join(f'{value:.2f} at {steps:,}' for steps, value in found.items())}"
        for dataset, found in lost.items()
    ]
    pairs = [
        (one, other)
        for (_, ours), (_, theirs) in combinations(lost.items(), 2)
        for steps, one in ours.items()
        for others, other in theirs.items()
        if abs(steps / others - 1) < _SAME_STEPS
    ]
    said = (
        f"Read: in the mean of the strategies, {name} costs, by the steps of a round: "
        f"{'; '.join(told)} (points)."
    )
    if not pairs:
        return said
    by_steps = max(max(found.values()) - min(found.values()) for found in lost.values())
    by_task = max(abs(one - other) for one, other in pairs)
    return (
        f"{said} On one data set, steps change this by up to {by_steps:.2f}; at the same number of "
        f"steps (within {100 * _SAME_STEPS:g} %), the data set changes it by up to {by_task:.2f}."
    )


def _change(main: list[Result], group: list[Result]) -> Changed | None:
    """Say in which setting a group differs from its section's; None if it is one of its own."""
    if group is main or len(seeds(main)) < 2 or not set(seeds(group)) <= set(seeds(main)):
        return None
    ours, theirs = _fields(group), _fields(main)
    names = {name for name in ours if ours[name] != theirs[name]}
    if "optimizer" in names and names <= _OF_OPTIMIZER:
        setting = "optimizer"
    elif len(names) == 1:
        (setting,) = names
    else:
        return None
    if len(seeds(group)) > 1 and setting not in _OWN_TABLE:
        return None
    known = {row.name: row.ours for row in _rows(main)}
    text = [f"{row.name} {row.ours}" for row in _rows(group) if known[row.name] != row.ours]
    return Changed(setting, ", ".join(text), group)


def _introduction(gathered: Gathered, ran: Sequence[Result]) -> str:
    """Say what was run, on which device, and what two runs differ by without any change."""
    said = f"{len(ran)} runs that differ from this section's in one setting, on {devices(ran)}; "
    said += f"the section's on {devices(gathered.main)}."
    places = {(_strategy(result), _point(result)) for result in gathered.main}
    rows = with_most_seeds(_accuracies(gathered.main, place) for place in sorted(places))
    spread = pooled_spread([rows])
    if spread is None:
        return said
    return (
        f"{said} Two runs of one seed differ by chance too: by {spread.std:.2f} points (standard "
        "deviation, pooled over the rows of this section)."
    )


def _place(group: Sequence[Result]) -> tuple[str, str]:
    config = group[0]["config"]
    return config["dataset"], config["arch"]


def _size(group: Sequence[Result]) -> tuple[int, int]:
    return len(seeds(group)), len(group)


def _fields(group: Sequence[Result]) -> dict[str, object]:
    config = asdict(RunConfig.from_json(group[0]["config"]))
    return {name: value for name, value in config.items() if name not in {*AXES, *VARIED}}


def _rows(group: Sequence[Result]) -> list[Row]:
    """Return the settings of a group but for the device, which varies within groups."""
    config = RunConfig.from_json(group[0]["config"])
    return [row for row in settings(config, group[0]["dataset"]) if row.name not in VARIED]


def _steps(group: Sequence[Result]) -> int:
    """Return the training steps of a round; the last batch of an epoch may be smaller."""
    config, data = group[0]["config"], group[0]["dataset"]
    return int(config["epochs"]) * -(-int(data["train"]) // int(config["batch_size"]))


def _strategy(result: Result) -> str:
    return str(result["config"]["strategy"])


def _point(result: Result) -> Perturbation:
    return RunConfig.from_json(result["config"]).perturbation


def _points(results: Iterable[Result]) -> list[Perturbation]:
    return sorted({_point(result) for result in results})


def _columns(results: Sequence[Result]) -> list[_Place]:
    ran = {(_strategy(result), _point(result)) for result in results}
    return [(s, p) for s in STRATEGIES for p in _points(results) if (s, p) in ran]


def _kind(results: Sequence[Result]) -> str:
    """Return the symbol of the perturbation that some runs have."""
    kinds = {kind for point in _points(results) for kind, _ in point}
    return SYMBOLS[kinds.pop()] if len(kinds) == 1 else "perturbation"


def _head(column: _Place, results: Sequence[Result]) -> str:
    """Name a strategy and a perturbation."""
    strategy, point = column
    kind = point[0][0] if len(point) == 1 else ""
    value = f"{SYMBOLS[kind]} = {point_label(kind, point)}" if kind else point_label("", point)
    if not point:
        value = f"{_kind(results)} = 0"
    return f"{strategy}, {value}" if strategy else value


def _accuracies(results: Iterable[Result], place: _Place) -> Seeds:
    """Return the final test accuracies of a strategy at a perturbation, by seed."""
    return accuracies(each for each in results if (_strategy(each), _point(each)) == place)


def _of(accuracies: Seeds, wanted: set[int]) -> Seeds:
    return {seed: value for seed, value in accuracies.items() if seed in wanted}


def _lost(zero: Seeds, damaged: Seeds) -> Seeds:
    return {seed: zero[seed] - damaged[seed] for seed in sorted(zero.keys() & damaged.keys())}
