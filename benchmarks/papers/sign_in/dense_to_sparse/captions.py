"""What was run, from every field of the configuration, next to what the paper gives of it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ....pages.captions import written
from ....pages.markdown import NONE, markdown
from ....pages.published import transcript
from ....pages.section import images
from .config import SEARCH
from .summary import NAMES, Comparison

NOT_GIVEN = "not given"
_OR = " or "
# What tables and figures are spread over; they are no settings.
_AXES = ("arm", "seed", "density", "experiment")


def scale(group: Comparison) -> str:
    """Say in a few words how large the experiment is, for titles."""
    config = group.config
    width = "" if config["width"] is None else f" of width {config['width']}"
    return (
        f"{images(group.results[0]['dataset'])}, {config['arch']}{width}, {config['epochs']} epochs"
    )


def differences(group: Comparison) -> str:
    """Name every setting that the paper gives otherwise, with both values."""
    return "; ".join(departs_from_paper(group))


def departs_from_paper(group: Comparison) -> tuple[str, ...]:
    """Return everything that the paper has otherwise; nothing at the paper's scale."""
    return tuple(
        f"{name} {ours}, the paper's {paper}"
        for name, ours, paper in settings(group)
        # A value that only some arms use stands before their names.
        if paper != NOT_GIVEN and {each.split(" (")[0] for each in ours.split(_OR)} != {paper}
    )


def settings_table(group: Comparison) -> str:
    """Tabulate every field of the configuration, with the paper's value."""
    return markdown(("setting", "ours", "paper"), settings(group))


def settings(group: Comparison) -> list[tuple[str, str, str]]:
    """Return every field of the configuration: its name, our values, and the paper's."""
    rows = []
    paper = _paper()
    data = group.results[0]["dataset"]
    for key in group.config:
        if key in _AXES:
            continue
        ours = _values(group, key)
        if key in ("train_size", "test_size"):
            part = key.removesuffix("_size")
            used, available = data[part], data[f"{part}_available"]
            ours = "all" if used == available else f"{used:,} of {available:,}"
        rows.append((key.replace("_", " "), ours, paper.get(key, NOT_GIVEN)))
    return rows


def _paper() -> dict[str, str]:
    """Return what the paper gives of its ImageNet runs, by our fields."""
    setup = transcript("sign_in_to_the_lottery")["setup"]["imagenet_resnet50"]
    return {
        "dataset": "ImageNet",
        "arch": "resnet50",
        "train_size": "all",
        "test_size": "all",
        "epochs": f"{setup['epochs']}",
        "batch_size": f"{setup['batch']}",
        "lr": f"{setup['lr']:g}",
        "weight_decay": f"{setup['wd']:g}",
        "label_smoothing": "0.1",
        "beta": f"{setup['beta']:g}",
        "rescale_until": f"{setup['T2']}",
        "frobenius_decay": f"{setup['frobenius_decay']:g}",
    }


def _values(group: Comparison, key: str) -> str:
    """Write the values of a field; where arms differ, each with the arms that have it."""
    arms: dict[str, dict[str, None]] = {}
    for result in group.shown:
        config = result["config"]
        arms.setdefault(written(config.get(key)), {})[config["arm"]] = None
    if len(arms) == 1:
        return next(iter(arms))
    used = {value: list(found) for value, found in arms.items() if value != NONE}
    every = {result["config"]["arm"] for result in group.shown}
    return _OR.join(f"{value} ({_who(found, every)})" for value, found in used.items())


def _who(arms: Iterable[str], every: set[str]) -> str:
    """Name arms in as few words as tell them apart."""
    chosen = set(arms)
    factors = {arm for arm in every if arm.endswith("+sign_in")}
    if chosen == factors:
        return "with Sign-In"
    if chosen == every - factors:
        return "without Sign-In"
    methods = dict.fromkeys(_method(arm) for arm in arms)
    if chosen == {arm for arm in every if _method(arm) in methods}:
        return ", ".join(NAMES[method] for method in methods)
    return ", ".join(sorted(chosen))


def _method(arm: str) -> str:
    return arm.split("/")[0].removesuffix("+sign_in")


def derived(group: Comparison) -> list[str]:
    """Say what the settings of the methods came to, a line each."""
    lines: dict[str, None] = {}
    for result in group.shown:
        arm = result["config"]["arm"]
        facts = {} if arm == SEARCH else result["final"].get("schedule") or {}
        if facts:
            told = "; ".join(f"{key} {_listed(value)}" for key, value in facts.items())
            lines[f"- Schedule of {NAMES[_method(arm)]}: {told}"] = None
    return list(lines)


def _listed(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(written(each) for each in value)
    return written(value)
