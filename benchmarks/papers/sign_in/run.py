"""One run of the Sign-In experiment: mask a fresh network, train it, count what its signs did."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.functional import cross_entropy

import polarity as pol
from benchmarks.harness.data import Dataset
from benchmarks.harness.recipe_training import Record, recipe_optimizer, train
from benchmarks.models.networks import build_network
from benchmarks.papers.sign_in.config import SignInConfig
from benchmarks.papers.sign_in.masks import prune_at_initialisation

_SHARPNESS_CHUNK = 256
# The differences between methods and seeds are far above a per cent.
_SHARPNESS_TOLERANCE = 1e-2


@dataclass(frozen=True)
class Measured:
    """What a run measured.

    Attributes:
        epochs: one record per epoch: those of `recipe_training.train`, `flips` (fraction of the
            survivors whose sign is not the initial one), `flips_cumulative` (flips so far per
            survivor), `inner_scaling` (mean, least and largest β̂, or None), `rescaled`, and
            `sharpness` where it was computed.
        layers: one record per pruned weight: size, survivors and flips between initialisation,
            the end of the warm-up and the end.
        final: test accuracy after the last epoch, its best over the epochs, and the whole model's
            numbers at the end.
    """

    epochs: list[Record]
    layers: list[Record]
    final: Record


def train_sparse(
    config: SignInConfig,
    data: Dataset,
    *,
    on_epoch: Callable[[Record], None] | None = None,
    compile: bool | str = False,
) -> Measured:
    """Perform a run from its settings alone.

    Args:
        config: settings.
        data: resident data set, on the device of the run.
        on_epoch: called with the record of each finished epoch.
        compile: as for `recipe_training.train`.

    Returns:
        What was measured.
    """
    device = data.train_y.device
    model = build_network(
        config.arch,
        data.shape,
        data.classes,
        width=config.width,
        stem_stride=config.stem_stride,
        generator=torch.Generator().manual_seed(config.stream("init")),
    ).to(device)
    prune_at_initialisation(model, data, config)
    if config.channels_last:
        # Before conversion, so that factors and optimizer state have the layout too.
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if config.parametrized:
        pol.sign_in(model, beta=config.beta or 1.0)
    optimizer = recipe_optimizer(config.recipe, model)
    watch = _Watch(config, model, data, optimizer)

    def finished(record: Record) -> None:
        watch.after(record)
        if on_epoch is not None:
            on_epoch(record)

    records = train(
        model,
        data,
        config.recipe,
        generator=torch.Generator().manual_seed(config.stream("batches")),
        optimizer=optimizer,
        before_epoch=watch.before,
        on_epoch=finished,
        penalty=_penalty(config),
        bf16=config.bf16,
        channels_last=config.channels_last,
        compile=compile,
    )
    return Measured(records, watch.layers(), watch.final(records))


class _Watch:
    """What is done to the model, and looked at, between its epochs."""

    def __init__(
        self,
        config: SignInConfig,
        model: nn.Module,
        data: Dataset,
        optimizer: torch.optim.Optimizer,
    ) -> None:
        self.config, self.model, self.data = config, model, data
        self.tracker = pol.SignTracker(model)
        self.rescaling: pol.RescaleSchedule | None = None
        self.rescaled = False
        if config.rescale_period is not None:
            self.rescaling = pol.RescaleSchedule(
                model,
                every=config.rescale_period,
                until=config.rescale_until,
                optimizer=optimizer,
                momentum=config.rescale_momentum or "keep",  # type: ignore[arg-type]
            )

    def before(self, epoch: int) -> None:
        """Rescale before epoch i where i is a multiple of p and below T2 (Algorithm 1)."""
        self.rescaled = self.rescaling is not None and self.rescaling.step()

    def after(self, record: Record) -> None:
        """Add to an epoch's record what its signs, factors and curvature are."""
        self.tracker.step()
        record["flips"] = self.tracker.flips("init").fraction
        record["flips_cumulative"] = self.tracker.cumulative().per_survivor[-1]
        record["rescaled"] = self.rescaled
        record["inner_scaling"] = self._inner_scaling()
        epoch, last = record["epoch"], self.config.epochs
        if epoch == self.config.warmup_epochs:
            self.tracker.mark("warm-up")
        every = self.config.sharpness_every
        if self.config.sharpness_images and (epoch == last or (every and epoch % every == 0)):
            began = time.perf_counter()
            record["sharpness"] = sharpness_of(self.model, self.data, self.config.sharpness_images)
            record["sharpness_seconds"] = time.perf_counter() - began

    def layers(self) -> list[Record]:
        """Return one record per pruned weight."""
        stages = {name: self.tracker.flips(*ends) for name, ends in _STAGES.items()}
        masks = pol.masks(self.model)
        return [
            {
                "name": name,
                "total": mask.numel(),
                "survivors": int(mask.sum()),
                **{stage: report[name].fraction for stage, report in stages.items()},
            }
            for name, mask in masks.items()
        ]

    def final(self, records: list[Record]) -> Record:
        """Return the whole model's numbers at the end."""
        last = records[-1]
        accuracies = [record["test_accuracy"] for record in records]
        return {
            "test_accuracy": last["test_accuracy"],
            "best_test_accuracy": max(accuracies),
            "density": pol.density(self.model),
            "flips_cumulative": last["flips_cumulative"],
            "sharpness": last.get("sharpness"),
            "inner_scaling": last["inner_scaling"],
            **{stage: self.tracker.flips(*ends).fraction for stage, ends in _STAGES.items()},
        }

    def _inner_scaling(self) -> Record | None:
        if not self.config.parametrized:
            return None
        layers = pol.inner_scaling(self.model)
        values = torch.cat([layer.flatten() for layer in layers.values()])
        mean, low, high = (float(x) for x in (values.mean(), values.min(), values.max()))
        if not math.isfinite(mean):
            return None  # a training that diverged
        return {
            "mean": mean,
            "min": low,
            "max": high,
            "layers": {name: float(layer.mean()) for name, layer in layers.items()},
        }


_STAGES = {
    "init_to_warmup": ("init", "warm-up"),
    "warmup_to_end": ("warm-up",),
    "init_to_end": ("init",),
}


def sharpness_of(model: nn.Module, data: Dataset, images: int) -> float | None:
    """Compute the largest Hessian eigenvalue of the mean loss of the first training images.

    In the surviving weights θ (not in their factors), biases and norms, and in evaluation mode.
    """
    x, y = data.train_x[:images], data.train_y[:images]
    batches = list(zip(x.split(_SHARPNESS_CHUNK), y.split(_SHARPNESS_CHUNK), strict=True))
    try:
        return pol.sharpness(model, cross_entropy, batches, tolerance=_SHARPNESS_TOLERANCE)
    except RuntimeError:
        # A training that diverged has no Hessian; its accuracy is a result all the same.
        return None


def _penalty(config: SignInConfig) -> Callable[[nn.Module], torch.Tensor] | None:
    if not config.frobenius_decay:
        return None
    # Half, so that its gradient in θ = m⊙v is λθ: that of weight decay of the same strength.
    strength = 0.5 * config.frobenius_decay
    return lambda model: strength * pol.frobenius_decay(model)
