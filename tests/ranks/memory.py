"""The largest tensor that a call makes on a rank, by the operations that PyTorch dispatches."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import polarity as pol
from polarity import analysis
from tests.models import seeded
from tests.ranks.sharded import divided

CALLS = (
    "density",
    "enforce_in_step",
    "imp_prune",
    "imp_prune with rewind",
    "prune by random scores",
    "prune by a function",
    "load_masks",
    "masks",
    "capture",
    "reinit_signs",
    "reinit_signs, standard",
    "sign_flips",
    "SignTracker.step",
    "signed_mask",
    "apply",
    "start_from_signs",
    "start_from_magnitudes",
    "rescale",
    "restore_weights",
    "step",
)
# More than the counts that are exchanged, and divided evenly by 2 and 4 ranks.
_ROWS = 600


def _wide() -> nn.Module:
    return nn.Sequential(nn.Linear(100, _ROWS), nn.Linear(_ROWS, 50))


class _Largest(TorchDispatchMode):
    """Record the entries of the largest plain tensor that an operation returned."""

    def __init__(self) -> None:
        super().__init__()
        self.entries = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        for each in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(each, Tensor):
                piece = each._local_tensor if hasattr(each, "placements") else each
                # A copy of a storage is counted in bytes, and its numbers have four.
                size = piece.numel() // 4 if piece.dtype is torch.uint8 else piece.numel()
                self.entries = max(self.entries, size)
        return result


def largest_tensors() -> dict[str, int]:
    """Return the entries of the largest tensor that each call makes on this rank."""
    model = divided(pol.mask_weights(seeded(_wide(), 0)), True)
    sgd = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    weight = model[0].parametrizations.weight.original
    found = {"whole": weight.numel(), "piece": weight.to_local().numel()}

    def measured(call: str, function: Callable[[], Any]) -> Any:
        with _Largest() as largest:
            value = function()
        found[call] = largest.entries
        return value

    measured("enforce_in_step", lambda: pol.enforce_in_step(model, sgd))
    for _ in range(2):
        model(torch.ones(2, 100)).square().mean().backward()
        measured("step", sgd.step)
    start = measured("capture", lambda: pol.RewindPoint.capture(model, sgd))
    draw = torch.Generator().manual_seed(0)
    for call, function in {
        "density": lambda: pol.density(model),
        "imp_prune": lambda: pol.imp_prune(model, 0.2, optimizer=sgd, ties="random"),
        "imp_prune with rewind": lambda: pol.imp_prune(model, 0.2, rewind=start, optimizer=sgd),
        "prune by random scores": lambda: pol.prune(
            model, pol.scores.random, 0.2, generator=draw, optimizer=sgd
        ),
        "prune by a function": lambda: pol.prune(model, lambda name, w: w.square(), 0.2),
        "restore_weights": lambda: start.restore_weights(model),
    }.items():
        measured(call, function)
    trained = pol.RewindPoint.capture(model)
    pol.imp_prune(model, 0.2)
    perturb = (pol.Epsilon(0.2), pol.Delta(0.2, ties="random"))
    tracker = pol.SignTracker(model, keep_steps=False)
    ticket = measured("signed_mask", lambda: pol.signed_mask(model))
    masks = pol.masks(model)
    for call, function in {
        "reinit_signs, standard": lambda: pol.reinit_signs(
            model, "standard", perturb, init=start, trained=trained
        ),
        "start_from_signs": lambda: pol.start_from_signs(model, ticket, masks),
        "start_from_magnitudes": lambda: pol.start_from_magnitudes(model, trained, masks),
        "apply": lambda: ticket.apply(model),
        "reinit_signs": lambda: pol.reinit_signs(model, "gradual", perturb, init=start),
        "sign_flips": lambda: analysis.sign_flips(start, model),
        "SignTracker.step": tracker.step,
    }.items():
        measured(call, function)
    products = divided(pol.sign_in(seeded(_wide(), 0)), True)
    measured("rescale", lambda: pol.rescale(products))
    masks = measured("masks", lambda: pol.masks(model))
    measured("load_masks", lambda: pol.load_masks(model, masks))
    return found
