"""The one way to draw: random words addressed by a seed, a weight's name and a position.

The word of an entry is a function of these three alone (a counter-based generator: Salmon et al.,
2011, *Parallel random numbers: as easy as 1, 2, 3*). It is therefore the same on every device, on
every rank, and in chunks of any length.
"""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, distributed
from torch.utils.data import get_worker_info

from polarity._bits.arrays import survivors_of
from polarity._checks import check_generator

__all__ = [
    "VERSION",
    "Words",
    "among_ranks",
    "coins",
    "integers_from",
    "seed_from",
    "state_of",
    "undrawn_on_error",
    "words_at",
    "words_below",
    "words_in",
]

# Increased by every change that gives other draws for the same seed. Version 1 drew from torch's
# generators, before the first release.
VERSION = 2

Words = npt.NDArray[np.uint32]
Bools = npt.NDArray[np.bool_]

_WORDS_A_BLOCK = 8  # a block of Philox 4x64 is 256 bits


def seed_from(generator: torch.Generator | None) -> int:
    """Draw the seed of one random choice, the same on every rank, see :func:`integers_from`.

    Example:
        >>> seed_from(torch.Generator().manual_seed(0)) < 2**62
        True
    """
    return integers_from(generator, 0, 2**62)[0]


def integers_from(
    generator: torch.Generator | None, low: int, high: int, count: int = 1
) -> list[int]:
    """Draw integers in [low, high) on the generator's device; without one from the CPU's.

    Without a generator and among several ranks, every rank draws, so that all global generators
    advance alike, and the numbers are rank 0's: every rank has to call. With a generator nothing is
    communicated.

    Example:
        >>> integers_from(torch.Generator().manual_seed(0), 5, 6, count=2)
        [5, 5]
    """
    check_generator(generator)
    device = torch.device("cpu") if generator is None else generator.device
    with undrawn_on_error(generator):
        drawn = torch.randint(low, high, (count,), generator=generator, device=device).tolist()
        if generator is None and among_ranks():
            told = [drawn]
            distributed.broadcast_object_list(told, src=0)  # on the device that the backend needs
            drawn = told[0]
    return [int(each) for each in drawn]


def among_ranks() -> bool:
    """Whether this process is one of several ranks; a data loader's worker is none.

    A worker that was forked by a rank holds a copy of its group, over which it cannot talk.
    """
    if not distributed.is_available() or not distributed.is_initialized():
        return False
    return get_worker_info() is None and distributed.get_world_size() > 1


def state_of(generator: torch.Generator | None) -> bytes | None:
    """Return the state of a generator, which ranks must share to draw alike; None without one."""
    return None if generator is None else generator.get_state().numpy().tobytes()


@contextmanager
def undrawn_on_error(generator: torch.Generator | None) -> Iterator[None]:
    """Give a generator, without one that of the CPU, its state back if the block raises."""
    check_generator(generator)
    source = torch.default_generator if generator is None else generator
    state = source.get_state()
    try:
        yield
    except BaseException:
        source.set_state(state)
        raise


def words_in(seed: int, name: str, start: int, stop: int) -> Words:
    """Return the random 32-bit words of the positions from ``start`` to ``stop`` of a weight.

    Word ``i`` is the ``i``-th of the stream of Philox 4x64-10 whose counter begins at 0 and whose
    key is the 16-byte BLAKE2b hash of ``"{seed}/{name}"``, read as a little-endian integer; each
    64-bit number of the stream gives its lower half first.

    Example:
        >>> words = words_in(0, "layer.weight", 0, 100)
        >>> bool((words_in(0, "layer.weight", 37, 41) == words[37:41]).all())
        True
    """
    digest = hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=16).digest()
    block, skipped = divmod(start, _WORDS_A_BLOCK)
    stream = np.random.Philox(key=int.from_bytes(digest, "little"), counter=block)
    numbers = stream.random_raw((skipped + stop - start + 1) // 2)
    return numbers.astype("<u8", copy=False).view("<u4")[skipped : skipped + stop - start]


def words_at(
    seed: int, masks: Mapping[str, Tensor], starts: Mapping[str, int] | None = None
) -> Words:
    """Return the words of the survivors of bool masks: mask after mask, row-major within each.

    A mask may be of a piece of a weight: ``starts`` has the position of its first entry.

    Example:
        >>> words_at(0, {"a": torch.tensor([False, True]), "b": torch.tensor([True])}).shape
        (2,)
    """
    words = np.empty(sum(int(mask.count_nonzero()) for mask in masks.values()), dtype=np.uint32)
    start = 0
    for name, mask in masks.items():
        first = 0 if starts is None else starts[name]
        for chunk, places in survivors_of(mask.reshape(-1)):
            stop = start + places.numel()
            drawn = words_in(seed, name, first + chunk.start, first + chunk.stop)
            words[start:stop] = drawn.take(places.cpu().numpy())
            start = stop
    return words


def coins(words: Words) -> Bools:
    """Return a fair coin for each word: its highest bit."""
    tossed: Bools = words >= np.uint32(1 << 31)
    return tossed


def words_below(words: Words, probability: float) -> Bools:
    """Return True for each word with this probability, exact to 2**-33.

    Example:
        >>> words_below(np.array([0, 2**31, 2**32 - 1], dtype=np.uint32), 0.5).tolist()
        [True, False, False]
    """
    below: Bools = words < np.uint64(round(float(probability) * 2**32))
    return below
