"""Schedules on a model that ranks have divided, and on the same model in one process."""

import torch
from torch import nn

import polarity as pol
from tests.ranks.cases import noted, ready
from tests.ranks.sharded import Tensors, train


def _rounds(
    model: nn.Module, sgd: torch.optim.Optimizer, rewind: str | None, seed: int
) -> pol.PruneRounds:
    schedulers = [torch.optim.lr_scheduler.StepLR(sgd, 2, gamma=0.5)] if rewind else []
    return pol.PruneRounds(
        model,
        0.3,
        every=2,
        rounds=2,
        rewind=rewind,
        optimizer=sgd,
        scheduler=schedulers or None,
        ties="random",
        generator=torch.Generator().manual_seed(seed),
    )


def rounds_as_a_schedule(sharded: bool) -> Tensors:
    """Rounds of each kind, with a state that another schedule goes on with."""
    found: Tensors = {}
    for rewind in ("weights", "schedule", None):
        model, sgd = ready(sharded)
        train(model, sgd)
        rounds = _rounds(model, sgd, rewind, 1)
        for epoch in range(5):
            if epoch == 3:
                state = rounds.state_dict()
                rounds = _rounds(model, sgd, rewind, 2)
                rounds.load_state_dict(state)
            train(model, sgd, start=10 * epoch)
            noted(found, f"{rewind}, epoch {epoch}", model, rounds.step())
    return found


def _gradual(
    model: nn.Module, sgd: torch.optim.Optimizer, scope: str, seed: int
) -> pol.dense_to_sparse.GradualMagnitude:
    return pol.dense_to_sparse.GradualMagnitude(
        model,
        sgd,
        density=0.2,
        begin=1,
        end=6,
        every=2,
        scope=scope,
        ties="random",
        generator=torch.Generator().manual_seed(seed),
    )


def gradually(sharded: bool) -> Tensors:
    """Gradual pruning, with a state that another schedule goes on with."""
    found: Tensors = {}
    for scope in ("global", "layer"):
        model, sgd = ready(sharded)
        schedule = _gradual(model, sgd, scope, 3)
        for step in range(7):
            if step == 4:
                state = schedule.state_dict()
                schedule.remove()
                schedule = _gradual(model, sgd, scope, 4)
                schedule.load_state_dict(state)
            train(model, sgd, 1, start=step)
            noted(found, f"{scope}, step {step}", model, schedule.step())
            computed = [schedule.density(), schedule.density_at(step)]
            found[f"{scope}, step {step}: computed"] = torch.tensor(computed)
    return found


SCHEDULES = {case.__name__: case for case in (rounds_as_a_schedule, gradually)}
