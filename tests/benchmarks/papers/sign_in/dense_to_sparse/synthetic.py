"""Synthetic records of the dense-to-sparse experiment: its schema, and numbers that we chose."""

import random
from dataclasses import asdict

from benchmarks.papers.sign_in.dense_to_sparse.config import (
    METHODS,
    SEARCH,
    STARTS,
    DenseToSparseConfig,
)
from benchmarks.papers.sign_in.dense_to_sparse.summary import comparisons

COMMIT = "c" * 40
EPOCHS = 30
LAYERS = {"conv1": 432, "block1.conv1": 2304, "block2.conv1": 4608, "fc": 640}
SLOPES = {"acdc": 0.3, "rigl": 0.05, "str": 0.2, "snip": 0.35, "synflow": 0.25, "random": 0.1}
ARMS = [
    *((method, 0.1) for method in METHODS),
    *(("acdc", density) for density in (0.2, 0.05)),
    *(("acdc+sign_in", density) for density in (0.2, 0.1, 0.05)),
    *((f"{method}/{start}", 0.1) for method in METHODS for start in STARTS),
    *((f"{method}/random+sign_in", 0.1) for method in METHODS),
    *((mask + way, 0.1) for mask in ("snip", "synflow", "random") for way in ("", "+sign_in")),
]


def config(arm, density=0.1, seed=0, **changes):
    method, factors = arm.split("/")[0].removesuffix("+sign_in"), arm.endswith("+sign_in")
    settings = {
        "dataset": "cifar10",
        "resolution": 16,
        "arch": "resnet8",
        "width": 16,
        "stem_stride": 1,
        "arm": arm,
        "density": density,
        "densities": "balanced" if method in ("rigl", "random") else None,
        "score_images": 512 if method == "snip" else None,
        "seed": seed,
        "epochs": EPOCHS,
        "batch_size": 128,
        "optimizer": "sgd",
        "lr": 0.2,
        "momentum": 0.9,
        "weight_decay": 0.0 if factors else 1e-4,
        "schedule": "triangular",
        "label_smoothing": 0.0,
        "augment": True,
        "crop_padding": 2,
        "beta": 1.0 if factors else None,
        "rescale_period": 1 if factors else None,
        "rescale_until": 15 if factors else None,
        "rescale_momentum": "keep" if factors else None,
        "frobenius_decay": 1e-4 if factors else None,
        "acdc_calendar": "imagenet" if method == "acdc" else None,
        "rigl_updates": 60 if method == "rigl" else None,
        "rigl_until": 0.75 if method == "rigl" else None,
        "rigl_fraction": 0.3 if method == "rigl" else None,
        "rigl_replace_step": True if method == "rigl" else None,
        "str_s0": -8.0 if method == "str" else None,
        "str_decay": None,
        "search_seed": 0 if method == "str" else None,
        "search_between": (1e-5, 1e-1) if method == "str" else None,
        "search_runs": 6 if method == "str" else None,
        "search_tolerance": 0.005 if method == "str" else None,
        "sharpness_images": 256,
        "test_every": 0,
        "train_size": 5000,
        "channels_last": True,
    }
    return DenseToSparseConfig(**{**settings, **changes})


def frame(config, **content):
    """What every record holds, whatever it measured."""
    return {
        "schema": 1,
        "experiment": config.experiment,
        "run_id": config.run_id,
        "config": asdict(config),
        "config_digest": config.digest,
        "dataset": {
            "name": "cifar10",
            "classes": 10,
            "shape": [3, 16, 16],
            "train": 5000,
            "held_out": 0,
            "test": 10000,
            "train_available": 50000,
            "test_available": 10000,
            "pooled_from": 32,
        },
        **content,
        "started": "2026-01-02T00:00:00+00:00",
        "seconds": 50.0,
        "command": "python -m benchmarks dense-to-sparse --out runs/dense_to_sparse",
        "versions": {"polarity": "0", "draws": "2", "torch": "2"},
        "machine": {
            "device": "cpu",
            "cpu": "abacus",
            "cpu_capability": "AVX9",
            "cores": 2,
            "threads": 1,
            "system": "Linux",
        },
        "git_commit": COMMIT,
    }


