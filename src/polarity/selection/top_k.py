"""The rule of selection: the highest live entries stay, exactly this many, ties as asked for."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from polarity._bits.random import Words, undrawn_on_error
from polarity._checks import check_names, check_shape, check_ties
from polarity.selection.chosen import Chosen, Entries
from polarity.selection.ranks import Ranks
from polarity.selection.ties import Draw, Ties, draw_for, in_drawn_order

__all__ = ["choose_among_ranks", "choose_top", "keep_top", "keep_top_by_sorting", "largest_of"]


def keep_top_by_sorting(
    scores: Mapping[str, Tensor],
    keep: int,
    live: Mapping[str, Tensor],
    *,
    ties: Ties = "index",
    generator: torch.Generator | None = None,
) -> dict[str, Tensor]:
    """Keep the ``keep`` highest-scored live entries: the rule itself, by one stable sort.

    With ``ties="random"`` the entries are first put in a random order, by another stable sort.

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
    draw = draw_for(ties, generator)
    if draw is not None:
        words = draw({name: live[name] for name in scores})
        places = places[in_drawn_order(words).to(places.device)]
    order = flat[places].argsort(descending=True, stable=True)
    kept = torch.zeros_like(contends)
    kept[places[order[:keep]]] = True
    sizes = [score.numel() for score in scores.values()]
    return {
        name: mask.view(scores[name].shape)
        for name, mask in zip(scores, torch.split(kept, sizes), strict=True)
    }


def keep_top(
    scores: Mapping[str, Tensor],
    keep: int | Mapping[str, int],
    live: Mapping[str, Tensor],
    *,
    ties: Ties = "index",
    generator: torch.Generator | None = None,
    group: Any = None,
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

    With ``ties="random"``, equal scores are ordered by random keys of 30 bits, the higher first,
    and by :math:`i < j` only where these are equal too. A key depends on a seed, the name of the
    tensor and the position of the entry in it.

    With a ``group`` each tensor is this rank's piece of one that is divided along its first
    dimension, in the order of the ranks; a piece may be empty. All ranks call, and together they
    keep what one process would keep of the whole tensors, bit for bit. They exchange counts alone:
    4,096 for each 12 bits of the scores' widest dtype, and a few for each tensor and rank, so that
    the number of bytes does not depend on the number of entries. An error on one rank is an error
    on all.

    Args:
        scores: floating tensors of any shape, dtype and device; entries that are not live may hold
            anything.
        keep: number of entries to keep of all tensors together, or of each, ``{name: number}``; of
            the whole tensors where there is a ``group``.
        live: bool tensors of the same names and shapes; only live entries can be kept.
        ties: ``"index"`` or ``"random"``.
        generator: source of the seed, by default the global one of the CPU. Not used with
            ``ties="index"``.
        group: the process group of ``torch.distributed`` whose ranks hold the pieces, such as
            ``torch.distributed.group.WORLD``; None where the tensors are whole.

    Returns:
        New bool masks under the same names, on the devices of the scores.

    Raises:
        ValueError: if a live entry scores NaN or infinite, if names, shapes or dtypes differ from
            those above, if a count is negative or exceeds the number of live entries, or if
            ``ties`` is another word. The generator is left as it was.
    """
    with undrawn_on_error(generator):
        if group is None:
            chosen = choose_top(scores, keep, live, draw_for(ties, generator))
        else:
            chosen = choose_among_ranks(scores, keep, live, ties, generator, Ranks(group))
    return {name: chosen.new_mask(name) for name in scores}


def choose_top(
    scores: Mapping[str, Tensor],
    keep: int | Mapping[str, int],
    live: Mapping[str, Tensor],
    draw: Draw | None = None,
) -> Chosen:
    """Choose what :func:`keep_top` would keep, of equal entries by ``draw`` if that is given."""
    return Chosen(_all_entries(scores, live), keep, signed=True, finite="score", draw=draw)


def choose_among_ranks(
    scores: Mapping[str, Tensor],
    keep: int | Mapping[str, int],
    live: Mapping[str, Tensor],
    ties: Ties,
    generator: torch.Generator | None,
    ranks: Ranks,
) -> Chosen:
    """Choose among pieces that the ranks hold, once all of them have agreed on what they hold."""

    def checked() -> tuple[dict[str, Entries], object]:
        check_ties(ties)
        entries = _all_entries(scores, live)
        what = [(name, each.dtype, tuple(each.shape[1:])) for name, each in entries.items()]
        return entries, (what, keep if isinstance(keep, int) else sorted(keep.items()), ties)

    entries = ranks.agree(
        checked, "tensors of the same names, dtypes and further dimensions, keep and ties"
    )
    sizes = ranks.table([each.shape.numel() for each in entries.values()])
    before = sizes[: ranks.index].sum(axis=0).tolist()
    draw = draw_for(ties, generator, dict(zip(entries, before, strict=True)))
    return Chosen(entries, keep, signed=True, finite="score", draw=draw, ranks=ranks)


def largest_of(
    values: Tensor,
    keep: int,
    words: Words | None = None,
    *,
    sizes: Sequence[int] = (),
    ranks: Ranks | None = None,
) -> Tensor:
    """Return a bool tensor of the ``keep`` largest entries of a flat tensor.

    Ties: the lower index, or with random ``words``, one for each entry, the higher key first.

    Args:
        values: the entries; among ranks, this rank's pieces of several tensors, one after another.
        keep: how many stay, of all ranks together.
        words: random words of the entries, or None.
        sizes: among ranks, the number of entries of each piece.
        ranks: those that hold the other pieces; None where this process has all entries.
    """
    pieces = [values] if ranks is None else torch.split(values, list(sizes))
    entries = {str(at): Entries.of(each, None) for at, each in enumerate(pieces)}

    def draw(tied: Mapping[str, Tensor]) -> Words:
        assert words is not None
        chosen: Words = words[torch.cat(list(tied.values())).numpy(force=True)]
        return chosen

    by = None if words is None else draw
    chosen = Chosen(entries, keep, signed=True, finite=None, draw=by, ranks=ranks)
    masks = [chosen.new_mask(name) for name in entries]
    return masks[0] if len(masks) == 1 else torch.cat(masks)


def _all_entries(scores: Mapping[str, Tensor], live: Mapping[str, Tensor]) -> dict[str, Entries]:
    """Return checked scores with their masks, by name."""
    check_names("scores", scores, live, needed=(), what="masked")
    return {name: _entries(name, score, live[name]) for name, score in scores.items()}


def _entries(name: str, score: Tensor, live: Tensor) -> Entries:
    """Return a checked score and its mask, on the device of the score."""
    check_shape("scores", name, score.shape, live.shape, "mask")
    if live.dtype != torch.bool:
        raise ValueError(f"live holds {name!r} in dtype {live.dtype}, expected torch.bool")
    if not score.is_floating_point():
        raise ValueError(f"scores holds {name!r} in dtype {score.dtype}, expected a floating one")
    return Entries.of(score, live.to(score.device))
