"""What was run, from every field of its settings, next to what Tables 6 and 7 give of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...harness.results import Result
from ...models.networks import SMALL
from ...pages import captions
from ...pages.captions import NOT_GIVEN, SIDES, Row, departures, part, resolution, written
from ...pages.markdown import NONE
from ...pages.published import transcript

# What tables and figures are spread over; they are no settings of a run.
AXES = ("experiment", "method", "density", "seed")
# Where a data set is none of the paper's, the setup that a run is compared with.
_NEAREST = "cifar10"
_NAMES = {
    "arch": "network",
    "lr": "peak learning rate",
    "batch_size": "images per batch",
    "densities": "densities of the layers",
    "score_images": "images that scores are computed from",
    "augment": "crops and flips",
    "train_size": "training images",
    "test_size": "test images",
    "rescale_period": "rescale period p",
    "rescale_until": "epoch T2 of the last rescale",
    "frobenius_decay": "Frobenius decay",
    "stem_stride": "stride of the stem",
    "width": "channels of the first stage",
    "sharpness_images": "images of the sharpness",
    "sharpness_every": "epochs between sharpnesses",
}


def settings(config: Mapping[str, Any], data: Mapping[str, Any]) -> list[Row]:
    """Return every setting of a run: its name, ours, and the paper's.

    Args:
        config: settings as a result file states them.
        data: `Dataset.facts()`.
    """
    ours = {key: written(value) for key, value in config.items() if key not in AXES}
    ours["train_size"] = part(data["train"] + data.get("held_out", 0), data["train_available"])
    ours["test_size"] = part(data["test"], data["test_available"])
    ours["resolution"] = resolution(data)
    if config["arch"] in SMALL:
        ours["width"] = str(config["width"] or 16)
        ours["stem_stride"] = str(config["stem_stride"] or 1)
    paper = _paper(config)
    return [
        Row(_NAMES.get(key, key.replace("_", " ")), value, paper.get(key, NOT_GIVEN))
        for key, value in ours.items()
    ]


def departs_from_paper(result: Result) -> tuple[str, ...]:
    """Return everything that the paper has otherwise; nothing at the paper's scale."""
    return tuple(departures(settings(result["config"], result["dataset"])))


def arms_rows(results: Sequence[Result]) -> list[Row]:
    """Return the settings of all methods of a group; where they differ, each names its methods."""
    arms = {result["config"]["method"]: result for result in results}
    return captions.joined(
        {name: settings(result["config"], result["dataset"]) for name, result in arms.items()}
    )


def caption(results: Sequence[Result]) -> str:
    """Say where a group of runs departs from the paper, and what it chose by itself."""
    return captions.caption(arms_rows(results))


def _paper(config: Mapping[str, Any]) -> dict[str, str]:
    """Return what the paper gives of a run, by our fields."""
    setup = transcript("sign_in_to_the_lottery")["setup"]
    dataset = config["dataset"]
    known = dataset if dataset in setup else _NEAREST
    given = setup[known]
    factors, rescaled = "+" in config["method"], config["method"].endswith("sign_in")
    paper = {
        "dataset": known,
        "arch": given["arch"],
        "lr": f"{given['lr']:g}",
        "epochs": f"{given['epochs']}",
        "batch_size": f"{given['batch']}",
        "optimizer": "sgd",
        "momentum": "0.9",
        "schedule": given["schedule"],
        "weight_decay": f"{given['signin_wd'] if factors else given['wd']:g}",
        # The loss is the cross-entropy.
        "label_smoothing": "0",
        "beta": f"{given['beta']:g}" if factors else NONE,
        "frobenius_decay": f"{given['frobenius_decay']:g}" if factors else NONE,
        "rescale_until": f"{given['T2']}" if rescaled else NONE,
        "train_size": "all",
        "test_size": "all",
        "resolution": SIDES[known],
    }
    if config["method"].startswith("random"):
        paper["densities"] = "balanced"
    if config["arch"] in SMALL:
        paper |= {"width": "16", "stem_stride": "1"}
    return paper
