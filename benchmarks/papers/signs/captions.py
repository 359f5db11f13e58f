"""What was run, from every field of its settings, next to what its paper gives of it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from ...pages import captions
from ...pages.captions import NOT_GIVEN, SIDES, Row, departures, part, resolution, written
from ...pages.published import epochs_per_round, setup
from .config import RunConfig

STAND_INS = {
    "digits": "scikit-learn's 8x8 digits, a proxy for the MNIST of the paper",
    "fashion_mnist": "Fashion-MNIST, which the paper does not use",
}
# What tables and figures are spread over, and the paper itself; they are no settings of a group.
AXES = ("experiment", "strategy", "perturbation", "seed")
_OWN = "as published"
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
    return captions.caption(settings(config, dataset), _stand_in(config))


def departs_from_paper(config: RunConfig, dataset: dict[str, Any]) -> tuple[str, ...]:
    """Return everything that the paper has otherwise; nothing at the paper's scale."""
    return (*_stand_in(config), *departures(settings(config, dataset)))


def settings(config: RunConfig, dataset: dict[str, Any]) -> list[Row]:
    """Return every setting that a group of runs has in common: its name, ours, and the paper's."""
    paper = _paper(config)
    ours = {key: written(value) for key, value in asdict(config).items() if key not in AXES}
    used = dataset["train"] + dataset["held_out"]
    ours["train_size"] = part(used, dataset["train_available"])
    ours["test_size"] = part(dataset["test"], dataset["test_available"])
    ours["holdout"] = f"{dataset['held_out']:,} training images"
    ours["resolution"] = resolution(dataset)
    ours["width"] = _OWN if config.width is None else written(config.width)
    return [
        Row(_NAMES.get(key, key.replace("_", " ")), value, paper.get(key, NOT_GIVEN))
        for key, value in ours.items()
    ]


def _paper(config: RunConfig) -> dict[str, str]:
    """Return what a run's paper gives, by our fields."""
    given = setup(config.experiment)
    paper = {
        "rounds": written(given["rounds"]),
        "prune_base": written(given["prune_base"]),
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
    # A network that the paper names has the channels that it is published with.
    paper["width"] = _OWN
    epochs = epochs_per_round(config.experiment, config.dataset)
    if epochs is not None:
        paper["epochs"] = written(epochs)
    if config.dataset in SIDES:
        paper["resolution"] = SIDES[config.dataset]
    return paper


def _stand_in(config: RunConfig) -> tuple[str, ...]:
    """Name the data set of the paper that another one stands for."""
    return (STAND_INS[config.dataset],) if config.dataset in STAND_INS else ()


def _is(arch: str, published: str) -> bool:
    """Say whether a network of ours is one that a paper names."""
    return arch == published.replace(" ", "_") or (arch == "fc" and published.startswith("FC"))
