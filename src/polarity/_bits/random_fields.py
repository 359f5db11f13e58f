"""Random choices among the living entries of tensors, made for every entry alike.

What falls on an entry that does not live is thrown away. That takes more random bits than a choice
for each living one, but no search for where these are, which costs several times as much.
As in :mod:`polarity._bits.random_bits` all is drawn on the device of the generator.
"""

from collections.abc import Iterator, Sequence
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor

from polarity._bits.arrays import array_of, places_of
from polarity._bits.bits import Bits
from polarity._bits.random_bits import distinct

__all__ = ["chances", "choose_living", "coins"]

# So many entries are drawn at a time, a multiple of 64. Another number would be another stream.
_BLOCK = 1 << 16


def coins(size: int, generator: torch.Generator | None = None) -> Bits:
    """Toss a fair coin for each entry, with one random bit.

    Example:
        >>> 400 < coins(1000, torch.Generator().manual_seed(0)).count() < 600
        True
    """
    source = _Source(generator)
    tossed = Bits.zeros(size, source.device)
    for block in _blocks(size):
        random = source.take(-(-(block.stop - block.start) // 8))
        tossed.put_packed(block, random)
    return tossed


def chances(size: int, p: float, generator: torch.Generator | None = None) -> Bits:
    r"""Say True for each entry with probability ``p``, independently, to within :math:`2^{-32}`.

    See :func:`polarity._bits.random_bits.bernoulli`.

    Example:
        >>> round(chances(100_000, 0.3, torch.Generator().manual_seed(0)).count() / 100_000, 2)
        0.3
    """
    source = _Source(generator)
    drawn = Bits.zeros(size, source.device)
    whole = int(256 * p)
    rest = 256 * p - whole
    for block in _blocks(size):
        random = array_of(source.take(block.stop - block.start))
        true = random < whole if whole < 256 else random >= 0
        if rest:
            undecided = places_of(random == whole)
            finer = torch.rand(len(undecided), generator=generator, device=source.device)
            true[undecided] = array_of(finer < rest)
        drawn.put(block, true)
    return drawn


def choose_living(
    living: Sequence[Bits], k: int, generator: torch.Generator | None = None
) -> list[Bits]:
    r"""Choose ``k`` of all :math:`n` living entries, every subset of ``k`` equally probable.

    Each is first chosen by itself with a probability just below :math:`k/n`, the same for all.
    Given how many that were, all sets of so many are equally probable, and they stay so when the
    few that lack are drawn from those not chosen, or the few too many from those chosen.

    Args:
        living: which entries of each tensor live.
        k: how many are chosen, between 0 and :math:`n`.
        generator: source of the draws; the global one of the CPU without.

    Returns:
        Which entries of each tensor are chosen, on the generator's device.

    Example:
        >>> living = Bits.zeros(1000, torch.device("cpu"))
        >>> living.put(slice(0, 500), np.ones(500, dtype=bool))
        >>> [each.count() for each in choose_living([living], 123)]
        [123]
    """
    source = _Source(generator)
    living = [each.to(source.device) for each in living]
    n = sum(each.count() for each in living)
    whole = 256 * k // n if n else 0
    chosen = [_drawn(each, whole, source) for each in living]
    lacking = k - sum(each.count() for each in chosen)
    candidates = chosen
    if lacking > 0:
        candidates = [
            Bits(all_.size, all_.data ^ some.data)
            for all_, some in zip(living, chosen, strict=True)
        ]
    sizes = [each.count() for each in candidates]
    ranks = array_of(distinct(sum(sizes), abs(lacking), generator))
    for each, among, size, start in zip(
        chosen, candidates, sizes, accumulate(sizes, initial=0), strict=False
    ):
        each.flip(among.find(ranks[(ranks >= start) & (ranks < start + size)] - start))
    return chosen


def _drawn(living: Bits, whole: int, source: "_Source") -> Bits:
    """Return living entries, each with probability ``whole / 256``."""
    if whole == 256:
        return Bits(living.size, living.data | living.data)
    drawn = Bits.zeros(living.size, source.device)
    for block in _blocks(living.size) if whole else ():
        drawn.put(block, array_of(source.take(block.stop - block.start)) < whole)
    return Bits(living.size, drawn.data & living.data)


class _Source:
    """A stream of random bytes that a generator seeds, on its device."""

    def __init__(self, generator: torch.Generator | None) -> None:
        self.device = generator.device if generator is not None else torch.device("cpu")
        self._generator = generator
        self._stream: np.random.SFC64 | None = None

    def take(self, n: int) -> Tensor:
        """Return the next bytes; of the last word what is not asked for is lost."""
        count = -(-n // 8)
        if self.device.type == "cpu":
            if self._stream is None:
                seed = torch.randint(2**62, (2,), generator=self._generator)
                self._stream = np.random.SFC64(seed.tolist())
            # Three times as fast as a torch generator.
            words = torch.from_numpy(self._stream.random_raw(count).view(np.int64))
        else:
            words = torch.empty(count, dtype=torch.int64, device=self.device)
            # From the smallest integer on without an end: all 64 bits are random.
            words.random_(torch.iinfo(torch.int64).min, None, generator=self._generator)
        return words.view(torch.uint8)[:n]


def _blocks(size: int) -> Iterator[slice]:
    for start in range(0, size, _BLOCK):
        yield slice(start, min(start + _BLOCK, size))
