"""What was run, how much smaller than the paper's it is, with which versions and on what."""

from __future__ import annotations

from ...harness.names import FOLDERS
from ...pages.section import provenance, runs_and_seeds, subset
from .summary import Outcomes

# Data sets of the paper.
_PAPER = ("cifar100", "tiny_imagenet", "imagenet")
# Classes and training images of what lies in folders.
_WHOLE = {"imagenet": (1000, 1_281_167), "tiny_imagenet": (200, 100_000)}
_NETWORKS = {
    "small_resnet": "a ResNet-8 of width 16 whose stem halves the image (batch norm), where the "
    "paper has ResNet-50 and others",
    "mixer": "an MLP-Mixer of three blocks, 16 tokens and width 64 (LayerNorm), where the paper "
    "has MLP-Mixer on ImageNet",
    "small_vgg": "a VGG-11 with batch norm and an eighth of the channels, where the paper "
    "(appendix B) has VGG-11-bn",
}


def scale(outcomes: Outcomes) -> str:
    """Say in one paragraph where the setting falls short of the paper's."""
    recipe = outcomes.config["recipe"]
    data, final = outcomes.results[0]["dataset"], recipe["final"]
    notes = []
    if recipe["dataset"] not in _PAPER:
        notes.append(f"{recipe['dataset']}, which the paper does not use")
    if recipe["arch"] in _NETWORKS:
        notes.append(_NETWORKS[recipe["arch"]])
    notes += _folders(outcomes)
    notes += subset(data["train"], data["train_available"], "training images")
    notes += subset(data["test"], data["test_available"], "test images")
    notes.append(
        f"epochs: {recipe['warmup_epochs']} of warm-up, {recipe['round_epochs']} per round, "
        f"{final['epochs']} of final training, where the paper has 10, 10 and 100 on CIFAR-100 "
        "and 20, 5 and 120 or 200 on ImageNet"
    )
    parameters = next((r["total"] for r in outcomes.results if "total" in r), None)
    counted = f" {parameters} weights are masked (remaining ratio 1)." if parameters else ""
    return (
        f"{runs_and_seeds(outcomes.results)}. "
        f"Smaller scale than the paper's: {'; '.join(notes)}.{counted} "
        "± is the standard deviation over seeds."
    )


def _folders(outcomes: Outcomes) -> list[str]:
    """Say where images from folders are smaller or fewer than the data set's."""
    name, data = outcomes.dataset, outcomes.results[0]["dataset"]
    if name not in FOLDERS:
        return []
    side, (classes, available) = data["shape"][-1], _WHOLE[name]
    notes = [f"images of {side}x{side}, not {FOLDERS[name]}x{FOLDERS[name]}"]
    notes = notes if side != FOLDERS[name] else []
    if (data["classes"], data["train_available"]) != (classes, available):
        notes.append(
            f"a folder of {data['train_available']:,} images in {data['classes']} classes, where "
            f"{name} has {available:,} in {classes:,}"
        )
    return notes


def full_scale(outcomes: Outcomes) -> str:
    """State the scale, the settings and the provenance of a setting."""
    config, results = outcomes.config, outcomes.results
    final = config["recipe"]["final"]
    shown = {
        "optimizer": final["optimizer"],
        "learning rate": final["lr"],
        "momentum (sgd)": final["momentum"],
        "weight decay": final["weight_decay"],
        "batch size": final["batch_size"],
        "final schedule": final["schedule"],
        "crops and flips": final["augment"],
        "rounds": config["recipe"]["rounds"],
        "pruned per round": config["recipe"]["amount"],
        "classifier pruned": config["prune_classifier"],
        "signs of the classifier and of biases too": config["official_signs"],
        "images for batch-norm statistics": config["recalibrate"],
    }
    hours = sum(result["seconds"] for result in results) / 3600
    lines = [
        scale(outcomes),
        "",
        f"- Settings: {'; '.join(f'{label} {value}' for label, value in shown.items())}",
        *provenance(results, f"{hours:.1f} h in all"),
    ]
    return "\n".join(lines)
