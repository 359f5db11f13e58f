"""What makes a network sparse on ImageNet: a random mask, AC/DC, RigL or STR, and Sign-In."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

import polarity as pol

from ...harness.recipe_training import recipe_optimizer
from ...harness.recipes import Recipe
from ...harness.schedules import Schedule
from .imagenet_options import ImageNetOptions
from .recipes import ACDC, RIGL, STR, SignInRecipe


@dataclass
class Attached:
    """A model with its method, and what trains it.

    Attributes:
        model: with masks, factors or thresholds.
        optimizer: of all of its parameters.
        label_smoothing: of the loss.
        frobenius_decay: strength of the penalty on the products m⊙v; 0 without Sign-In.
        schedule: of the masks, stepped after the optimizer; None where they stay as they are.
        rescaling: stepped before each epoch; None where nothing is rescaled.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    label_smoothing: float
    frobenius_decay: float
    schedule: pol.dense_to_sparse.ACDC | pol.dense_to_sparse.RigL | None = None
    rescaling: pol.RescaleSchedule | None = None

    def density(self) -> float:
        """Return the fraction of entries that forward computes with."""
        if self.schedule is not None:
            return self.schedule.density()
        return pol.dense_to_sparse.soft_density(self.model)

    def stateful(self) -> dict[str, Any]:
        """Return what a checkpoint holds, by name."""
        every = {
            "model": self.model,
            "optimizer": self.optimizer,
            "schedule": self.schedule,
            "rescaling": self.rescaling,
        }
        return {name: each for name, each in every.items() if each is not None}


def attach(
    model: nn.Module,
    named: SignInRecipe,
    options: ImageNetOptions,
    steps: int,
    factor: Schedule,
    generator: torch.Generator,
) -> Attached:
    """Attach a method to a plain model and build its optimizer; DDP and compile come after.

    Args:
        model: on its device.
        named: the recipe over the epochs of this run.
        options: the method and its settings.
        steps: of the whole run.
        factor: learning rate at each step, as a factor of the peak.
        generator: of random masks; in the same state on every rank.
    """
    if options.method in ("random", "rigl"):
        densities = getattr(pol.densities, options.layers)(model, options.density)
        pol.prune(model, pol.scores.random, densities=densities, generator=generator)
    if options.sign_in:
        pol.sign_in(model, beta=named.part.beta)
    recipe = named.converted if options.sign_in else named.plain
    # DDP and the optimizer then see m and v.
    optimizer = recipe_optimizer(recipe, model)
    penalty = named.part.frobenius_decay if options.sign_in else 0.0
    attached = Attached(model, optimizer, recipe.label_smoothing, penalty)
    if options.method == "acdc":
        attached.schedule = _acdc(model, optimizer, options.density, steps)
    if options.method == "rigl":
        attached.schedule = _rigl(model, optimizer, options.update_every, steps)
    if options.method == "str":
        total = sum(factor(step) for step in range(steps))
        decay = options.str_decay
        if decay is None:
            decay = published_decay(recipe, total)
        pol.dense_to_sparse.threshold_weights(
            model, optimizer, decay=decay, s0=options.str_s0, steps=total
        )
    if options.sign_in and options.rescale_period is not None:
        attached.rescaling = pol.RescaleSchedule(
            model, every=options.rescale_period, until=named.part.until, optimizer=optimizer
        )
    return attached


def _acdc(
    model: nn.Module, optimizer: torch.optim.Optimizer, density: float, steps: int
) -> pol.dense_to_sparse.ACDC:
    try:
        switches = pol.dense_to_sparse.acdc_switches(ACDC.calendar, steps)
    except ValueError as error:
        raise SystemExit(f"error: --method acdc: {error}") from None
    return pol.dense_to_sparse.ACDC(
        model, optimizer, density=density, switches=switches, momentum=ACDC.momentum
    )


def _rigl(
    model: nn.Module, optimizer: torch.optim.Optimizer, every: int | None, steps: int
) -> pol.dense_to_sparse.RigL:
    every, end = RIGL.every if every is None else every, int(RIGL.until * steps)
    if end < every:
        raise SystemExit(
            f"error: --method rigl: no update within {end} of {steps} steps, expected one every "
            f"{every}: give a smaller --update-every, or more --epochs"
        )
    return pol.dense_to_sparse.RigL(
        model,
        optimizer,
        every=every,
        end=end,
        fraction=RIGL.fraction,
        replace_step=RIGL.replace_step,
    )


def published_decay(recipe: Recipe, total: float) -> float:
    """Return the decay of s that pulls as far in a run of this recipe as the published one does.

    Args:
        recipe: with its peak learning rate and momentum.
        total: factors of the learning rate, summed over all steps of the run.
    """
    decay = STR.pull * (1 - recipe.momentum) / (recipe.lr * total)
    # Beyond this momentum carries s past zero, where every weight is below its threshold.
    if recipe.lr * decay > (1 - math.sqrt(recipe.momentum)) ** 2:
        raise SystemExit(
            f"error: the run is too short for s to come from {STR.s0:g}: give --epochs for more, "
            "or --str-s0 -8 with a --str-decay"
        )
    return decay