def record(arm, density=0.1, seed=0, *, accuracy=50.0, sharpness=40.0, flips=(0.3, 0.1, 0.35)):
    """A run that ended at an accuracy; flips: to k10, after it, and over all."""
    settings = config(arm, density, seed)
    is_method = settings.start is None and settings.method in METHODS
    stages = dict(zip(("init_to_warmup", "warmup_to_end", "init_to_end"), flips, strict=True))
    epochs = []
    for epoch in range(1, EPOCHS + 1):
        so_far = flips[2] * 2 * (epoch / EPOCHS) ** 0.5
        epochs.append(
            {
                "epoch": epoch,
                "lr": 0.1,
                "train_loss": 1.0,
                "train_accuracy": 60.0,
                "density": density,
                "flips": so_far / 2,
                "flips_cumulative": so_far,
                "inner_scaling": None,
            }
        )
        if settings.measures_sharpness(epoch):
            epochs[-1]["sharpness"] = sharpness * (1 + 3 * epoch * (EPOCHS - epoch) / EPOCHS**2)
    layers = [
        {
            "name": name,
            "total": total,
            # Masks slope differently, and all of them downwards.
            "survivors": round(total * density * (1.5 - place * SLOPES[settings.method])),
            **{stage: value * (0.7 + 0.2 * place) for stage, value in stages.items()},
        }
        for place, (name, total) in enumerate(LAYERS.items())
    ]
    survivors = sum(layer["survivors"] for layer in layers)
    given = {"survivors": survivors, "missing": survivors // 20, "zeros": 0}
    updates = {"acdc": 14, "rigl": 61}.get(settings.method, 0) if is_method else 0
    facts = {"rigl": {"every": 15, "end": 900}, "str": {"decay": 2e-3, "s0": -8.0}}
    final = {
        "test_accuracy": accuracy,
        "best_test_accuracy": accuracy,
        "density": density,
        "flips_cumulative": epochs[-1]["flips_cumulative"],
        "sharpness": sharpness,
        "inner_scaling": None,
        **stages,
        "steps": 1200,
        "mask_updates": updates,
        "exchanged": 10 * updates,
        "ever_grown": 500 if settings.method == "rigl" and is_method else None,
        "compared": dict.fromkeys(stages, 0.9 if settings.method == "rigl" else 1.0),
        "start": given if settings.start else None,
        "schedule": facts.get(settings.method, {}) if is_method else {},
    }
    return frame(settings, epochs=epochs, layers=layers, final=final)


def search():
    """The search for the decay of s, whose third run was near enough."""
    trials = [
        {"decay": decay, "density": density, "accuracy": accuracy}
        for decay, density, accuracy in (
            (1e-3, 0.31, 55.5),
            (4e-3, 0.04, 49.0),
            (2e-3, 0.102, 53.0),
        )
    ]
    return frame(config(SEARCH, seed=0), trials=trials, found=True, **trials[-1])


def sweep(seeds=(0, 1, 2), arms=ARMS, noise=0.5):
    """A whole sweep in which signs matter: learned signs gain 8 points over a random start."""
    results = [search()]
    for seed in seeds:
        for arm, density in arms:
            draw = random.Random(f"{arm} {density} {seed}")
            of_seed = random.Random(seed).gauss(0, 1)
            signs = ("/" not in arm and arm.split("+")[0] in METHODS) or "/sign" in arm
            accuracy = 50 + 40 * (density - 0.1) + (8 if signs else 0) + of_seed
            flips = (0.4, 0.1, 0.45) if signs and "/" not in arm else (0.2, 0.25, 0.35)
            results.append(
                record(
                    arm,
                    density,
                    seed,
                    accuracy=round(accuracy + draw.gauss(0, noise), 2),
                    sharpness=(20.0 if signs else 60.0) * draw.uniform(0.8, 1.2),
                    flips=tuple(each * draw.uniform(0.9, 1.1) for each in flips),
                )
            )
    return results


def group_of(results):
    (group,) = comparisons(results)
    return group


def cells(table):
    """The rows of a Markdown table below its head, each by the name of the column."""
    head, _, *rows = (
        [each.strip() for each in line.strip("|").split("|")] for line in table.split("\n")
    )
    return [dict(zip(head, row, strict=True)) for row in rows]
