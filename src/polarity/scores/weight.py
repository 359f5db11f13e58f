"""Scores that look at the weight alone."""

import numpy as np
import torch
from torch import Tensor

from polarity._bits.random import seed_from, words_in
from polarity._checks import check_type
from polarity._shards import is_sharded, piece_of, shard_like, start_of

__all__ = ["magnitude", "random"]


def magnitude(name: str, weight: Tensor) -> Tensor:
    r"""Score by :math:`|w|`, the criterion of iterative magnitude pruning.

    Example:
        >>> import torch
        >>> magnitude("layer.weight", torch.tensor([-2.0, 1.0]))
        tensor([2., 1.])

    Source: Frankle & Carbin (2019); *large final* in Zhou et al. (2019), section 2.
    """
    check_type("weight", weight, Tensor, "a tensor")
    return weight.abs()


def random(name: str, weight: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
    """Score by a uniform draw in [0, 1), the control that every criterion has to beat.

    A seed is drawn from ``generator``. The score of an entry then depends on this seed, the name
    and the entry's flat position alone, so that the same seed gives the same mask on every
    device and in every dtype, see :data:`polarity.__draws_version__`.

    Example:
        >>> import torch
        >>> draw = torch.Generator().manual_seed(0)
        >>> random("layer.weight", torch.zeros(2, 3), generator=draw).shape
        torch.Size([2, 3])

    Args:
        name: plain name of the weight.
        weight: only its shape and device matter.
        generator: source of the seed; by default the global one of the CPU. By default all ranks of
            an initialised ``torch.distributed`` group must call: they draw from rank 0's seed. With
            a generator nothing is communicated.

    Returns:
        A float64 tensor of the weight's shape, on its device; divided alike if that is a DTensor.
    """
    check_type("name", name, str, "the plain name of a weight: '0.weight', for instance")
    check_type("weight", weight, Tensor, "a tensor")
    piece, start = piece_of(weight), start_of(weight) if is_sharded(weight) else 0
    words = words_in(seed_from(generator), name, start, start + piece.numel())
    scores = torch.from_numpy(words.astype(np.float64) / 2**32)
    scores = scores.view(piece.shape).to(piece.device)
    return shard_like(scores, weight) if is_sharded(weight) else scores
