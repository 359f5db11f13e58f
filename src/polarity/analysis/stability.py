"""Whether training ends in the same basin under different noise: two definitions of stability."""

from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import torch
from torch import nn

from polarity._checks import (
    check_callable,
    check_integer,
    check_module,
    check_type,
)
from polarity._progress import Progress, watching
from polarity._running import outside_inference_mode
from polarity.analysis.batch_norm import Forward
from polarity.analysis.connectivity import (
    BatchNormRule,
    ErrorBarrier,
    check_given,
    check_settings,
    error_barrier,
)
from polarity.attach.plain_copy import full_copy
from polarity.targets.shards import refuse_sharded

__all__ = ["init_noise_stability", "sgd_noise_stability"]

Train: TypeAlias = Callable[[nn.Module, int], nn.Module | None]


@outside_inference_mode
def sgd_noise_stability(
    model: nn.Module,
    train: Train,
    evaluate: Callable[[nn.Module], float],
    *,
    seeds: tuple[int, int] = (0, 1),
    points: int = 11,
    bn: BatchNormRule = "recalibrate",
    batches: Iterable[Any] | None = None,
    forward: Forward | None = None,
    generator: torch.Generator | None = None,
    progress: Progress = False,
) -> ErrorBarrier:
    r"""Train two copies of one network on two orders of the data, and return their error barrier.

    The paper's definition: :math:`\theta` is stable against SGD noise if
    :math:`\mathcal{A}(\theta, u)` and :math:`\mathcal{A}(\theta, u')` are linearly mode-connected,
    that is, if the returned :attr:`~polarity.ErrorBarrier.barrier` is small. Both copies
    start from the same weights, masks and buffers, those of ``model``. The official code demands
    more: :func:`init_noise_stability`.

    Args:
        model: the network to start from; it is unchanged.
        train: ``train(network, seed)`` trains in place, or returns the trained network. All
            randomness of training (order of the data, augmentation, dropout) must come from
            ``seed``, and training must start from the weights of ``network``.
        evaluate: as for :func:`error_barrier`, and so are ``points``, ``bn``, ``batches``,
            ``forward`` and ``generator``.
        seeds: the two seeds; they must differ.
        points: see :func:`error_barrier`.
        bn: see :func:`error_barrier`.
        batches: see :func:`error_barrier`.
        forward: see :func:`error_barrier`.
        generator: see :func:`error_barrier`.
        progress: see :func:`error_barrier`; training is not counted.

    Returns:
        The :class:`ErrorBarrier` of the two trained networks.

    Raises:
        ValueError: if the seeds are equal, and as :func:`error_barrier`.
        TypeError: if an argument is of another type.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> def train(network, seed):
        ...     with torch.no_grad():
        ...         _ = network.weight.fill_(1.0)  # independent of the seed
        >>> sgd_noise_stability(nn.Linear(2, 1), train, lambda network: 0.25).barrier
        0.0

    Source: *Find a Winning Sign*, section 3.1; Frankle et al. (2020), *Linear Mode Connectivity and
    the Lottery Ticket Hypothesis*.
    """
    check_module(model)
    refuse_sharded(model, "sgd_noise_stability")
    return init_noise_stability(
        lambda seed: full_copy(model),
        train,
        evaluate,
        seeds=seeds,
        points=points,
        bn=bn,
        batches=batches,
        forward=forward,
        generator=generator,
        progress=progress,
    )


@outside_inference_mode
def init_noise_stability(
    build: Callable[[int], nn.Module],
    train: Train,
    evaluate: Callable[[nn.Module], float],
    *,
    seeds: tuple[int, int] = (0, 1),
    points: int = 11,
    bn: BatchNormRule = "recalibrate",
    batches: Iterable[Any] | None = None,
    forward: Forward | None = None,
    generator: torch.Generator | None = None,
    progress: Progress = False,
) -> ErrorBarrier:
    """Train two networks from two random initialisations, and return their error barrier.

    The official code's definition of stability against SGD noise: initial weights *and* the order
    of the data differ, so it demands more than the paper's definition, :func:`sgd_noise_stability`.
    Two unrelated networks fail it; two with the same signed mask may pass.

    Args:
        build: ``build(seed)`` returns a fresh network, for instance with a ticket applied to it.
        train: as for :func:`sgd_noise_stability`.
        evaluate: as for :func:`error_barrier`, and so are ``points``, ``bn``, ``batches``,
            ``forward`` and ``generator``.
        seeds: the two seeds; they must differ.
        points: see :func:`error_barrier`.
        bn: see :func:`error_barrier`.
        batches: see :func:`error_barrier`.
        forward: see :func:`error_barrier`.
        generator: see :func:`error_barrier`.
        progress: see :func:`error_barrier`; training is not counted.

    Returns:
        The :class:`ErrorBarrier` of the two trained networks.

    Raises:
        ValueError: if the seeds are equal, or ``build`` returns the same network twice, and as
            :func:`error_barrier`.
        TypeError: if an argument is of another type.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> def build(seed):
        ...     network = nn.Linear(1, 1, bias=False)
        ...     _ = nn.init.constant_(network.weight, (-1.0) ** seed)
        ...     return network
        >>> def error(network):
        ...     return 1 - abs(float(network.weight))
        >>> init_noise_stability(build, lambda network, seed: None, error, points=3).barrier
        1.0

    Source: the official code of *Find a Winning Sign*.
    """
    check_callable("build", build, "a function (seed) -> network", classes=True)
    check_callable("train", train, "a function (network, seed)")
    check_settings(evaluate, points, bn, batches, forward, generator)
    watching(progress)  # now, not after hours of training
    check_type("seeds", seeds, (tuple, list), "two different seeds: (0, 1), for instance")
    if len(seeds) != 2:
        raise ValueError(f"seeds={seeds!r}, expected two different seeds")
    first_seed, second_seed = seeds
    check_integer("seeds[0]", first_seed, at_least=0)
    check_integer("seeds[1]", second_seed, at_least=0)
    if first_seed == second_seed:
        raise ValueError(f"seeds={seeds!r}, expected two different seeds")
    network = _built(build, first_seed)
    check_given(batches, bn, network)  # now, not after hours of training
    first = _trained(network, train, first_seed)
    second = _trained(_built(build, second_seed), train, second_seed)
    if first is second:
        raise ValueError("build or train returned the same network for both seeds")
    return error_barrier(
        first,
        first,
        second,
        evaluate,
        points=points,
        bn=bn,
        batches=batches,
        forward=forward,
        generator=generator,
        progress=progress,
    )


def _built(build: Callable[[int], nn.Module], seed: int) -> nn.Module:
    network = build(seed)
    check_type("the result of build", network, nn.Module, "a torch.nn.Module")
    refuse_sharded(network, "init_noise_stability")
    return network


def _trained(network: nn.Module, train: Train, seed: int) -> nn.Module:
    trained = train(network, seed)
    if trained is not None:
        expected = "a torch.nn.Module, or None for the network itself"
        check_type("the result of train", trained, nn.Module, expected)
    return network if trained is None else trained
