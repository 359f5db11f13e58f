"""What the papers print: their settings, their best accuracies and their claims."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

PAPERS = {"fragility": "fragility_of_polarity", "zero_crossing": "beyond_zero_crossing"}

# The table of a paper for each data set and perturbation.
_TABLES = {
    ("fragility", "mnist", "epsilon"): "table1_mnist_epsilon_best",
    ("fragility", "cifar10", "delta"): "table2_cifar10_delta_best",
    ("fragility", "cifar100", "delta"): "table3_cifar100_delta_best",
    ("zero_crossing", "mnist", "phi"): "table1_mnist_best",
    ("zero_crossing", "cifar10", "phi"): "table2_cifar10_best",
    ("zero_crossing", "cifar100", "phi"): "table3_cifar100_best",
}


@dataclass(frozen=True)
class Best:
    """The best final test accuracy over a grid, and its grid point if the paper prints it."""

    accuracy: float
    at: float | None = None


@cache
def _values() -> dict[str, Any]:
    text = (Path(__file__).parent / "published_values.json").read_text(encoding="utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded


def transcript(paper: str) -> dict[str, Any]:
    """Return what was transcribed of a paper: its entry in `published_values.json`."""
    stored: dict[str, Any] = _values()[paper]
    return stored


def setup(experiment: str) -> dict[str, Any]:
    """Return the settings that a paper gives, as transcribed."""
    stored: dict[str, Any] = _values()[PAPERS[experiment]]["setup"]
    return stored


def epochs_per_round(experiment: str, dataset: str) -> int | None:
    """Return the epochs per round that a paper gives for a data set; None if it gives none."""
    epochs: int | None = setup(experiment).get(dataset, {}).get("epochs_per_round")
    return epochs


def best_over_grid(experiment: str, dataset: str, arch: str, kind: str) -> dict[str, Best]:
    """Return the printed best of every strategy; empty where the paper prints none.

    The papers do not say which VGG-16 they mean: their numbers are compared with all of ours.
    """
    table = _TABLES.get((experiment, dataset, kind))
    if table is None:
        return {}
    stored: dict[str, Any] = _values()[PAPERS[experiment]][table]
    if dataset == "mnist":
        stored = stored if arch == "fc" else {}
    else:
        stored = stored.get("vgg16" if arch.startswith("vgg16") else arch, {})
    return {
        strategy: Best(*entry) if isinstance(entry, list) else Best(entry)
        for strategy, entry in stored.items()
    }
