"""Random choices from few random bits each, on the device of a generator.

Every function here draws on the generator's device, on the CPU without one, so that the same seed
gives the same choice wherever the weights are.
"""

import numpy as np
import torch
from torch import Tensor

from polarity._bits.arrays import Array, array_of, count_true, places_of
from polarity._bits.bit_packing import unpack_bits

__all__ = ["bernoulli", "choose_exactly", "distinct", "fair_coins"]

# So many entries are drawn at a time. Another number would be another stream of draws.
_BLOCK = 1 << 18
# A permutation of so few costs nothing.
_FEW = 1 << 10


def bernoulli(n: int, p: float, generator: torch.Generator | None = None) -> Tensor:
    r"""Draw ``n`` independent bools, each True with probability ``p``.

    With :math:`256 p = t + r`, :math:`t` whole: a random byte below :math:`t` says True and one
    above False, and only for the one in 256 that equals :math:`t` a number is drawn and compared
    with :math:`r`. So an entry costs 8 bits and is True with probability :math:`p` to within
    :math:`2^{-32}`.

    Args:
        n: how many.
        p: the probability, in [0, 1].
        generator: source of the draws; the global one of the CPU without.

    Returns:
        A bool tensor of one dimension on the generator's device.

    Example:
        >>> draw = torch.Generator().manual_seed(0)
        >>> round(float(bernoulli(100_000, 0.3, draw).float().mean()), 2)
        0.3
    """
    drawn = torch.empty(n, dtype=torch.bool, device=_device(generator))
    if p >= 1:
        return drawn.fill_(True)
    whole = int(256 * p)
    rest = 256 * p - whole
    for block in _blocks(drawn):
        random = array_of(_random_bytes(len(block), generator))
        block[:] = random < whole
        if rest:
            undecided = places_of(random == whole)
            finer = torch.rand(len(undecided), generator=generator, device=drawn.device)
            block[undecided] = array_of(finer < rest)
    return drawn


def choose_exactly(n: int, k: int, generator: torch.Generator | None = None) -> Tensor:
    r"""Choose ``k`` of ``n`` entries, every subset of ``k`` equally probable.

    Each entry is first chosen by itself with probability :math:`k/n`. Given how many that were,
    all sets of so many are equally probable, and they stay so when the few that lack, about
    :math:`\sqrt{k (n - k) / n}`, are drawn from those not chosen, or the few too many from those
    chosen. So the choice costs little more than :func:`bernoulli`, where a permutation costs 64
    bits, a random access to memory and 8 bytes an entry.

    Args:
        n: how many there are.
        k: how many are chosen, between 0 and ``n``.
        generator: source of the draws; the global one of the CPU without.

    Returns:
        A bool tensor of one dimension on the generator's device.

    Example:
        >>> int(choose_exactly(1000, 123).sum())
        123
    """
    chosen = bernoulli(n, k / n if n else 0.0, generator)
    counts = [int(count_true(block)) for block in _blocks(chosen)]
    lacking = k - sum(counts)
    add = lacking > 0  # else as many of those chosen are given back
    candidates = [
        len(block) - count if add else count
        for block, count in zip(_blocks(chosen), counts, strict=True)
    ]
    ranks = array_of(distinct(sum(candidates), abs(lacking), generator))
    for block, size in zip(_blocks(chosen), candidates, strict=True):
        mine = ranks[(ranks >= 0) & (ranks < size)]
        if len(mine):
            block[places_of(block != add)[mine]] = add
        ranks = ranks - size
    return chosen


def distinct(n: int, k: int, generator: torch.Generator | None = None) -> Tensor:
    """Draw ``k`` different numbers below ``n``, every set of them equally probable, ascending.

    Meant for a ``k`` much smaller than ``n``: numbers are drawn until enough of them differ.

    Example:
        >>> numbers = distinct(10**9, 5)
        >>> len(set(numbers.tolist())), bool((numbers.diff() > 0).all())
        (5, True)
    """
    device = _device(generator)
    if n <= max(4 * k, _FEW):
        return torch.randperm(n, generator=generator, device=device)[:k].sort().values
    drawn = torch.empty(0, dtype=torch.int64, device=device)
    while (lacking := k - drawn.numel()) > 0:
        # Never more at once than are lacking: so these are the first `k` different ones.
        more = torch.randint(n, (lacking,), generator=generator, device=device)
        drawn = torch.cat([drawn, more]).sort().values
        drawn = drawn[drawn.diff(prepend=drawn.new_tensor([-1])) > 0]
    return drawn


def fair_coins(n: int, generator: torch.Generator | None = None) -> Tensor:
    """Toss ``n`` coins with ``n`` random bits.

    Returns:
        A bool tensor of one dimension on the generator's device.

    Example:
        >>> fair_coins(10).dtype
        torch.bool
    """
    tossed = torch.empty(n, dtype=torch.bool, device=_device(generator))
    for block in _blocks(tossed):
        packed = _random_bytes(-(-len(block) // 8), generator)
        if isinstance(block, np.ndarray):
            block[:] = np.unpackbits(packed.numpy(), count=len(block), bitorder="little")
        else:
            block[:] = unpack_bits(packed, len(block))
    return tossed


def _blocks(drawn: Tensor) -> list[Array]:
    return [array_of(drawn[at : at + _BLOCK]) for at in range(0, drawn.numel(), _BLOCK)]


def _random_bytes(n: int, generator: torch.Generator | None) -> Tensor:
    words = torch.empty(-(-n // 8), dtype=torch.int64, device=_device(generator))
    # From the smallest integer on without an end: all 64 bits are random.
    words.random_(torch.iinfo(torch.int64).min, None, generator=generator)
    return words.view(torch.uint8)[:n]


def _device(generator: torch.Generator | None) -> torch.device:
    return generator.device if generator is not None else torch.device("cpu")
