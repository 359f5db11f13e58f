"""Calls that are refused for a sharded model, by each rank or by one of them."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed, nn

import polarity as pol
from polarity import analysis
from tests.ranks.factors import products
from tests.ranks.sharded import Tensors, state_of, train, uneven
from tests.ranks.worlds import (
    World,
    by_columns,
    emptied,
    flattened,
    in_part,
    no_longer_enforced,
    not_enforced,
    replicated,
    spoilt,
    spoilt_products,
    trained,
    unmasked,
)


@dataclass(frozen=True)
class Refused:
    """A call of one rank, or of all, that raises on every rank.

    Attributes:
        call: takes a masked and sharded model, its optimizer, and the rank.
        texts: what the error of a rank says.
        prepared: makes the model and the optimizer.
    """

    call: Callable[[nn.Module, torch.optim.Optimizer, int], object]
    texts: tuple[str, ...]
    prepared: Callable[[], World] = lambda: trained()

    def __call__(self, rank: int) -> dict[str, Any]:
        """Return the error, and whether model, optimizer and random state are as before it."""
        model, optimizer = self.prepared()
        torch.manual_seed(0)
        before = _held(model, optimizer)
        error = ""
        try:
            self.call(model, optimizer, rank)
        except (ValueError, TypeError, RuntimeError, OSError) as raised:
            error = f"{type(raised).__name__}: {raised}"
        after = _held(model, optimizer)
        same = list(before) == list(after)
        return {
            "error": error,
            "unchanged": same and all(_equal(before[key], after[key]) for key in before),
        }


def _held(model: nn.Module, optimizer: torch.optim.Optimizer) -> Tensors:
    held = state_of(model) if all(p.device.type != "meta" for p in model.parameters()) else {}
    for place, state in enumerate(optimizer.state.values()):
        for key, value in state.items():
            if isinstance(value, Tensor):
                full = value.full_tensor() if hasattr(value, "full_tensor") else value
                held[f"state {place} {key}"] = full.clone()
    held["random"] = torch.get_rng_state()
    return held


def _equal(one: Tensor, other: Tensor) -> bool:
    """Return whether two tensors are equal, NaN at the same places included."""
    return bool(((one == other) | (one.isnan() & other.isnan())).all())


def ticket_of_another() -> pol.SignedMask:
    with torch.random.fork_rng():
        return pol.signed_mask(pol.mask_weights(uneven(3)))


def only_one(rank: int, one: Any, others: Any) -> Any:
    return one if rank == 1 else others


def point_with_nan(model: nn.Module, rank: int) -> pol.RewindPoint:
    point = pol.RewindPoint.capture(model)
    if rank == 1:
        point.weights["norm.weight"].to_local().fill_(math.nan)
    return point


def spoilt_values(rank: int) -> Tensors:
    """Return the first weights whole, with a NaN in the first of the rows that rank 1 holds."""
    with torch.random.fork_rng():
        values = {name: value.detach().clone() for name, value in uneven().named_parameters()}
    if rank == 1:
        rows = len(values["first.weight"])
        values["first.weight"][math.ceil(rows / distributed.get_world_size()), 0] = math.nan
    return values


def flip_all(signs: Tensor, magnitudes: Tensor, generator: torch.Generator | None) -> Tensor:
    return -signs


def fractions(model: nn.Module, rank: int) -> Tensors:
    masks = {name: torch.ones(mask.shape) for name, mask in pol.masks(model).items()}
    if rank == 1:
        masks["first.weight"].fill_(0.5)
    return masks


REFUSALS = {
    "attaching after": Refused(
        lambda model, *_: pol.mask_weights(model),
        ("into.weight is sharded (DTensor): call mask_weights before fully_shard",),
        unmasked,
    ),
    "attaching after, by name": Refused(
        lambda model, *_: pol.mask_weights(model, targets="into.weight"),
        ("TypeError: into.weight is sharded (DTensor): call mask_weights before fully_shard",),
        unmasked,
    ),
    "pruning what has no mask": Refused(
        lambda model, *_: pol.imp_prune(model, 0.2),
        ("call mask_weights before fully_shard",),
        unmasked,
    ),
    "training without enforcement": Refused(
        lambda model, optimizer, _: train(model, optimizer, 1),
        (
            "RuntimeError: the mask of 'into.weight' is sharded",
            "call enforce_in_step(model, optimizer) after fully_shard",
        ),
        not_enforced,
    ),
    "training after remove": Refused(
        lambda model, optimizer, _: train(model, optimizer, 1),
        ("call enforce_in_step(model, optimizer) after fully_shard",),
        no_longer_enforced,
    ),
    "columns": Refused(
        lambda model, *_: pol.imp_prune(model, 0.2),
        ("'0.weight' is sharded with placements (Shard(dim=1),)",),
        by_columns,
    ),
    "copies": Refused(
        lambda model, optimizer, _: pol.enforce_in_step(model, optimizer),
        ("'into.weight' is sharded with placements (Replicate(), Shard(dim=0))",),
        replicated,
    ),
    "a model that is sharded in part": Refused(
        lambda model, *_: pol.imp_prune(model, 0.2),
        ("1 of 3 weights of the model are sharded",),
        in_part,
    ),
    "the wrapper of FSDP1": Refused(
        lambda model, *_: pol.imp_prune(model, 0.2),
        ("TypeError: model is wrapped in FullyShardedDataParallel",),
        flattened,
    ),
    "a NaN on one rank": Refused(
        lambda model, optimizer, _: pol.imp_prune(model, 0.2, ties="random", optimizer=optimizer),
        ("weight 'into.weight' holds 1 NaN or infinite entries",),
        spoilt,
    ),
    "a NaN on one rank, before a score": Refused(
        lambda model, optimizer, _: pol.prune(model, pol.scores.random, 0.2, optimizer=optimizer),
        (
            "weight 'into.weight' holds 1 NaN or infinite entries",
            "rank 1 of the group refused its part of this call",
        ),
        spoilt,
    ),
    "a score that fails on one rank": Refused(
        lambda model, _, rank: pol.prune(
            model, lambda name, weight: only_one(rank, None, weight.abs()), 0.2
        ),
        ("score returned a NoneType", "rank 1 of the group refused its part of this call"),
    ),
    "a score of another shape": Refused(
        lambda model, *_: pol.prune(model, {n: torch.ones(2, 2) for n in pol.masks(model)}, 0.2),
        ("scores holds 'into.weight' in shape (2, 2), expected the model's (7, 5), or (",),
    ),
    "generators in different states": Refused(
        lambda model, _, rank: pol.imp_prune(
            model, 0.2, ties="random", generator=torch.Generator().manual_seed(rank)
        ),
        ("ranks 0 and 1 of the group differ",),
    ),
    "a call that knows no pieces": Refused(
        lambda model, *_: pol.merge(model),
        ("TypeError: model is sharded (DTensor), expected a whole one: merge does not take",),
    ),
    "amounts that differ": Refused(
        lambda model, _, rank: pol.imp_prune(model, only_one(rank, 0.3, 0.2)),
        ("ranks 0 and 1 of the group differ, expected the same call on the same model",),
    ),
    "a rewind point with NaN on one rank": Refused(
        lambda model, optimizer, rank: pol.imp_prune(
            model, 0.2, rewind=point_with_nan(model, rank), optimizer=optimizer
        ),
        ("'norm.weight' holds", "rank 1 of the group refused its part of this call"),
    ),
    "signs from a NaN on one rank": Refused(
        lambda model, _, rank: pol.reinit_signs(
            model, "gradual", pol.Delta(0.5), init=spoilt_values(rank)
        ),
        (
            "init weight 'first.weight' holds 1 NaN or infinite entries",
            "rank 1 of the group refused its part of this call",
        ),
    ),
    "survivors that were trained in between": Refused(
        lambda model, _, rank: pol.reinit_signs(
            model, "mask0", init=spoilt_values(0), trained=spoilt_values(0)
        ),
        ("survivors of 'into.weight' have neither their value in trained nor in init",),
    ),
    "signs of different strategies": Refused(
        lambda model, _, rank: pol.reinit_signs(
            model, only_one(rank, "mask0", "mask1"), init=spoilt_values(0)
        ),
        ("ranks 0 and 1 of the group differ, expected the same call on the same model",),
    ),
    "signs by a function": Refused(
        lambda model, *_: pol.reinit_signs(model, "mask0", flip_all, init=spoilt_values(0)),
        ("TypeError: perturb holds ", "a function would see this rank's survivors alone"),
    ),
    "a layer without survivors": Refused(
        lambda model, *_: pol.reinit_signs(model, "mask0", pol.Delta(0.5), init=spoilt_values(0)),
        ("into.weight: delta=0.5 of a layer with 0 survivors, expected at least 1",),
        emptied,
    ),
    "magnitudes that are NaN on one rank": Refused(
        lambda model, _, rank: pol.start_from_magnitudes(
            model, spoilt_values(rank), pol.masks(model)
        ),
        ("magnitudes['first.weight'] holds 1 NaN", "rank 1 of the group refused its part"),
    ),
    "a ticket of a weight with a NaN on one rank": Refused(
        lambda model, *_: pol.signed_mask(model),
        ("weight 'into.weight' holds 1 NaN", "rank 1 of the group refused its part"),
        spoilt,
    ),
    "a ticket for a weight with a NaN on one rank": Refused(
        lambda model, *_: ticket_of_another().apply(model),
        ("weight 'into.weight' holds 1 NaN", "rank 1 of the group refused its part"),
        spoilt,
    ),
    "a ticket in no folder": Refused(
        lambda model, *_: pol.signed_mask(model).save("/no/folder/ticket.safetensors"),
        ("FileNotFoundError: ", "rank 0 of the group refused its part of this call"),
    ),
    "flips through masks of another shape": Refused(
        lambda model, *_: analysis.sign_flips(
            spoilt_values(0), model, {"into.weight": torch.ones(2, 2)}
        ),
        ("masks holds 'into.weight' in shape (2, 2), expected the model's (7, 5), or (",),
    ),
    "the state of a tracker": Refused(
        lambda model, *_: pol.SignTracker(model).state_dict(),
        ("SignTracker.state_dict does not take models that fully_shard has divided",),
    ),
    "Sign-In after sharding": Refused(
        lambda model, *_: pol.sign_in(model),
        ("sign_in does not take models that fully_shard has divided: call it before fully_shard",),
    ),
    "interpolated norms after sharding": Refused(
        lambda model, *_: pol.interpolate_norms(model),
        ("interpolate_norms does not take models that fully_shard has divided: call it before",),
    ),
    "rescaling a NaN on one rank": Refused(
        lambda model, *_: pol.rescale(model),
        ("weight 'into.weight' holds 1 NaN", "rank 1 of the group refused its part"),
        spoilt_products,
    ),
    "rescaling with different momenta": Refused(
        lambda model, sgd, rank: pol.rescale(
            model, optimizer=sgd, momentum=only_one(rank, "zero", "keep")
        ),
        ("ranks 0 and 1 of the group differ, expected the same call on the same model",),
        lambda: products(True, momentum=0.9),
    ),
    "fractions in one rank's masks": Refused(
        lambda model, _, rank: pol.load_masks(model, fractions(model, rank)),
        ("masks['first.weight']: mask holds other values", "rank 1 of the group refused"),
    ),
}
