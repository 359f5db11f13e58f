"""Calls that fail on purpose: the model, its optimizers and the generator stay as they were."""

import math
import random
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import polarity as pol
from tests.machine.run import Run, Step

Bad = tuple[type[Exception] | tuple[type[Exception], ...], str, Callable[[], Any]]


def foreign_optimizer() -> torch.optim.Optimizer:
    return torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1, momentum=0.9)


def other_network() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))


def failing_score(calls: int) -> Callable[[str, Tensor], Tensor]:
    """A score that draws, works in place, and raises midway."""
    left = [calls]

    def score(name: str, weight: Tensor) -> Tensor:
        torch.rand(3)
        weight.fill_(5.0)
        left[0] -= 1
        if left[0] < 0:
            raise ValueError("no more scores")
        return weight

    return score


def nan_score(name: str, weight: Tensor) -> Tensor:
    return torch.full_like(weight, math.nan)


def pruning(run: Run, draw: random.Random) -> Step | None:
    """Everything that a pruning call can be given wrongly."""
    masked, model = run.reference.masked(), run.model
    if not masked:
        return None
    foreign, other = foreign_optimizer(), pol.RewindPoint.capture(other_network())
    good = {name: torch.zeros(weight.mask.shape) for name, weight in masked.items()}
    first = next(iter(good))
    without = {name: value for name, value in good.items() if name != first}
    full = all(weight.enforce and weight.mask.all() for weight in masked.values())
    bad: dict[str, Bad] = {
        "amount above one": (ValueError, "amount=1.5", lambda: pol.imp_prune(model, 1.5)),
        "amount that is NaN": (ValueError, "amount", lambda: pol.imp_prune(model, math.nan)),
        "amount and density": (ValueError, "", lambda: pol.imp_prune(model, 0.1, density=0.1)),
        "scope": (ValueError, "scope", lambda: pol.imp_prune(model, density=0.0, scope="model")),
        "score that raises": (
            (ValueError,), "no more",
            lambda: pol.imp_prune(model, density=0.0, score=failing_score(len(good) - 1)),
        ),
        "NaN score": (ValueError, "NaN", lambda: pol.imp_prune(model, density=0, score=nan_score)),
        "NaN scores": (
            ValueError, "NaN",
            lambda: pol.prune(model, {n: value / 0 for n, value in good.items()}, density=0.0),
        ),
        "missing name": (
            ValueError, first if without else "empty",
            lambda: pol.prune(model, without, density=0.0),
        ),
        "unknown name": (
            ValueError, "nothing", lambda: pol.prune(model, {**good, "nothing": good[first]},
                                                     density=0.0),
        ),
        "another shape": (
            ValueError, first,
            lambda: pol.prune(model, {**good, first: torch.zeros(1)}, density=0.0),
        ),
        "foreign optimizer": (
            ValueError, "optimizer",
            lambda: pol.imp_prune(model, density=0.0, optimizer=foreign),
        ),
        "optimizer of another type": (
            TypeError, "optimizer", lambda: pol.imp_prune(model, density=0.0, optimizer="sgd"),
        ),
        "generator of another type": (
            TypeError, "generator",
            lambda: pol.prune(model, pol.scores.random, density=0.0, generator=3),
        ),
        "rewind of another model": (
            ValueError, "",
            lambda: pol.imp_prune(model, density=0.0, rewind=other),
        ),
        "rewind of another type": (
            TypeError, "rewind", lambda: pol.lrr_step(model, density=0.0, rewind={}),
        ),
        "densities of another name": (
            ValueError, "densities", lambda: pol.prune(model, good, densities={"nothing": 0.1}),
        ),
    }  # fmt: skip
    if not any(weight.live.any() for weight in masked.values()):
        del bad["NaN scores"], bad["NaN score"]  # the scores of pruned entries are not looked at
    if not full and all(weight.enforce for weight in masked.values()):
        bad["density above the present"] = (
            ValueError, "density", lambda: pol.imp_prune(model, density=1.0),
        )  # fmt: skip
    if not all(weight.enforce for weight in masked.values()):
        bad["amount of a remembered mask"] = (
            ValueError,
            "amount",
            lambda: pol.imp_prune(model, 0.1),
        )
    return chosen("pruning", bad, draw)


