"""The error along the straight path between two networks."""

import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from polarity._checks import (
    check_callable,
    check_choice,
    check_generator,
    check_integer,
    check_module,
    check_names,
    check_shape,
)
from polarity._inputs import check_batches
from polarity._progress import Progress, watching
from polarity._reports import Tabular
from polarity._running import drawn_seed, outside_inference_mode, same_random_state
from polarity._tables import Table
from polarity.analysis.batch_norm import (
    Forward,
    feed,
    fresh_statistics,
    recalibrate_batch_norm,
    tracked_norms,
)
from polarity.attach.plain_copy import plain_copy, plain_state
from polarity.rewind import RewindPoint
from polarity.targets.shards import refuse_sharded

__all__ = ["BatchNormRule", "ErrorBarrier", "check_given", "check_settings", "error_barrier"]

BatchNormRule: TypeAlias = Literal["recalibrate", "keep", "aws"]
State: TypeAlias = nn.Module | RewindPoint | Mapping[str, Any]


@dataclass(frozen=True)
class ErrorBarrier(Tabular):
    r"""The error :math:`\mathcal{E}` along the straight path from network a to network b.

    Attributes:
        alphas: the points, 0 (a itself) to 1 (b itself).
        curve: :math:`\mathcal{E}((1-\alpha)\,\theta_a + \alpha\,\theta_b)` at each of them.

    Example:
        >>> path = ErrorBarrier((0.0, 0.5, 1.0), (0.25, 0.75, 0.5))
        >>> path.endpoints, path.barrier, path.barrier_above_line
        ((0.25, 0.5), 0.375, 0.375)
        >>> path.excess
        (-0.125, 0.375, 0.125)
    """

    alphas: tuple[float, ...]
    curve: tuple[float, ...]

    @property
    def endpoints(self) -> tuple[float, float]:
        """The errors of a and of b."""
        return self.curve[0], self.curve[-1]

    @property
    def excess(self) -> tuple[float, ...]:
        """The curve minus the mean of the endpoints, as the paper and its code plot it."""
        mean = sum(self.endpoints) / 2
        return tuple(error - mean for error in self.curve)

    @property
    def barrier(self) -> float:
        r"""The supremum of ``excess`` over the points, the paper's error barrier.

        It is at least half the difference of the endpoints, and NaN if any error is NaN.
        """
        return _supremum(self.excess)

    @property
    def barrier_above_line(self) -> float:
        """The supremum of the curve above the line through its endpoints; never negative.

        The other common definition; a difference of the endpoints does not increase it.
        """
        first, last = self.endpoints
        pairs = zip(self.alphas, self.curve, strict=True)
        return _supremum(tuple(e - ((1 - a) * first + a * last) for a, e in pairs))

    def _records(self) -> list[dict[str, Any]]:
        points = zip(self.alphas, self.curve, self.excess, strict=True)
        return [{"alpha": a, "error": error, "excess": above} for a, error, above in points]

    def _table(self) -> Table:
        points = zip(self.alphas, self.curve, self.excess, strict=True)
        rows = [(f"{a:.3g}", f"{error:.6g}", f"{above:.6g}") for a, error, above in points]
        above = (f"barrier {self.barrier:.6g}",)
        return Table(("alpha", "error", "excess"), rows, above)


@outside_inference_mode
def error_barrier(
    model: nn.Module,
    state_a: State,
    state_b: State,
    evaluate: Callable[[nn.Module], float],
    *,
    points: int = 11,
    bn: BatchNormRule = "recalibrate",
    batches: Iterable[Any] | None = None,
    forward: Forward | None = None,
    generator: torch.Generator | None = None,
    progress: Progress = False,
) -> ErrorBarrier:
    r"""Evaluate the networks on the straight path between two sets of weights.

    The paper's barrier of :math:`\theta` and :math:`\theta'` is

    .. math::
        \sup_\alpha\; \mathcal{E}(\alpha\theta + (1-\alpha)\theta')
        - \tfrac12 \left(\mathcal{E}(\theta) + \mathcal{E}(\theta')\right),

    here over ``points`` equidistant :math:`\alpha` including the endpoints. All floating-point
    parameters and buffers are interpolated; buffers of other types are those of a. Masked and
    Sign-In weights are interpolated as effective weights, so the masks of a and b may differ (a
    point in between then has the entries of both); interpolated norms have their trained values.
    The path from a network to itself is that network at every point, bit for bit.

    Each network is evaluated in evaluation mode and without gradients, as a plain copy of
    ``model``; ``model`` and both states are unchanged.

    Args:
        model: defines the architecture; its own weights are not used.
        state_a: a ``state_dict``, plain or of a masked, Sign-In or norm-interpolating model; a
            model; or a :class:`RewindPoint`.
        state_b: the other end, in any of these forms.
        evaluate: ``evaluate(network) -> float``: the test error, or another quantity to follow
            along the path. It should be deterministic.
        points: number of points, at least 2.
        bn: how to treat running statistics, which do not interpolate. ``"recalibrate"``: at
            every point, endpoints included, average them over ``batches`` by
            :func:`recalibrate_batch_norm`. ``"aws"``: as the official code of *Find a Winning
            Sign*: at every point reset them and run ``batches`` once in training mode, with each
            layer's own momentum and dropout active. ``"keep"``: interpolate them.
        batches: training data for the statistics, read once per point: a list or a data loader,
            un-augmented for ``"recalibrate"``. Required unless the network has no running
            statistics or ``bn="keep"``.
        forward: ``(network, batch) -> anything``, see :func:`recalibrate_batch_norm`.
        generator: for ``"aws"``: seeds the dropout of all points and leaves the global random
            state unchanged; by default dropout draws from the global random state, or from a seed
            that is common to all ranks of an initialised ``torch.distributed`` group, which must
            all call then.
        progress: True shows a bar over the points (needs tqdm); a function wraps them as
            ``tqdm.tqdm`` does.

    Returns:
        The :class:`ErrorBarrier`.

    Raises:
        ValueError: if a name of the model is missing in a state, or a state holds another name or
            shape; if ``points`` or ``bn`` is out of range; or if ``batches`` is missing or can be
            read only once.
        TypeError: if an argument is of another type, or ``evaluate`` cannot be called.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> model, other = nn.Linear(2, 1, bias=False), nn.Linear(2, 1, bias=False)
        >>> _ = nn.init.constant_(model.weight, 1.0), nn.init.constant_(other.weight, -1.0)
        >>> def error(network):
        ...     return 1 - float(network(torch.ones(1, 2)).abs()) / 2
        >>> path = error_barrier(model, model, other, error, points=5)
        >>> path.curve, path.barrier
        ((0.0, 0.5, 1.0, 0.5, 0.0), 1.0)

    Source: *Find a Winning Sign*, section 3.1, Equation 1. The official code interpolates
    convolutions, linear layers and BatchNorm2d alone, demands equal masks, and takes no supremum.
    """
    check_module(model)
    refuse_sharded(model, "error_barrier")
    check_settings(evaluate, points, bn, batches, forward, generator)
    watch = watching(progress)
    network = plain_copy(model).eval()
    a = _checked_state(network, plain_state(state_a, "state_a", network), "state_a")
    b = _checked_state(network, plain_state(state_b, "state_b", network), "state_b")
    recalibrates = check_given(batches, bn, network)
    alphas = tuple(point / (points - 1) for point in range(points))
    watched = watch(alphas)
    seed = drawn_seed(generator) if recalibrates and bn == "aws" else None
    curve = []
    for alpha in watched:
        _set_between(network, a, b, alpha)
        if recalibrates and batches is not None:
            _refresh_statistics(network, bn, batches, forward, seed)
        network.eval()
        with torch.no_grad():
            curve.append(_as_float(evaluate(network)))
    return ErrorBarrier(alphas, tuple(curve))


