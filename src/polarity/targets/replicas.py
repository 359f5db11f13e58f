"""Ranks that hold whole copies of one model: they change its masks together, and alike."""

from collections.abc import Callable, Iterable
from hashlib import blake2b
from typing import TypeVar

import numpy as np
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from polarity._bits.arrays import chunks_of, read_only
from polarity.selection.ranks import Ranks
from polarity.targets.wrappers import layers

__all__ = ["chosen_alike", "replicas_of"]

Value = TypeVar("Value")

_ALIKE = (
    "the same masks on every copy of the model; nothing was changed. Load rank 0's "
    "model.state_dict() on every rank, and give all of them the same masks or scores, and "
    "generators in the same state"
)


def replicas_of(model: nn.Module) -> Ranks | None:
    """Return the ranks that hold copies of a model that DDP wraps; None of any other model."""
    for each in layers(model):
        if isinstance(each, DistributedDataParallel):
            ranks = Ranks(each.process_group)
            return ranks if ranks.count > 1 else None
    return None


def chosen_alike(
    ranks: Ranks | None,
    choose: Callable[[], Value],
    masks_of: Callable[[Value], Iterable[tuple[str, Tensor]]],
) -> Value:
    """Return what a function chooses here, if it raises on no rank and all choose the same masks.

    Args:
        ranks: those of :func:`replicas_of`; all of them call. With None nothing is compared.
        choose: chooses, and changes nothing.
        masks_of: yields name and bool mask of each weight, of what was chosen.

    Raises:
        ValueError: on every rank, if two of them chose other masks.
    """
    if ranks is None:
        return choose()

    def checked() -> tuple[Value, object]:
        chosen = choose()
        return chosen, _digest(masks_of(chosen))

    return ranks.agree(checked, _ALIKE)


def _digest(masks: Iterable[tuple[str, Tensor]]) -> str:
    """Return a hash of names, shapes and packed masks."""
    digest = blake2b(digest_size=16)
    for name, mask in masks:
        digest.update(f"{name}{tuple(mask.shape)}".encode())
        flat = mask.reshape(-1)
        for chunk in chunks_of(flat.numel(), flat.device):
            digest.update(np.packbits(read_only(flat[chunk].cpu())).tobytes())
    return digest.hexdigest()