def masks(run: Run, draw: random.Random) -> Step | None:
    model, name = run.model, draw.choice(run.kind.weights)
    shape = run.reference.weights[name].leaves[0].shape
    bad: dict[str, Bad] = {
        "half a mask": (
            ValueError, name, lambda: pol.load_masks(model, {name: torch.full(shape, 0.5)}),
        ),
        "NaN": (
            ValueError, name, lambda: pol.load_masks(model, {name: torch.full(shape, math.nan)}),
        ),
        "another shape": (
            ValueError, name, lambda: pol.load_masks(model, {name: torch.ones(3, 3, 3, 3, 3)}),
        ),
        "unknown name": (
            ValueError, "nothing", lambda: pol.load_masks(
                model, {name: torch.ones(shape), "nothing": torch.ones(1)}),
        ),
        "no tensor": (TypeError, name, lambda: pol.load_masks(model, {name: [1]})),
        "no mask": (ValueError, "masks", lambda: pol.load_masks(model, {})),
        "selector that matches nothing": (
            ValueError, "nothing", lambda: pol.mask_weights(model, targets="nothing*"),
        ),
        "model of another type": (TypeError, "model", lambda: pol.masks("model")),
    }  # fmt: skip
    return chosen("masks", bad, draw)


def conversions(run: Run, draw: random.Random) -> Step | None:
    model, masked = run.model, run.reference.masked()
    plain = not any(weight.form == "sign_in" for weight in masked.values())
    norms = run.reference.norms()
    foreign, other = foreign_optimizer(), other_network()
    given = {} if run.kind.by_default or masked else {"targets": run.kind.weights}
    bad: dict[str, Bad] = {
        "beta": (ValueError, "", lambda: pol.sign_in(model, beta=-1, **given)),
        "infinite beta": (ValueError, "", lambda: pol.sign_in(model, beta=math.inf, **given)),
        "beta of another name": (
            ValueError, "", lambda: pol.sign_in(model, beta={"nothing": 1.0}, **given),
        ),
        "optimizer of another type": (
            (TypeError, ValueError), "", lambda: pol.sign_in(model, optimizer=3, **given)
            if plain else pol.merge(model, optimizer=3),
        ),
        "alpha": (ValueError, "", lambda: pol.set_norm_alpha(model, 1.5)),
        "initial": (
            (ValueError, TypeError), "", lambda: pol.interpolate_norms(model, initial=[1])
            if run.reference.norm_names() else pol.interpolate_norms(other),
        ),
        "every": (
            (ValueError, TypeError), "", lambda: pol.RescaleSchedule(model, every=0),
        ),
    }  # fmt: skip
    if plain and masked:
        bad["foreign optimizer"] = (
            ValueError, "optimizer", lambda: pol.sign_in(model, optimizer=foreign),
        )  # fmt: skip
        bad["nothing to rescale"] = (ValueError, "", lambda: pol.rescale(model))
    if not plain:
        bad["merge with a foreign optimizer"] = (
            ValueError, "optimizer", lambda: pol.merge(model, optimizer=foreign),
        )  # fmt: skip
        bad["momentum"] = (ValueError, "momentum", lambda: pol.rescale(model, momentum="half"))
        bad["momentum without optimizer"] = (
            ValueError, "momentum", lambda: pol.rescale(model, momentum="zero"),
        )  # fmt: skip
    if not masked and not norms:
        bad["nothing to merge"] = (ValueError, "", lambda: pol.merge(model))
        bad["nothing to enforce"] = (
            ValueError, "", lambda: pol.enforce_in_step(model, run.optimizer),
        )  # fmt: skip
    if norms:
        bad["state of a stream"] = (
            ValueError, "", lambda: pol.load_norm_alpha_state(
                model, dict.fromkeys(pol.norm_alpha_state(model), torch.zeros(2).long())),
        )  # fmt: skip
    if run.handle is not None and any(weight.in_step for weight in masked.values()):
        bad["enforced twice"] = (
            ValueError, "", lambda: pol.enforce_in_step(model, run.optimizer),
        )  # fmt: skip
    return chosen("conversion", bad, draw)