def check_settings(
    evaluate: object,
    points: object,
    bn: object,
    batches: object,
    forward: object,
    generator: object,
) -> None:
    """Raise unless the arguments that every path takes are of their types and in range."""
    check_integer("points", points, at_least=2)
    check_choice("bn", bn, ("recalibrate", "keep", "aws"))
    check_callable("evaluate", evaluate, "a function (network) -> float")
    if batches is not None:
        check_batches("batches", batches)
        if bn != "keep" and iter(batches) is batches:  # type: ignore[call-overload]
            raise ValueError(
                "batches is an iterator, which can be read only once, expected a list or a data "
                "loader: it is read at every point"
            )
    if forward is not None:
        check_callable("forward", forward, "a function (network, batch)")
    check_generator(generator)


def _as_float(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        kind = type(value).__name__
        raise TypeError(f"evaluate returned a {kind}, expected a number: a test error") from None


@torch.no_grad()
def _set_between(
    network: nn.Module, a: Mapping[str, Tensor], b: Mapping[str, Tensor], alpha: float
) -> None:
    for name, value in _tensors(network).items():
        one, other = a[name].to(value.device), b[name].to(value.device)
        if one.is_floating_point() or one.is_complex():
            # torch.lerp is exact at both ends, and gives x between x and x.
            kind = torch.promote_types(one.dtype, other.dtype)
            one = torch.lerp(one.to(kind), other.to(kind), alpha)
        value.copy_(one)


def _refresh_statistics(
    network: nn.Module,
    bn: BatchNormRule,
    batches: Iterable[Any],
    forward: Forward | None,
    seed: int | None,
) -> None:
    if bn == "recalibrate":
        recalibrate_batch_norm(network, batches, forward=forward)
        return
    with fresh_statistics(network, tracked_norms(network)):
        network.train()
        seeded = nullcontext() if seed is None else same_random_state(network, seed)
        with seeded:
            feed(network, batches, forward)


def check_given(batches: Iterable[Any] | None, bn: BatchNormRule, network: nn.Module) -> bool:
    """Return whether statistics are to be computed, and raise if nothing is given for it."""
    if bn == "keep" or not tracked_norms(network):
        return False
    if batches is None:
        raise ValueError(
            f"batches=None, but bn={bn!r} computes running statistics at every point: give "
            "batches=, or bn='keep'"
        )
    if isinstance(batches, (list, tuple)) and not batches:
        raise ValueError("batches is empty, expected at least one")
    return True


def _checked_state(network: nn.Module, state: dict[str, Any], role: str) -> dict[str, Tensor]:
    """Return the tensors of a state that the network has, all of them and in their shapes."""
    tensors = _tensors(network)
    given = {name: value for name, value in state.items() if isinstance(value, Tensor)}
    buffers = dict(network.named_buffers(remove_duplicate=False))  # also those that are not saved
    check_names(role, given, {**tensors, **buffers}, needed=tensors)
    for name, value in tensors.items():
        check_shape(role, name, given[name].shape, value.shape)
    return {name: given[name] for name in tensors}


def _tensors(network: nn.Module) -> dict[str, Tensor]:
    """Every tensor of the ``state_dict``, detached but not copied."""
    state = network.state_dict()
    return {name: value for name, value in state.items() if isinstance(value, Tensor)}


def _supremum(values: tuple[float, ...]) -> float:
    return math.nan if any(math.isnan(value) for value in values) else max(values)
