"""What is done to a model between its epochs, and what is looked at: signs, factors, curvature."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn
from torch.nn.functional import cross_entropy

import polarity as pol

from ...harness.data import Dataset
from ...harness.recipe_training import Record
from ...harness.results import finite

_SHARPNESS_CHUNK = 256
# The differences between methods and seeds are far above a per cent.
_SHARPNESS_TOLERANCE = 1e-2

_STAGES = {
    "init_to_warmup": ("init", "warm-up"),
    "warmup_to_end": ("warm-up",),
    "init_to_end": ("init",),
}


@dataclass(frozen=True)
class Measured:
    """What a run measured.

    Attributes:
        epochs: one record per epoch: those of `recipe_training.train`, `flips` (fraction of the
            survivors whose sign is not the initial one), `flips_cumulative` (flips so far per
            survivor), `inner_scaling` (mean, least and largest β̂, or None), `rescaled`, and
            `sharpness` where it was computed. Survivors are those of the mask at the end.
        layers: one record per pruned weight: size, survivors and flips between initialisation,
            the end of the warm-up and the end.
        final: test accuracy after the last epoch, its best over the epochs that were tested, and
            the whole model's numbers at the end.
    """

    epochs: list[Record]
    layers: list[Record]
    final: Record


class WatchSettings(Protocol):
    """What a run's settings say of what happens between its epochs."""

    @property
    def warmup_epochs(self) -> int: ...
    @property
    def parametrized(self) -> bool: ...
    @property
    def rescale_period(self) -> int | None: ...
    @property
    def rescale_until(self) -> int | None: ...
    @property
    def rescale_momentum(self) -> str | None: ...
    @property
    def sharpness_images(self) -> int: ...
    def measures_sharpness(self, epoch: int) -> bool: ...


class Watch:
    """Rescale a model before its epochs, and record what its signs, factors and curvature are.

    Args:
        config: settings of the run.
        model: the model, with what is attached before training.
        data: whose first training images the sharpness is computed of.
        optimizer: trains the model.
        for_sharpness: returns the network that sharpness is computed of; the model by default.
    """

    def __init__(
        self,
        config: WatchSettings,
        model: nn.Module,
        data: Dataset,
        optimizer: torch.optim.Optimizer,
        *,
        for_sharpness: Callable[[], nn.Module] | None = None,
    ) -> None:
        self.config, self.model, self.data = config, model, data
        self.tracker = pol.SignTracker(model)
        self._for_sharpness = for_sharpness or (lambda: model)
        self._rescaled = False
        self._rescaling: pol.RescaleSchedule | None = None
        if config.rescale_period is not None:
            momentum: Any = config.rescale_momentum or "keep"
            self._rescaling = pol.RescaleSchedule(
                model,
                every=config.rescale_period,
                until=config.rescale_until,
                optimizer=optimizer,
                momentum=momentum,
            )

    def before(self, epoch: int) -> None:
        """Rescale before epoch i where i is a multiple of p and below T2 (Algorithm 1)."""
        self._rescaled = self._rescaling is not None and self._rescaling.step()

    def after(self, record: Record) -> None:
        """Record signs, and add to an epoch's record what its factors and curvature are."""
        self.tracker.step()
        record["rescaled"] = self._rescaled
        record["inner_scaling"] = self._inner_scaling()
        epoch = record["epoch"]
        if epoch == self.config.warmup_epochs:
            self.tracker.mark("warm-up")
        if self.config.sharpness_images and self.config.measures_sharpness(epoch):
            began = time.perf_counter()
            network = self._for_sharpness()
            record["sharpness"] = sharpness_of(network, self.data, self.config.sharpness_images)
            record["sharpness_seconds"] = time.perf_counter() - began

    def finish(self, records: list[Record]) -> Measured:
        """Count the flips through the mask that the model ends with, and sum everything up.

        Args:
            records: of all epochs; their flips are added.
        """
        since = self.tracker.since("init")
        cumulative = self.tracker.cumulative().per_survivor
        for record, report, so_far in zip(records, since, cumulative, strict=True):
            record |= {"flips": report.fraction, "flips_cumulative": so_far}
        stages = {name: self.tracker.flips(*ends) for name, ends in _STAGES.items()}
        layers = [
            {
                "name": name,
                "total": mask.numel(),
                "survivors": int(mask.sum()),
                **{stage: report[name].fraction for stage, report in stages.items()},
            }
            for name, mask in pol.masks(self.model).items()
        ]
        last = records[-1]
        final = {
            "test_accuracy": last["test_accuracy"],
            "best_test_accuracy": max(
                record["test_accuracy"] for record in records if "test_accuracy" in record
            ),
            "density": pol.density(self.model),
            "flips_cumulative": last["flips_cumulative"],
            "sharpness": last.get("sharpness"),
            "inner_scaling": last["inner_scaling"],
            **{stage: report.fraction for stage, report in stages.items()},
        }
        return Measured(records, layers, final)

    def compared(self) -> dict[str, float]:
        """Return which fraction of the survivors has a sign at both ends of each stage.

        It is below 1 where the mask changed: an entry that was pruned had no sign then.
        """
        reports = {name: self.tracker.flips(*ends) for name, ends in _STAGES.items()}
        return {name: each.counted / max(1, each.survivors) for name, each in reports.items()}

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
            # A layer without survivors has no mean.
            "layers": {name: finite(float(layer.mean())) for name, layer in layers.items()},
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


def product_penalty(decay: float | None) -> Callable[[nn.Module], torch.Tensor] | None:
    """Return the penalty λ/2 · Σ(m⊙v)² of a Frobenius decay λ, if there is one."""
    if not decay:
        return None
    # Half, so that its gradient in θ = m⊙v is λθ: that of weight decay of the same strength.
    strength = 0.5 * decay
    return lambda model: strength * pol.frobenius_decay(model)
