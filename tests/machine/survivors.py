"""Compact weights: to store survivors alone and densely again, while the reference stays dense."""

import random
from typing import Any

import torch

import polarity as pol
from tests.machine.run import Run, Step, recompact
from tests.machine.training import put_zeros_back

# Their steps depend on the shape of a parameter, or their state is one of all parameters.
BY_SHAPE = ("adafactor", "muon", "lbfgs")
# Where a step is continuous in the gradient, so that another order of its sum moves it a little.
SMOOTH = ("sgd", "momentum", "nesterov", "sgd_foreach", "accumulating", "two_groups")


def compact(run: Run, draw: random.Random) -> Step | None:
    """Store the survivors of masked weights alone, with what optimizers remember of them."""
    masked = run.reference.masked()
    if not masked or run.setting.name in BY_SHAPE or run.handle is not None:
        return None
    if not all(weight.enforce for weight in masked.values()):
        return None
    multiplies = run.setting.name in SMOOTH and draw.random() < 0.5

    def act() -> None:
        for weight in masked.values():
            weight.multiplies = multiplies
        recompact(run.model, run.optimizer, list(masked.values()))

    def expect(_: Any) -> None:
        for weight in masked.values():
            weight.compact = True
            run.reference.clear(weight)
            for leaf in weight.leaves:
                leaf.grad = None
        run.reference.forget_pruned(masked.values())

    return Step(f"compact(multiplies={multiplies})", act, expect)


def expand(run: Run, draw: random.Random) -> Step | None:
    """Store everything densely again: zeros outside the masks, and nothing remembered there."""
    compact = run.compact_weights()
    if not compact:
        return None

    def expect(_: Any) -> None:
        for weight in compact:
            weight.compact = False
            for leaf in weight.leaves:
                leaf.grad = None
        run.reference.forget_pruned(compact)
        put_zeros_back(run)

    return Step("expand", lambda: pol.expand(run.model, optimizer=run.optimizer), expect)


def refused_growth(run: Run, draw: random.Random) -> Step | None:
    """Give entries back to a compact weight, which stores nothing for them."""
    compact = [w for w in run.compact_weights() if not w.mask.all()]
    if not compact:
        return None
    weight = draw.choice(compact)
    ones = torch.ones(weight.mask.shape)
    calls: dict[str, Any] = {
        "load_masks": lambda: pol.load_masks(run.model, {weight.name: ones}),
        "standard": lambda: pol.reinit_signs(
            run.model, "standard", init=run.captured[0], trained=run.captured[0]
        ),
    }
    if run.captured is None:
        del calls["standard"]
    name = draw.choice(list(calls))
    return Step(f"refused: {name}, compact", calls[name], refused=ValueError, says="expand(")


OPERATIONS = {"compact": compact, "expand": expand, "refused_growth": refused_growth}
