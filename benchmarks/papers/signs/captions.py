"""What was run, from every field of its settings, next to what its paper gives of it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from ...pages.published import epochs_per_round, setup
from .config import RunConfig

NOT_GIVEN = "not given"
_STAND_INS = {
    "digits": "scikit-learn's 8x8 digits, a proxy for the MNIST of the paper",
    "fashion_mnist": "Fashion-MNIST, which the paper does not use",
}
# What tables and figures are spread over, and the paper itself; they are no settings of a group.
AXES = ("experiment", "strategy", "perturbation", "seed")
_SIDES = {"mnist": "28x28", "cifar10": "32x32", "cifar100": "32x32"}
_NAMES = {
    "lr": "learning rate",
    "epochs": "epochs per round",
    "init": "initialisation",
    "mix": "gradual's share of trained signs",
    "keep_rest": "biases and norms kept at a round",
    "train_size": "training images",
    "test_size": "test images",
    "holdout": "held out for selection",
    "momentum": "momentum (sgd)",
    "survivors": "survivors chosen by",
    "weights": "file of weights",
    "width": "width of VGG",
}


def caption(config: RunConfig, dataset: dict[str, Any]) -> str:
    """Say where a run departs from its paper, and what it chose where the paper gives nothing.

    Args:
        config: settings of the run.
        dataset: `Dataset.facts()`.

    Returns:
        Clauses separated by semicolons.
    """
    rows = settings(config, dataset)
    notes = [_STAND_INS[config.dataset]] if config.dataset in _STAND_INS else []
    notes += [
        f"{name} {ours}, the paper's {paper}"
        for name, ours, paper in rows
        if paper not in (NOT_GIVEN, ours)
    ]
    chosen = ", ".join(f"{name} {ours}" for name, ours, paper in rows if paper == NOT_GIVEN)
    return f"{'; '.join(notes) or 'as the paper gives it'}; not given by the paper: {chosen}"


def settings(config: RunConfig, dataset: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Return every setting that a group of runs has in common: its name, ours, and the paper's."""
    paper = _paper(config)
    ours = {key: _written(value) for key, value in asdict(config).items() if key not in AXES}
    used = dataset["train"] + dataset["held_out"]
    ours["train_size"] = _part(used, dataset["train_available"])
    ours["test_size"] = _part(dataset["test"], dataset["test_available"])
    ours["holdout"] = f"{dataset['held_out']:,} training images"
    ours["resolution"] = f"{dataset['shape'][-2]}x{dataset['shape'][-1]}" + (
        " (averaged)" if dataset.get("pooled_from") else ""
    )
    return [
        (_NAMES.get(key, key.replace("_", " ")), value, paper.get(key, NOT_GIVEN))
        for key, value in ours.items()
    ]


def _paper(config: RunConfig) -> dict[str, str]:
    """Return what a run's paper gives, by our fields."""
    given = setup(config.experiment)
    paper = {
        "rounds": _written(given["rounds"]),
        "prune_base": _written(given["prune_base"]),
        "mix": "0.7",
        "survivors": "magnitude",
        "train_size": "all",
        "test_size": "all",
    }
    data = given.get(config.dataset)
    if data is None:
        return paper
    paper["dataset"] = config.dataset
    archs = data.get("archs") or [data["arch"]]
    paper["arch"] = next(
        (config.arch for arch in archs if _is(config.arch, arch)), " or ".join(archs)
    )
    epochs = epochs_per_round(config.experiment, config.dataset)
    if epochs is not None:
        paper["epochs"] = _written(epochs)
    if config.dataset in _SIDES:
        paper["resolution"] = _SIDES[config.dataset]
    return paper


def _is(arch: str, published: str) -> bool:
    """Say whether a network of ours is one that a paper names."""
    return arch == published.replace(" ", "_") or (arch == "fc" and published.startswith("FC"))


def _part(used: int, available: int) -> str:
    return "all" if used == available else f"{used:,} of {available:,}, drawn at random"


def _written(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)
