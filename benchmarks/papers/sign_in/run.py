"""One run of the Sign-In experiment: mask a fresh network, train it, count what its signs did."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from ...harness.data import Dataset
from ...harness.recipe_training import Record, recipe_optimizer, train
from .config import SignInConfig
from .masks import prune_at_initialisation
from .matched import matched_optimizer
from .network import converted, fresh_network
from .watch import Measured, Watch, product_penalty


def train_sparse(
    config: SignInConfig,
    data: Dataset,
    *,
    on_epoch: Callable[[Record], None] | None = None,
    compile: bool | str = False,
    graphs: bool = False,
) -> Measured:
    """Perform a run from its settings alone.

    Args:
        config: settings.
        data: resident data set, on the device of the run.
        on_epoch: called with the record of each finished epoch.
        compile: as for `recipe_training.train`.
        graphs: as for `recipe_training.train`.

    Returns:
        What was measured.
    """
    model = fresh_network(config, data)
    prune_at_initialisation(model, data, config)
    model = converted(model, config)
    optimizer = _optimizer(config, model, graphs=graphs)
    watch = Watch(config, model, data, optimizer)

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
        penalty=product_penalty(config.frobenius_decay) if config.parametrized else None,
        bf16=config.bf16,
        channels_last=config.channels_last,
        compile=compile,
        graphs=graphs,
    )
    return watch.finish(records)


def _optimizer(config: SignInConfig, model: nn.Module, *, graphs: bool) -> torch.optim.Optimizer:
    """Make the recipe's optimizer, or that of the control at the products' rate."""
    if config.way != "matched":
        return recipe_optimizer(config.recipe, model, graphs=graphs)
    return matched_optimizer(
        config.recipe,
        model,
        beta=config.beta or 1.0,
        decay=config.frobenius_decay or 0.0,
        graphs=graphs,
    )
