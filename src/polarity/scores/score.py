"""Scores of one weight at a time, and how they are applied to a model."""

import inspect
from collections.abc import Callable, Collection, Mapping
from typing import TypeAlias

import torch
from torch import Tensor

from polarity._checks import check_callable, check_entries, check_floating
from polarity._inputs import check_arguments
from polarity.targets.shards import ranks_of, together
from polarity.targets.target import Target

__all__ = ["Score", "check_named_scores", "check_score", "score_weights", "takes_generator"]

Score: TypeAlias = Callable[[str, Tensor], Tensor]


def check_score(
    parameter: str, score: object, expected: str, generator: torch.Generator | None = None
) -> None:
    """Raise unless ``score`` is a function of a name and a weight, and of a generator if given."""
    if isinstance(score, Mapping):
        remedy = "polarity.prune(model, scores=…) takes scores that were computed before"
        raise TypeError(f"{parameter} is a {type(score).__name__}, expected {expected}: {remedy}")
    check_callable(parameter, score, expected)
    if not callable(score):
        return
    name = getattr(score, "__name__", "score")
    remedy = f"call it first, and pass on what {name}(…) returns"
    known = _parameters(score)
    if generator is None and list(known) == ["name", "weight", "generator"]:
        remedy = "it draws, so give generator="
    if "batches" in known:
        remedy = f"compute it first, prune(model, {name}(model, loss_fn, batches), …)"
    given = ("generator",) if generator is not None and "generator" in known else ()
    check_arguments(parameter, score, ("name", "weight"), given, remedy=remedy)


def check_named_scores(parameter: str, scores: Mapping[str, Tensor]) -> None:
    """Raise unless a mapping holds floating-point tensors under names."""
    if not scores:
        raise ValueError(f"{parameter} is empty, expected {{name: tensor}} for every weight")
    for name, values in scores.items():
        check_floating(f"{parameter}[{name!r}]", values)


def _parameters(function: Callable[..., object]) -> Collection[str]:
    """Return the names of a function's parameters, none for one that is written in C."""
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):
        return ()


def takes_generator(score: Score) -> bool:
    """Return whether a score is given the generator of the call that applies it."""
    return "generator" in _parameters(score)


def score_weights(
    found: Mapping[str, Target], score: Score, generator: torch.Generator | None = None
) -> dict[str, Tensor]:
    """Score every effective weight, and refuse weights that are not finite.

    A sharded weight is scored as a DTensor, so that what a score reduces is of the whole weight.

    Args:
        found: the weights, by plain name.
        score: called as ``score(name, weight)`` without gradients, on a tensor it may change.
        generator: passed on as ``score(name, weight, generator=generator)`` to a score that takes
            one.

    Raises:
        ValueError: if a weight holds NaN or infinite entries.
        TypeError: if the score returns anything but a tensor.
    """
    draws = generator is not None and takes_generator(score)

    def checked() -> None:
        for name, target in found.items():  # all of them, before a score draws for the first
            check_entries(f"weight {name!r}", target.weight)

    def scored() -> dict[str, Tensor]:
        scores = {}
        for name, target in found.items():
            weight = target.weight
            if target.aliases_storage(weight):
                weight = weight.clone()  # a score that works in place must not train the model
            weight = target.as_given(weight)
            with torch.no_grad():
                scores[name] = (
                    score(name, weight, generator=generator)  # type: ignore[call-arg]
                    if draws
                    else score(name, weight)
                )
            if not isinstance(scores[name], Tensor):
                kind = type(scores[name]).__name__
                raise TypeError(f"score returned a {kind} for {name!r}, expected a tensor")
        return scores

    ranks = ranks_of(target.stored[0] for target in found.values())
    together(ranks, checked)
    return together(ranks, scored)
