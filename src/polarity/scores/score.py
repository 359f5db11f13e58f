"""Scores of one weight at a time, and how they are applied to a model."""

import inspect
from collections.abc import Callable, Mapping
from typing import TypeAlias

import torch
from torch import Tensor

from polarity._checks import check_entries
from polarity.targets.target import Target

__all__ = ["Score", "score_weights"]

Score: TypeAlias = Callable[[str, Tensor], Tensor]


def score_weights(
    found: Mapping[str, Target], score: Score, generator: torch.Generator | None = None
) -> dict[str, Tensor]:
    """Score every effective weight, and refuse weights that are not finite.

    Args:
        found: the weights, by plain name.
        score: called as ``score(name, weight)`` without gradients, on a tensor it may change.
        generator: passed on as ``score(name, weight, generator=generator)`` to a score that takes
            one.

    Raises:
        ValueError: if a weight holds NaN or infinite entries.
        TypeError: if the score returns anything but a tensor.
    """
    draws = generator is not None and "generator" in inspect.signature(score).parameters
    for name, target in found.items():  # all of them, before a score draws for the first
        check_entries(f"weight {name!r}", target.weight)
    scores = {}
    for name, target in found.items():
        weight = target.weight
        if target.aliases_storage(weight):
            weight = weight.clone()  # a score that works in place must not train the model
        with torch.no_grad():
            scores[name] = (
                score(name, weight, generator=generator)  # type: ignore[call-arg]
                if draws
                else score(name, weight)
            )
        if not isinstance(scores[name], Tensor):
            raise TypeError(
                f"score returned a {type(scores[name]).__name__} for {name!r}, expected a tensor"
            )
    return scores
