"""Which of several equal entries stay: those of lower index, or those with the highest words."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from polarity._bits.random import Words, seed_from, words_at
from polarity._checks import check_ties

__all__ = ["Draw", "Ties", "draw_for", "in_drawn_order", "keys_of"]

Ties: TypeAlias = Literal["index", "random"]

# Given bool masks by name: the random words of what they select, mask after mask, row-major.
Draw: TypeAlias = Callable[[Mapping[str, Tensor]], Words]


def draw_for(
    ties: Ties, generator: torch.Generator | None, starts: Mapping[str, int] | None = None
) -> Draw | None:
    """Return what draws among equal entries; None, and nothing is drawn, if the index decides.

    Of pieces of weights ``starts`` has the position of each one's first entry.

    Example:
        >>> draw = draw_for("random", torch.Generator().manual_seed(0))
        >>> draw({"w": torch.tensor([True, False, True])}).shape
        (2,)
    """
    check_ties(ties)
    if ties == "index":
        return None
    return partial(words_at, seed_from(generator), starts=starts)


def keys_of(words: Words) -> Tensor:
    """Return the upper 30 bits of words as numbers of the same order, in the words' memory."""
    words >>= np.uint32(2)
    # Below 2**30 the bits of an integer, read as a float32, are finite and order as it does.
    return torch.from_numpy(words.view(np.float32))


def in_drawn_order(words: Words) -> Tensor:
    """Return the places of words in the order in which equal entries stay: the rule, by a sort."""
    keys = torch.from_numpy((words >> np.uint32(2)).astype(np.int64))
    return keys.argsort(descending=True, stable=True)
