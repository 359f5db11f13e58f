"""Which entries of many tensors stay: chosen without changing anything, then written to masks."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from polarity._bits.arrays import survivors_of
from polarity.selection.across import find_cut_across
from polarity.selection.cpu import CpuKeys
from polarity.selection.cut import find_cut, share_among_first, ties_of
from polarity.selection.gpu import GpuKeys, count_live
from polarity.selection.keys import KeyFormat, key_format_for
from polarity.selection.passes import Scratch, TensorKeys, for_each_chunk
from polarity.selection.ranks import Ranks
from polarity.selection.ties import Draw, keys_of

__all__ = ["Chosen", "Entries"]


@dataclass(frozen=True)
class Entries:
    """A floating tensor, or the way to compute it, and which of its entries take part.

    Attributes:
        values: the tensor, or a function that returns it, the same at each call.
        live: tensor of its shape and on its device, nonzero where an entry takes part; None for
            all.
        shape: the shape of the tensor.
        dtype: its dtype.
        device: its device.
    """

    values: Tensor | Callable[[], Tensor]
    live: Tensor | None
    shape: torch.Size
    dtype: torch.dtype
    device: torch.device

    @classmethod
    def of(cls, values: Tensor, live: Tensor | None) -> "Entries":
        """Take a tensor that exists."""
        return cls(values, live, values.shape, values.dtype, values.device)

    @property
    def memory_order(self) -> tuple[int, ...] | None:
        """The order of dimensions in which values and mask both lie gapless in memory, if any."""
        if not isinstance(self.values, Tensor):
            return None
        strides = self.values.stride()
        order = tuple(sorted(range(self.values.dim()), key=lambda dim: -strides[dim]))
        if self.values.is_contiguous():
            order = tuple(range(self.values.dim()))
        tensors = (self.values,) if self.live is None else (self.values, self.live)
        return order if all(each.permute(order).is_contiguous() for each in tensors) else None

    def keys(
        self, name: str, key_format: KeyFormat, order: tuple[int, ...] | None = None
    ) -> TensorKeys:
        """Return the entries as keys, in this order of dimensions; row-major by a copy if None."""
        live = self.live

        def flat() -> Tensor:
            values = self.values if isinstance(self.values, Tensor) else self.values()
            return (values if order is None else values.permute(order)).reshape(-1)

        if live is not None:
            live = (live if order is None else live.permute(order)).reshape(-1)
        size, lazy = self.shape.numel(), order is None
        if self.device.type == "cpu":
            return CpuKeys(name, flat, live, size, key_format, lazy=lazy)
        return GpuKeys(name, flat, live, size, key_format, self.device, lazy=lazy)


@dataclass(frozen=True)
class _CutTensor:
    """The cut through one tensor: its keys, the threshold, and each chunk's ties, all and kept.

    ``order`` is the order of dimensions of the keys, None for a row-major copy.
    """

    keys: TensorKeys
    key_format: KeyFormat
    order: tuple[int, ...] | None
    threshold: int
    ties: list[int]
    kept_ties: list[int]


class Chosen:
    """The entries that stay: the highest of the live ones; of equal ones, the first or by draw.

    The first in row-major order within a tensor, the tensors in the order they are given. By draw
    those with the highest keys, 30 bits of their random words; of equal keys, the first.

    Args:
        entries: tensors by name, in order.
        keep: how many entries of all tensors together stay, or how many of each.
        signed: whether entries rank by value, or by magnitude.
        finite: see :func:`find_cut`.
        draw: returns the random words of entries; None if the first of equal ones stay.
        ranks: the ranks of which each has a piece of every tensor, consecutive in the order of the
            ranks; None where this process has all of them.

    Attributes:
        kept: how many entries of each tensor, or of its piece here, stay.
        by_ties: how many of these were chosen among equal ones, where others of them go.

    Raises:
        ValueError: if a live entry that must be finite is not, or if a count is negative or exceeds
            the number of live entries.
    """

    def __init__(
        self,
        entries: Mapping[str, Entries],
        keep: int | Mapping[str, int],
        *,
        signed: bool,
        finite: str | None,
        draw: Draw | None = None,
        ranks: Ranks | None = None,
    ) -> None:
        self._entries = dict(entries)
        self._signed = signed
        self._finite = finite
        self._draw = draw
        self._ranks = ranks
        self.kept: dict[str, int] = {}
        self.by_ties = 0
        self._cuts: dict[str, _CutTensor] = {}
        self._drawn: dict[str, Tensor] = {}
        if isinstance(keep, Mapping):
            for name in entries:
                self._cut([name], keep[name], f"keep[{name!r}]")
        else:
            self._cut(list(entries), keep, "keep")

    def _cut(self, names: list[str], keep: int, parameter: str) -> None:
        chosen = [self._entries[name] for name in names]
        key_format = key_format_for((each.dtype for each in chosen), signed=self._signed)
        orders = [each.memory_order for each in chosen]
        tensors = [
            each.keys(name, key_format, order)
            for name, each, order in zip(names, chosen, orders, strict=True)
        ]
        count_live(tensors)
        live = sum(each.live_count for each in tensors)
        if self._ranks is not None:
            live = int(self._ranks.add([live])[0])
        if not 0 <= keep <= live:
            raise ValueError(
                f"{parameter}={keep}, expected a number from 0 to the {live} live entries"
            )
        if self._ranks is None:
            cut = find_cut(tensors, live - keep, key_format, finite=self._finite)
        else:
            cut = find_cut_across(
                tensors, live - keep, live, key_format, self._ranks, finite=self._finite
            )
        for at, name in enumerate(names):
            self.kept[name] = cut.kept[at]
            self._cuts[name] = _CutTensor(
                tensors[at],
                key_format,
                orders[at],
                cut.threshold,
                cut.ties[at],
                cut.kept_ties[at],
            )
        ties, kept_ties = (sum(map(sum, each)) for each in (cut.ties, cut.kept_ties))
        if self._ranks is not None:
            ties, kept_ties = self._ranks.add([ties, kept_ties]).tolist()
        if 0 < kept_ties < ties:
            self.by_ties += kept_ties
            if self._draw is not None:
                # Every rank names the same tensors.
                anywhere = [
                    self._ranks is not None or sum(self._cuts[name].ties) > 0 for name in names
                ]
                tied = [name for name, holds in zip(names, anywhere, strict=True) if holds]
                self._draw_among(tied, kept_ties, self._draw)

    def _draw_among(self, names: list[str], keep: int, draw: Draw) -> None:
        """Choose which of the entries at the threshold stay: those with the highest keys."""
        tied = {}
        for name in names:
            cut = self._cuts[name]
            above = replace(cut, kept_ties=[0] * len(cut.ties))
            self._drawn[name] = self._new_mask(name, above)
            with_ties = self._new_mask(name, replace(cut, kept_ties=cut.ties))
            tied[name] = with_ties.logical_xor_(self._drawn[name]).view(-1)
        counts = [int(mask.count_nonzero()) for mask in tied.values()]
        drawn = torch.split(keys_of(draw(tied)), counts)
        keys = {name: Entries.of(each, None) for name, each in zip(tied, drawn, strict=True)}
        stays = Chosen(keys, keep, signed=False, finite=None, ranks=self._ranks)
        for name, mask in tied.items():
            flat, mine, start = self._drawn[name].view(-1), stays.new_mask(name), 0
            for chunk, places in survivors_of(mask):
                stop = start + places.numel()
                flat[chunk][places] = mine[start:stop].to(flat.device)
                start = stop
            self.kept[name] = int(flat.count_nonzero())

    def new_mask(self, name: str) -> Tensor:
        """Return a new row-major bool tensor of the entries of a tensor that stay."""
        if name in self._drawn:
            return self._drawn[name].clone()
        return self._new_mask(name, self._cuts[name])

    def _new_mask(self, name: str, cut: _CutTensor) -> Tensor:
        """Return a new row-major bool tensor of the entries that stay by this cut."""
        entries = self._entries[name]
        mask = torch.empty(entries.shape, dtype=torch.bool, device=entries.device)
        self._write(name, cut, mask)
        return mask

    def writes_in_place(self, name: str, mask: Tensor) -> bool:
        """Return whether :meth:`write` only copies within memory, by numpy, and cannot fail."""
        return (
            name not in self._drawn
            and mask.is_cpu
            and mask.dtype != torch.bfloat16
            and mask.is_contiguous()
            and self._cuts[name].order in (None, tuple(range(mask.dim())))
        )

    def write(self, name: str, mask: Tensor) -> None:
        """Set ``mask`` to one where an entry of a tensor stays and to zero elsewhere, in place.

        Args:
            name: the tensor.
            mask: of its shape and on its device, of any dtype; it may be the mask that the choice
                was made under.
        """
        if name in self._drawn:
            mask.copy_(self._drawn[name])
        else:
            self._write(name, self._cuts[name], mask)

    def _write(self, name: str, cut: _CutTensor, mask: Tensor) -> None:
        """Write the entries that stay by this cut."""
        row_major = tuple(range(mask.dim()))
        order = row_major if cut.order is None else cut.order
        if order != row_major and 0 < sum(cut.kept_ties) < sum(cut.ties):
            # Which of the equal entries stay is decided in row-major order.
            order = row_major
            keys = self._entries[name].keys(name, cut.key_format)
            ties = ties_of(keys, cut.key_format, cut.threshold)
            kept_ties = share_among_first(ties, sum(cut.kept_ties))
            cut = replace(cut, keys=keys, ties=ties, kept_ties=kept_ties)
        ordered = mask.permute(order)
        target = ordered if ordered.is_contiguous() else torch.empty_like(ordered).contiguous()
        flat = target.view(-1)
        # Numpy converts bools to floats six times as fast; it has no bfloat16.
        array = flat.numpy() if flat.is_cpu and flat.dtype != torch.bfloat16 else None

        def write(keys: TensorKeys, at: int, scratch: Scratch) -> None:
            chunk = keys.chunks[at]
            kept = keys.kept(chunk, cut.threshold, cut.ties[at], cut.kept_ties[at], scratch)
            if isinstance(array, np.ndarray):
                np.copyto(array[chunk], kept)
            else:
                flat[chunk].copy_(torch.as_tensor(kept, device=flat.device))

        for_each_chunk([cut.keys], cut.key_format, write)
        if target is not ordered:
            ordered.copy_(target)
