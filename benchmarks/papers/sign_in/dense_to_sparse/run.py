"""One run of the dense-to-sparse experiment, by a method or from what a method learned."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

import polarity as pol

from ....harness.data import Dataset
from ....harness.recipe_training import Record, recipe_optimizer, train
from ..masks import prune_at_initialisation
from ..network import converted, fresh_network
from ..watch import Measured, Watch, product_penalty
from .config import DenseToSparseConfig
from .starts import Learned, start_from


@dataclass
class _Method:
    """What changes the masks of a model during training.

    Attributes:
        density: what forward computes with.
        step: called after every step of the optimizer.
        facts: what was derived from the settings, for the record.
        for_sharpness: the network that sharpness is computed of; the model where it is None.
        updates: updates of the mask so far.
        exchanged: entries that they grew, one by one.
        explored: the fraction of entries that were ever live.
    """

    density: Callable[[], float]
    step: Callable[[], pol.dense_to_sparse.UpdateReport | None] | None = None
    facts: Record = field(default_factory=dict)
    for_sharpness: Callable[[], nn.Module] | None = None
    explored: Callable[[], float] | None = None
    updates: int = 0
    exchanged: int = 0

    def after_step(self) -> None:
        """Let the schedule act, and count what it did."""
        report = None if self.step is None else self.step()
        if report is not None:
            self.updates += 1
            self.exchanged += report.grown


def train_arm(
    config: DenseToSparseConfig,
    data: Dataset,
    *,
    learned: Learned | None = None,
    decay: float | None = None,
    on_epoch: Callable[[Record], None] | None = None,
    compile: bool | str = False,
) -> tuple[Measured, Learned]:
    """Perform a run from its settings, and for a start from what its source learned.

    Args:
        config: settings.
        data: resident data set, on the device of the run.
        learned: by the run of `config.source`, for a start.
        decay: weight decay of s, for STR.
        on_epoch: called with the record of each finished epoch.
        compile: as for `recipe_training.train`.

    Returns:
        What was measured, and what the run learned. `final` has, besides what the Sign-In
        experiment has, `steps`, `mask_updates`, `exchanged`, `ever_grown` (entries live at any time
        but not at first), `compared`, `start` (counts of the report) and `schedule`.
    """
    model, start = _network(config, data, learned)
    model = converted(model, config)
    optimizer = recipe_optimizer(config.recipe, model)
    method = _attach(config, model, optimizer, steps_of(config, data), decay)
    live = sum(int(mask.sum()) for mask in pol.masks(model).values())
    watch = Watch(config, model, data, optimizer, for_sharpness=method.for_sharpness)
    kept = Learned()

    def finished(record: Record) -> None:
        record["density"] = method.density()
        watch.after(record)
        for moment, epoch in (("10", config.warmup_epochs), ("30", config.middle_epochs)):
            if config.is_source and record["epoch"] == epoch:
                kept.keep(moment, model)
        if on_epoch is not None:
            on_epoch(record)

    records = _fit(
        config,
        data,
        model,
        optimizer,
        before_epoch=watch.before,
        after_step=method.after_step,
        on_epoch=finished,
        penalty=product_penalty(config.frobenius_decay),
        test_every=config.test_every,
        compile=compile,
    )
    kept.keep("final", model)
    if decay is not None:
        pol.dense_to_sparse.extract_soft_mask(model, optimizer)
    kept.masks = pol.masks(model)
    measured = watch.finish(records)
    total = sum(layer["total"] for layer in measured.layers)
    explored = None if method.explored is None else round(method.explored() * total)
    measured.final.update(
        steps=steps_of(config, data),
        mask_updates=method.updates,
        exchanged=method.exchanged,
        ever_grown=None if explored is None else explored - live,
        compared=watch.compared(),
        start=start,
        schedule=method.facts,
    )
    return measured, kept


def train_trial(
    config: DenseToSparseConfig, data: Dataset, decay: float, *, compile: bool | str = False
) -> Record:
    """Perform a whole STR run with a decay, and return where it ended.

    Args:
        config: settings of the search.
        data: resident data set.
        decay: weight decay of s.
        compile: as for `recipe_training.train`.

    Returns:
        `decay`, `density` and test `accuracy`.
    """
    model, _ = _network(config, data, None)
    optimizer = recipe_optimizer(config.recipe, model)
    method = _attach(config, model, optimizer, steps_of(config, data), decay)
    records = _fit(config, data, model, optimizer, test_every=0, compile=compile)
    accuracy = records[-1]["test_accuracy"]
    return {"decay": decay, "density": method.density(), "accuracy": accuracy}


def _fit(
    config: DenseToSparseConfig,
    data: Dataset,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    **how: Any,
) -> list[Record]:
    """Train by the settings of a run; `how` is the rest of what `train` takes."""
    return train(
        model,
        data,
        config.recipe,
        generator=torch.Generator().manual_seed(config.stream("batches")),
        optimizer=optimizer,
        padding=config.crop_padding,
        bf16=config.bf16,
        channels_last=config.channels_last,
        **how,
    )


def steps_of(config: DenseToSparseConfig, data: Dataset) -> int:
    """Return how many steps the optimizer takes in a run."""
    return config.epochs * math.ceil(len(data.train_y) / config.batch_size)


def schedule_of(config: DenseToSparseConfig, steps: int) -> Record:
    """Return what the settings of a method mean for a number of steps.

    Raises:
        ValueError: so few steps leave a phase of AC/DC's calendar, or RigL, without any.
    """
    if config.start is not None:
        return {}
    if config.method == "acdc":
        calendar = config.acdc_calendar or "imagenet"
        return {"switches": list(pol.dense_to_sparse.acdc_switches(calendar, steps))}
    if config.method == "rigl":
        end = int((config.rigl_until or 0.75) * steps)
        every = end // (config.rigl_updates or 60)
        if every < 1:
            raise ValueError(
                f"--rigl-updates {config.rigl_updates}, but RigL updates in {end} steps only"
            )
        return {"every": every, "end": end}
    return {}


def _network(
    config: DenseToSparseConfig, data: Dataset, learned: Learned | None
) -> tuple[nn.Module, dict[str, int] | None]:
    """Build the network with the masks it begins with, and tell what a start was given."""
    model = fresh_network(config, data)
    if config.start is not None:
        if learned is None:
            raise ValueError(f"{config.arm} starts from what {config.source.arm} learned")
        report = start_from(model, config, learned)
        counts = {name: getattr(report, name) for name in ("survivors", "missing", "zeros")}
        return model, counts
    if config.method not in ("acdc", "str"):
        prune_at_initialisation(model, data, config)
    else:
        pol.mask_weights(model)
    return model, None


def _attach(
    config: DenseToSparseConfig,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    steps: int,
    decay: float | None,
) -> _Method:
    """Attach the method of a run to its model and optimizer; starts and fixed masks have none."""
    facts = schedule_of(config, steps)
    if config.start is None and config.method == "acdc":
        acdc = pol.dense_to_sparse.ACDC(
            model, optimizer, density=config.density, switches=facts["switches"]
        )
        return _Method(acdc.density, acdc.step, facts)
    if config.start is None and config.method == "rigl":
        rigl = pol.dense_to_sparse.RigL(
            model,
            optimizer,
            every=facts["every"],
            end=facts["end"],
            fraction=config.rigl_fraction or 0.3,
            replace_step=bool(config.rigl_replace_step),
        )

        def closed() -> nn.Module:
            # The mask may be open for an update of the next step.
            return pol.load_masks(copy.deepcopy(model), pol.masks(model))

        return _Method(rigl.density, rigl.step, facts, closed, rigl.explored)
    if config.start is None and config.method == "str":
        if decay is None:
            raise ValueError("STR needs the weight decay of s")
        s0 = -8.0 if config.str_s0 is None else config.str_s0
        pol.dense_to_sparse.threshold_weights(model, optimizer, decay=decay, s0=s0)
        return _Method(
            lambda: pol.dense_to_sparse.soft_density(model), facts={"decay": decay, "s0": s0}
        )
    return _Method(lambda: pol.density(model))
