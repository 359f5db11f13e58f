"""One sentence on how much smaller than the paper's a run is, so that a proxy is called a proxy."""

from __future__ import annotations

from typing import Any

from ...pages.published import epochs_per_round, setup
from ...pages.section import subset
from .config import RunConfig

_STAND_INS = {
    "digits": "scikit-learn's 8x8 digits, a proxy for the MNIST of the paper",
    "fashion_mnist": "Fashion-MNIST, which the paper does not use",
}


def caption(config: RunConfig, dataset: dict[str, Any]) -> str:
    """Say where a run falls short of, or departs from, the scale of its paper.

    Args:
        config: settings of the run.
        dataset: `Dataset.facts()`.

    Returns:
        The differences, separated by semicolons.
    """
    paper = setup(config.experiment)
    notes = [_STAND_INS[config.dataset]] if config.dataset in _STAND_INS else []
    used = dataset["train"] + dataset["held_out"]
    notes += subset(used, dataset["train_available"], "training images")
    if dataset["held_out"]:
        notes.append(f"{dataset['held_out']} of {used} training images held out for selection")
    notes += subset(dataset["test"], dataset["test_available"], "test images")
    if config.rounds != paper["rounds"]:
        notes.append(f"{config.rounds} rounds, the paper's {paper['rounds']}")
    if config.prune_base != paper["prune_base"]:
        notes.append(f"prune base {config.prune_base:g}, the paper's {paper['prune_base']:g}")
    epochs = epochs_per_round(config.experiment, config.dataset)
    if epochs is not None and config.epochs != epochs:
        notes.append(f"{config.epochs} epochs per round, the paper's {epochs}")
    return "; ".join(notes) or "the paper's scale"
