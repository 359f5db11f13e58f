"""What was run next to what a paper gives of it: one row for every field of a configuration."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from .markdown import NONE, markdown

NOT_GIVEN = "not given"
# The size of each data set's images as it comes.
SIDES = {"mnist": "28x28", "fashion_mnist": "28x28", "cifar10": "32x32", "cifar100": "32x32"}


class Row(NamedTuple):
    """A setting: its name, our value, and the paper's.

    Attributes:
        name: as captions call it.
        ours: our value.
        paper: the paper's; `NOT_GIVEN` where it leaves the setting open.
    """

    name: str
    ours: str
    paper: str

    @property
    def departs(self) -> bool:
        """Whether the paper gives another value."""
        return self.paper not in (NOT_GIVEN, self.ours)


def written(value: Any) -> str:
    """Write a value of a configuration."""
    if value is None:
        return NONE
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return " to ".join(written(each) for each in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def part(used: int, available: int) -> str:
    """Say how many of the images were used."""
    return "all" if used == available else f"{used:,} of {available:,}, drawn at random"


def resolution(data: Mapping[str, Any]) -> str:
    """Write the size of the images that a network saw."""
    size = f"{data['shape'][-2]}x{data['shape'][-1]}"
    return f"{size} (averaged)" if data.get("pooled_from") else size


def departures(rows: Iterable[Row]) -> list[str]:
    """Name every setting that the paper gives otherwise, with both values."""
    return [f"{row.name} {row.ours}, the paper's {row.paper}" for row in rows if row.departs]


def caption(rows: Sequence[Row], first: Sequence[str] = ()) -> str:
    """Say where a run departs from its paper, and what it chose where the paper gives nothing.

    Args:
        rows: every setting.
        first: departures that are no settings; they stand first.
    """
    chosen = ", ".join(f"{row.name} {row.ours}" for row in rows if row.paper == NOT_GIVEN)
    departs = "; ".join([*first, *departures(rows)]) or "as the paper gives it"
    return f"{departs}; not given by the paper: {chosen}"


def joined(arms: Mapping[str, Sequence[Row]]) -> list[Row]:
    """Put the settings of several arms into one list; where they differ, each names its arms."""
    columns: dict[str, dict[str, Row]] = {}
    for arm, rows in arms.items():
        for row in rows:
            columns.setdefault(row.name, {})[arm] = row
    return [
        Row(
            name,
            _by_arm({arm: row.ours for arm, row in found.items()}, len(arms)),
            _by_arm({arm: row.paper for arm, row in found.items()}, len(arms)),
        )
        for name, found in columns.items()
    ]


def settings_table(rows: Sequence[Row]) -> str:
    """Tabulate every setting, with the paper's."""
    return markdown(("setting", "ours", "paper"), rows)


def _by_arm(values: Mapping[str, str], arms: int) -> str:
    of: dict[str, list[str]] = {}
    for arm, value in values.items():
        of.setdefault(value, []).append(arm)
    if len(of) == 1 and len(values) == arms:
        return next(iter(of))
    return "; ".join(f"{value} ({', '.join(who)})" for value, who in of.items() if value != NONE)
