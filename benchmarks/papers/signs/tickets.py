"""From one round to the next: prune, restore what is not masked, give survivors their values."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import polarity as pol

from .config import Perturbation, RunConfig

Record = dict[str, Any]

# What a record states of a sign report, and of each of its layers.
_COUNTS = ("positive", "agree_init", "agree_trained", "flipped")


@dataclass(frozen=True)
class DeltaLargest:
    """Draw the signs of the largest survivors anew: the control of delta, which takes the smallest.

    Attributes:
        fraction: of the survivors, in [0, 1].
    """

    fraction: float

    def __post_init__(self) -> None:
        pol.Delta(self.fraction)

    def __call__(
        self,
        signs: Tensor,
        magnitudes: Tensor,
        generator: torch.Generator | None = None,
        *,
        masks: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """Return the signs with those of the largest magnitudes drawn anew."""
        return pol.Delta(self.fraction)(signs, -magnitudes, generator, masks=masks)


_KINDS: dict[str, Callable[[float], Any]] = {
    "phi": pol.Phi,
    "epsilon": pol.Epsilon,
    "delta": pol.Delta,
    "delta_largest": DeltaLargest,
}


def perturbations(perturbation: Perturbation) -> tuple[Any, ...]:
    """Make polarity's objects for a configured perturbation; a value out of range raises here."""
    return tuple(_KINDS[kind](value) for kind, value in perturbation)


def dense_layers(model: nn.Module) -> Record:
    """Return what the record of round 0 states of a model whose masks are all ones."""
    sizes = {name: mask.numel() for name, mask in pol.masks(model).items()}
    total = sum(sizes.values())
    layers = [
        {"name": name, "total": size, "survivors": size, "density": 1.0}
        for name, size in sizes.items()
    ]
    shared = {"density": 1.0, "survivors": total, "total": total, "signs": None}
    return {**shared, "layers": layers}


def next_ticket(
    model: nn.Module,
    config: RunConfig,
    number: int,
    start: pol.RewindPoint,
    signs: tuple[Any, ...],
    generators: Mapping[str, torch.Generator],
) -> Record:
    """Make the ticket of a round of a trained model, in place, and return what is recorded of it.

    Args:
        model: trained, with the masks of the last round.
        config: settings of the run.
        number: of the round; the ticket's density is the prune base to this power.
        start: the weights at the run's beginning.
        signs: perturbations, in the order in which they are applied.
        generators: the streams of random signs and masks.
    """
    # `standard` gives pruned weights back: that takes their values from before, and only a density
    # of the whole model is meaningful.
    trained = pol.RewindPoint.capture(model)
    pruned = _pruned(model, config, number, generators["masks"])
    smallest = _smallest(model)
    if config.strategy == "rewind":
        only: Any = "masked" if config.keep_rest else "all"
        start.restore_weights(model, only=only)
        report = None
    else:
        if not config.keep_rest:
            start.restore_weights(model, only="unmasked")
        report = pol.reinit_signs(
            model,
            config.strategy,
            signs or None,
            init=start,
            trained=trained,
            scope=config.sign_scope,
            mix=config.mix,
            generator=generators["signs"],
        )
    signed = {} if report is None else {row.name: row for row in report}
    return {
        "density": pruned.density,
        "survivors": pruned.survivors,
        "total": pruned.total,
        "signs": None if report is None else {key: getattr(report, key) for key in _COUNTS},
        "layers": [
            {
                "name": row.name,
                "total": row.total,
                "survivors": row.after,
                "density": row.density,
                "smallest": smallest[row.name],
                **{key: getattr(signed[row.name], key) for key in _fields(signed)},
            }
            for row in pruned
        ],
    }


def _fields(signed: Mapping[str, Any]) -> tuple[str, ...]:
    return ("sigma", *_COUNTS) if signed else ()


def _pruned(
    model: nn.Module, config: RunConfig, number: int, generator: torch.Generator
) -> pol.PruneReport:
    """Prune to the density of a round, by magnitude or at random with the same layer densities."""
    wanted: dict[str, Any] = {
        "density": config.prune_base**number,
        "scope": config.prune_scope,
    }
    if config.survivors == "magnitude":
        return pol.imp_prune(model, **wanted)
    by_magnitude = pol.imp_prune(copy.deepcopy(model), **wanted)
    densities = {row.name: row.after / row.total for row in by_magnitude}
    return pol.prune(model, pol.scores.random, densities=densities, generator=generator)


def _smallest(model: nn.Module) -> dict[str, float | None]:
    """Return the smallest trained magnitude of every weight's survivors; None without survivors."""
    values = pol.dense_state_dict(model)
    return {
        name: float(values[name][mask].abs().min()) if mask.any() else None
        for name, mask in pol.masks(model).items()
    }
