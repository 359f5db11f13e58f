"""What was run, from every field of its settings, next to what section 4.1 gives of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...pages import captions
from ...pages.captions import NOT_GIVEN, SIDES, Row, departures, part, resolution, written
from .recipes import AWS, AwsRecipe
from .summary import Outcomes

# What tables and figures are spread over; they are no settings of a comparison.
AXES = ("experiment", "seed", "kind", "subject", "round", "order", "note")
# The paper's network that one of ours stands for.
STANDS_FOR = {
    "small_resnet": "resnet50",
    "resnet20": "resnet50",
    "mixer": "mixer_s16",
    "small_vgg": "vgg11_bn",
}
_SIDES = {**SIDES, "tiny_imagenet": "64x64", "imagenet": "224x224"}
# Data sets that lie in folders, which may hold less than all of it.
_FOLDERS = {
    "imagenet": "1,281,167 images of 1,000 classes",
    "tiny_imagenet": "100,000 images of 200 classes",
}
_NAMES = {
    "folder": "folder of training images",
    "arch": "network",
    "lr": "peak learning rate",
    "epochs": "epochs of the final training",
    "warmup_epochs": "epochs of warm-up",
    "round_epochs": "epochs per round",
    "amount": "pruned per round",
    "batch_size": "images per batch",
    "momentum": "momentum (sgd)",
    "augment": "crops and flips",
    "final_lr": "last learning rate, of the peak",
    "train_size": "training images",
    "test_size": "test images",
    "recalibrate": "images for batch-norm statistics",
    "prune_classifier": "classifier pruned",
    "official_signs": "signs of the classifier and of biases too",
    "score_lr": "learning rate of Gem-Miner's scores",
    "score_penalty": "penalty on Gem-Miner's scores",
}
# Fields of a recipe that section 4.1 gives.
_GIVEN = (
    *("optimizer", "lr", "weight_decay", "batch_size", "schedule", "epochs"),
    *("warmup_epochs", "round_epochs", "amount", "dataset", "arch"),
)


def counterpart(dataset: str, arch: str) -> str | None:
    """Return the name of the paper's setting that a data set and network are compared with."""
    network = STANDS_FOR.get(arch, arch)
    # The data set itself, and else the smallest that the paper trains the network on.
    names = (f"{each}-{network}" for each in (dataset, "cifar100", "imagenet"))
    return next((name for name in names if name in AWS), None)


def settings(config: Mapping[str, Any], data: Mapping[str, Any], setting: str | None) -> list[Row]:
    """Return every setting of a comparison: its name, ours, and the paper's.

    Args:
        config: settings as a result file states them.
        data: `Dataset.facts()`.
        setting: name of the paper's setting in `recipes.AWS`; None if it has none of the kind.
    """
    ours = _flat(config)
    ours["train_size"] = part(data["train"] + data.get("held_out", 0), data["train_available"])
    ours["test_size"] = part(data["test"], data["test_available"])
    ours["resolution"] = resolution(data)
    paper = {"arch": "another"} if setting is None else _paper(AWS[setting])
    if config["recipe"]["dataset"] in _FOLDERS:
        ours["folder"] = f"{data['train_available']:,} images of {data['classes']:,} classes"
        paper["folder"] = _FOLDERS.get(paper.get("dataset", ""), NOT_GIVEN)
    return [
        Row(_NAMES.get(key, key.replace("_", " ")), value, paper.get(key, NOT_GIVEN))
        for key, value in ours.items()
    ]


def rows_of(outcomes: Outcomes, setting: str | None = None) -> list[Row]:
    """Return the settings of a group of runs, Gem-Miner's from its own runs.

    Args:
        outcomes: the runs.
        setting: the paper's; by default the one that data set and network stand for.
    """
    chosen = setting or counterpart(outcomes.dataset, outcomes.arch)
    config = dict(outcomes.config)
    for result in outcomes.results:
        if result["config"]["subject"] == "gem_miner":
            config |= {key: result["config"][key] for key in ("score_lr", "score_penalty")}
    return settings(config, outcomes.results[0]["dataset"], chosen)


def departs_from_paper(outcomes: Outcomes, setting: str | None = None) -> tuple[str, ...]:
    """Return everything that the paper has otherwise; nothing at the paper's scale."""
    return tuple(departures(rows_of(outcomes, setting)))


def caption(outcomes: Outcomes) -> str:
    """Say where a group of runs departs from the paper, and what it chose by itself."""
    return captions.caption(rows_of(outcomes))


def _paper(recipe: AwsRecipe) -> dict[str, str]:
    """Return what the paper gives of a setting, by our fields."""
    fields = {**vars(recipe), **vars(recipe.final)}
    paper = {key: written(fields[key]) for key in _GIVEN}
    if recipe.final.optimizer == "sgd":
        paper["momentum"] = written(recipe.final.momentum)
    return {
        **paper,
        "train_size": "all",
        "test_size": "all",
        "resolution": _SIDES[recipe.dataset],
    }


def _flat(config: Mapping[str, Any]) -> dict[str, str]:
    """Write every field of a configuration, of the recipe in it, and of its final training."""
    recipe = dict(config["recipe"])
    final = recipe.pop("final")
    rest = {key: value for key, value in config.items() if key != "recipe"}
    return {
        key: written(value) for key, value in {**recipe, **final, **rest}.items() if key not in AXES
    }
