"""Signs, flips and tickets, as one process and as several ranks take and give them."""

import tempfile
from pathlib import Path

import torch
from torch import Tensor, distributed, nn

import polarity as pol
from polarity import analysis
from tests.ranks.cases import noted, ready
from tests.ranks.sharded import Tensors, batch, train, whole
from tests.ranks.signs import initial, pruned


def text(value: object) -> Tensor:
    return torch.tensor(bytearray(str(value).encode()))


def flips(sharded: bool) -> Tensors:
    """Signs that are compared and tracked while a model trains and is pruned."""
    found: Tensors = {}
    model, sgd = ready(sharded)
    start = pol.RewindPoint.capture(model)
    kept, counted = pol.SignTracker(model), pol.SignTracker(model, keep_steps=False)
    for number in range(3):
        train(model, sgd, start=10 * number)
        with torch.no_grad():
            model(batch(0))  # without a backward FSDP2 leaves weights whole
        for tracker in (kept, counted):
            tracker.step()
            tracker.mark(f"{number}")
        pol.imp_prune(model, 0.3, optimizer=sgd)
    masks = {name: torch.ones(mask.shape) for name, mask in pol.masks(model).items()}
    end = pol.RewindPoint.capture(model)
    found |= {f"signs: {name}": whole(signs) for name, signs in kept.signs("1").items()}
    reports = {
        "of models": analysis.sign_flips(start, model),
        "of points": analysis.sign_flips(start, end),
        "of whole weights": analysis.sign_flips(initial(), end, masks),
        "tracked": kept.flips("init", "2"),
        "tracked, by masks": kept.flips("0", masks=masks),
        "since": kept.since("0"),
        "kept": kept.cumulative(),
        "counted": counted.cumulative(),
    }
    return found | {f"report {name}": text(report) for name, report in reports.items()}


def shared_folder(sharded: bool) -> Path:
    """Return a new folder, the same on all ranks."""
    told = [tempfile.mkdtemp()]
    if sharded:
        distributed.broadcast_object_list(told, src=0)
    return Path(told[0])


def fresh(sharded: bool) -> tuple[nn.Module, torch.optim.Optimizer]:
    """Return another model, with masks that are enforced in the step in one process too.

    With masks in forward the momentum of entries that a ticket prunes moves what is stored there.
    """
    model, sgd = ready(sharded, 1)
    if not sharded:
        pol.enforce_in_step(model, sgd)
    return model, sgd


def tickets(sharded: bool) -> Tensors:
    """A ticket that is taken, saved, loaded and applied, with the signs of biases too."""
    found: Tensors = {}
    model, _, trained = pruned(sharded)
    trained.weights["first.weight"] = whole(trained.weights["first.weight"])
    trained.weights["again.weight"] = trained.weights["first.weight"]
    trained.weights["first.weight"][:, 2] = 0
    trained.restore_weights(model)  # survivors without a sign
    ticket = pol.signed_mask(model, include=nn.Linear)
    found |= {f"signs: {name}": whole(value) for name, value in ticket.signs.items()}
    found |= {f"masks: {name}": whole(value) for name, value in ticket.masks.items()}
    found["density"] = torch.tensor(ticket.density)
    path = shared_folder(sharded) / "ticket.safetensors"
    ticket.save(path, recipe={"found": "here"})
    found["file"] = torch.tensor(bytearray(path.read_bytes()))
    loaded = pol.SignedMask.load(path)
    for name, given in {"taken": ticket, "loaded": loaded}.items():
        other, sgd = fresh(sharded)
        train(other, sgd, 1)
        noted(found, f"{name}: applied", given.apply(other))
        train(other, sgd)
        noted(found, f"{name}: trained", other)
    return found


def starts(sharded: bool) -> Tensors:
    """Networks that start from a mask, with signs or magnitudes of a moment."""
    found: Tensors = {}
    model, _, trained = pruned(sharded)
    tracker, masks, ticket = pol.SignTracker(model), pol.masks(model), pol.signed_mask(model)
    draw = torch.Generator().manual_seed(3)
    for name, start in {
        "tracked signs": lambda other: pol.start_from_signs(other, tracker.signs(), masks),
        "signs of a ticket": lambda other: pol.start_from_signs(other, ticket, ticket),
        "signs of a point": lambda other: pol.start_from_signs(other, trained, ticket),
        "magnitudes": lambda other: pol.start_from_magnitudes(
            other, trained, masks, generator=draw
        ),
        "whole magnitudes": lambda other: pol.start_from_magnitudes(
            other, initial(), masks, generator=draw
        ),
        "mask": lambda other: pol.start_from_mask(other, masks),
    }.items():
        other, sgd = fresh(sharded)
        report = start(other)
        noted(found, name, other, report)
        train(other, sgd, 1)
        noted(found, f"{name}, trained", other)
    return found


TICKETS = {case.__name__: case for case in (flips, tickets, starts)}