def signs(run: Run, draw: random.Random) -> Step | None:
    model, masked = run.model, run.reference.masked()
    if not masked or run.captured is None:
        return None
    init = run.captured[0]
    first = next(iter(masked))
    bad: dict[str, Bad] = {
        "strategy": (ValueError, "strategy", lambda: pol.reinit_signs(model, "best", init=init)),
        "standard without trained": (
            ValueError, "trained", lambda: pol.reinit_signs(model, "standard", init=init),
        ),
        "init without a weight": (
            ValueError, first, lambda: pol.reinit_signs(
                model, init={k: v for k, v in init.weights.items() if k != first}),
        ),
        "NaN in init": (
            ValueError, first, lambda: pol.reinit_signs(
                model, "gradual", init={**init.weights, first: init.weights[first] * math.nan}),
        ),
        "a perturbation that draws and fails": (
            ValueError, "", lambda: pol.reinit_signs(
                model, "gradual", [pol.Epsilon(0.3), lambda s, m, g: s * 3], init=init),
        ),
        "mix": (ValueError, "mix", lambda: pol.reinit_signs(model, "gradual", init=init, mix=7)),
        "generator": (
            TypeError, "generator", lambda: pol.reinit_signs(model, init=init, generator=0),
        ),
        "trained elsewhere": (
            ValueError, "", lambda: pol.reinit_signs(
                model, "standard", init={n: value + 90 for n, value in init.weights.items()},
                trained={n: w.effective.detach() + 70 for n, w in masked.items()}),
        ),
    }  # fmt: skip
    survivors = sum(int(weight.mask.sum()) for weight in masked.values())
    if survivors == 0:
        del bad["trained elsewhere"], bad["a perturbation that draws and fails"]
    return chosen("signs", bad, draw)


def moments(run: Run, draw: random.Random) -> Step | None:
    """Rewind points and tickets of another network."""
    model = run.model
    other = other_network()
    ticket = pol.signed_mask(pol.mask_weights(other))
    bad: dict[str, Bad] = {
        "point of another model": (
            ValueError, "", lambda: pol.RewindPoint.capture(other).restore_weights(model),
        ),
        "only": (
            ValueError, "only",
            lambda: pol.RewindPoint.capture(model).restore_weights(model, only="some"),
        ),
        "point without an optimizer": (
            ValueError, "optimizer",
            lambda: pol.RewindPoint.capture(model).restore_schedule(run.optimizer),
        ),
        "ticket of another model": (ValueError, "", lambda: ticket.apply(model)),
        "file that is missing": (
            (FileNotFoundError, OSError), "", lambda: pol.load(model, "/nowhere/model.safetensors"),
        ),
        "no targets": (ValueError, "", lambda: pol.densities.erk(model, 1.5)),
        "unknown target": (ValueError, "", lambda: pol.find_targets(model, "nothing")),
    }  # fmt: skip
    return chosen("moment", bad, draw)


def not_finite(run: Run, draw: random.Random) -> Step | None:
    """A NaN in a weight: every call that reads it refuses, and names the weight."""
    masked = run.reference.masked()
    live = [w for w in masked.values() if w.form == "masked" and w.mask.any()]
    if not live:
        return None
    weight = draw.choice(live)
    place = 0 if weight.compact else int(weight.mask.reshape(-1).nonzero()[0])
    calls: dict[str, Callable[[], Any]] = {
        "imp_prune": lambda: pol.imp_prune(run.model, density=0.0),
        "prune": lambda: pol.prune(run.model, pol.scores.magnitude, density=0.0),
        "sign_in": lambda: pol.sign_in(run.model),
        "signed_mask": lambda: pol.signed_mask(run.model),
    }
    name = draw.choice(list(calls))

    def act() -> None:
        with torch.no_grad():
            flat = run.stored(weight)[0].view(-1)
            before = flat[place].clone()
            flat[place] = math.nan
            try:
                calls[name]()
            finally:
                flat[place] = before

    return Step(f"{name} with NaN in {weight.name}", act, refused=ValueError, says=weight.name)


def chosen(group: str, bad: dict[str, Bad], draw: random.Random) -> Step:
    what = draw.choice(list(bad))
    error, says, act = bad[what]
    return Step(f"refused: {group}, {what}", act, refused=error, says=says)


OPERATIONS = {
    "refused_pruning": pruning, "refused_masks": masks, "refused_conversions": conversions,
    "refused_signs": signs, "refused_moments": moments, "refused_not_finite": not_finite,
}  # fmt: skip
