"""A training recipe: everything that decides how a network is trained.

Each paper has its own in `papers/<paper>/recipes`. Nothing here needs torch, so `--help` answers at
once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from .names import OptimizerName, ScheduleName


@dataclass(frozen=True)
class Recipe:
    """How one network is trained.

    Attributes:
        epochs: passes over the training images.
        batch_size: images per step.
        optimizer: `sgd`, `adam` (decay as an L2 penalty) or `adamw` (decoupled decay).
        lr: peak learning rate.
        momentum: for `sgd`; the others keep torch's betas.
        weight_decay: applies to every parameter, norms and biases among them.
        schedule: one of `benchmarks.harness.schedules.SCHEDULES`, advanced at every step.
        final_lr: factor of the peak rate at the end of a triangular or cosine schedule.
        label_smoothing: probability that is taken from the label and shared by all classes.
        augment: random crop (4 pixels of padding where an experiment has no other number) and
            horizontal flip of each training image.
    """

    epochs: int
    batch_size: int
    optimizer: OptimizerName = "sgd"
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 0.0
    schedule: ScheduleName = "constant"
    final_lr: float = 0.0
    label_smoothing: float = 0.0
    augment: bool = False

    def scaled(self, epochs: int) -> Recipe:
        """Return the same recipe over another number of epochs; its schedule is stretched."""
        return replace(self, epochs=epochs)
