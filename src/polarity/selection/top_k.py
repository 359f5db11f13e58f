"""The rule of selection: the highest live entries stay, exactly this many, ties by position."""

from collections.abc import Mapping

import torch
from torch import Tensor

from polarity._checks import check_names, check_shape
from polarity.selection.chosen import Chosen, Entries

__all__ = ["choose_top", "keep_top", "keep_top_by_sorting", "largest_of"]


def keep_top_by_sorting(
    scores: Mapping[str, Tensor], keep: int, live: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Keep the ``keep`` highest-scored live entries: the rule itself, by one stable sort.

    Everything else in this folder equals it, to the entry. It takes about 40 bytes and several
    hundred nanoseconds for each entry, which :func:`keep_top` does not.

    Example:
        >>> import torch
        >>> scores = {"a": torch.tensor([3.0, 1.0, 2.0]), "b": torch.tensor([2.0, 2.0])}
        >>> ones = {name: torch.ones(score.shape).bool() for name, score in scores.items()}
        >>> keep_top_by_sorting(scores, 3, ones)
        {'a': tensor([ True, False,  True]), 'b': tensor([ True, False])}
    """
    flat = torch.cat([score.reshape(-1).double() for score in scores.values()])
    contends = torch.cat([live[name].reshape(-1) for name in scores])
    places = contends.nonzero().squeeze(1)
    order = flat[places].argsort(descending=True, stable=True)
    kept = torch.zeros_like(contends)
    kept[places[order[:keep]]] = True
    sizes = [score.numel() for score in scores.values()]
    return {
        name: mask.view(scores[name].shape)
        for name, mask in zip(scores, torch.split(kept, sizes), strict=True)
    }


def keep_top(
    scores: Mapping[str, Tensor], keep: int | Mapping[str, int], live: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    r"""Keep exactly the ``keep`` highest-scored live entries.

    Example:
        >>> import torch
        >>> scores = {"a": torch.tensor([3.0, 1.0, 2.0]), "b": torch.tensor([2.0, 2.0])}
        >>> ones = {name: torch.ones(score.shape).bool() for name, score in scores.items()}
        >>> keep_top(scores, 3, ones)
        {'a': tensor([ True, False,  True]), 'b': tensor([ True, False])}
        >>> keep_top(scores, {"a": 1, "b": 1}, ones)
        {'a': tensor([ True, False, False]), 'b': tensor([ True, False])}

    With the entries numbered through all tensors in the order of ``scores`` and row-major inside
    each, entry :math:`i` precedes entry :math:`j` if :math:`s_i > s_j`, or :math:`s_i = s_j` and
    :math:`i < j`; the first ``keep`` live entries survive. ``-0.0`` equals ``+0.0``.

    Args:
        scores: floating tensors of any shape, dtype and device; entries that are not live may hold
            anything.
        keep: number of entries to keep of all tensors together, or of each, ``{name: number}``.
        live: bool tensors of the same names and shapes; only live entries can be kept.

    Returns:
        New bool masks under the same names, on the devices of the scores.

    Raises:
        ValueError: if a live entry scores NaN or infinite, if names, shapes or dtypes differ from
            those above, or if a count is negative or exceeds the number of live entries.
    """
    chosen = choose_top(scores, keep, live)
    return {name: chosen.new_mask(name) for name in scores}


def choose_top(
    scores: Mapping[str, Tensor], keep: int | Mapping[str, int], live: Mapping[str, Tensor]
) -> Chosen:
    """Choose what :func:`keep_top` would keep."""
    check_names("scores", scores, live, needed=(), what="masked")
    entries = {name: _entries(name, score, live[name]) for name, score in scores.items()}
    return Chosen(entries, keep, signed=True, finite="score")


def largest_of(values: Tensor, keep: int) -> Tensor:
    """Return a bool tensor of the ``keep`` largest entries of a tensor, ties to the lower index."""
    entries = {"values": Entries.of(values, None)}
    return Chosen(entries, keep, signed=True, finite=None).new_mask("values")


def _entries(name: str, score: Tensor, live: Tensor) -> Entries:
    """Return a checked score and its mask, on the device of the score."""
    check_shape("scores", name, score.shape, live.shape, "mask")
    if live.dtype != torch.bool:
        raise ValueError(f"live holds {name!r} in dtype {live.dtype}, expected torch.bool")
    if not score.is_floating_point():
        raise ValueError(f"scores holds {name!r} in dtype {score.dtype}, expected a floating one")
    return Entries.of(score, live.to(score.device))
