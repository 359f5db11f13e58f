"""Show a signed mask as a table."""

from collections.abc import Mapping

from torch import Tensor

from polarity._shards import piece_of
from polarity._tables import format_shape, format_table

__all__ = ["ticket_table"]


def ticket_table(
    signs: Mapping[str, Tensor], masks: Mapping[str, Tensor], zeros: Mapping[str, int] | None = None
) -> str:
    """Return one row per tensor: its survivors, their signs, and how many have none.

    Args:
        signs: int8 tensors of −1, 0 and +1.
        masks: bool tensors of those that are masked. Of divided tensors this rank's rows are shown.
        zeros: for every name, how many entries are 0 and so start without their sign.

    Example:
        >>> import torch
        >>> signs = torch.tensor([1, -1, 0, 0, 1], dtype=torch.int8)
        >>> print(ticket_table({"weight": signs}, {"weight": torch.arange(5) != 3}))
        weight  shape  density  survivors  +  −  own sign
        -------------------------------------------------
        weight      5   0.8000          4  2  1         1
    """
    rows = []
    pieces = ((name, piece_of(each)) for name, each in signs.items())
    for name, each in pieces:
        mask = piece_of(masks[name]) if name in masks else None
        survivors = int(mask.count_nonzero()) if mask is not None else each.numel()
        positive, signed = int((each > 0).count_nonzero()), int(each.count_nonzero())
        density = f"{survivors / max(1, each.numel()):.4f}" if mask is not None else "no mask"
        counts = [survivors, positive, signed - positive, survivors - signed]
        counts += [zeros[name]] if zeros is not None else []
        rows.append((name, format_shape(each.shape), density, *map(str, counts)))
    header = ("weight", "shape", "density", "survivors", "+", "−", "own sign")
    return format_table(header if zeros is None else (*header, "zero"), rows)
