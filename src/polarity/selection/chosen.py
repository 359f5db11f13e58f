"""Which entries of many tensors stay: found first, changing nothing, and written where wanted."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from polarity.selection.cpu import HostField
from polarity.selection.cut import find_cut, first_of, ties_of
from polarity.selection.gpu import DeviceField
from polarity.selection.keys import Keys, keys_for
from polarity.selection.passes import KeyField, Space, run

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

    def field(self, name: str, keys: Keys, order: tuple[int, ...] | None) -> KeyField:
        """Return the entries as keys, in this order of dimensions; row-major by a copy if None."""
        live = self.live

        def flat() -> Tensor:
            values = self.values if isinstance(self.values, Tensor) else self.values()
            return (values if order is None else values.permute(order)).reshape(-1)

        if live is not None:
            live = (live if order is None else live.permute(order)).reshape(-1)
        size, lazy = self.shape.numel(), order is None
        if self.device.type == "cpu":
            return HostField(name, flat, live, size, keys, lazy=lazy)
        return DeviceField(name, flat, live, size, keys, self.device, lazy=lazy)


@dataclass(frozen=True)
class _Place:
    """The cut through one tensor: its keys, the threshold, and each chunk's ties, all and kept.

    The order is that of the dimensions in the field, None for a row-major copy.
    """

    field: KeyField
    order: tuple[int, ...] | None
    keys: Keys
    threshold: int
    ties: list[int]
    kept_ties: list[int]


class Chosen:
    """The entries that stay: the highest of the live ones; of equal ones, the first.

    The first in row-major order within a tensor, the tensors in the order they are given.

    Args:
        entries: tensors by name, in order.
        keep: how many entries of all tensors together stay, or how many of each.
        signed: whether entries rank by value, or by magnitude.
        complaint: see :func:`find_cut`.

    Attributes:
        kept: how many entries of each tensor stay.

    Raises:
        ValueError: the complaint; or if a count is negative or exceeds the number of live entries.
            Where there is a count for each tensor the message begins with the tensor's name.
    """

    def __init__(
        self,
        entries: Mapping[str, Entries],
        keep: int | Mapping[str, int],
        *,
        signed: bool,
        complaint: str | None,
    ) -> None:
        self._entries = dict(entries)
        self.kept: dict[str, int] = {}
        self._places: dict[str, _Place] = {}
        if not isinstance(keep, Mapping):
            self._cut(list(entries), keep, signed, complaint)
            return
        for name in entries:
            try:
                self._cut([name], keep[name], signed, complaint)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None

    def _cut(self, names: list[str], keep: int, signed: bool, complaint: str | None) -> None:
        keys = keys_for((self._entries[name].dtype for name in names), signed=signed)
        orders = [self._entries[name].memory_order for name in names]
        fields = [
            self._entries[name].field(name, keys, order)
            for name, order in zip(names, orders, strict=True)
        ]
        live = sum(field.living for field in fields)
        if not 0 <= keep <= live:
            raise ValueError(f"keep={keep} is not between 0 and the {live} live entries")
        cut = find_cut(fields, live - keep, keys, complaint=complaint)
        for at, (name, field) in enumerate(zip(names, fields, strict=True)):
            self.kept[name] = field.living - sum(cut.gone[at])
            self._places[name] = _Place(
                field, orders[at], keys, cut.threshold, cut.ties[at], cut.kept_ties[at]
            )

    def new_mask(self, name: str) -> Tensor:
        """Return a new row-major bool tensor of the entries of a tensor that stay."""
        entries = self._entries[name]
        mask = torch.empty(entries.shape, dtype=torch.bool, device=entries.device)
        self.write(name, mask)
        return mask

    def write(self, name: str, mask: Tensor) -> None:
        """Set ``mask`` to one where an entry of a tensor stays and to zero elsewhere, in place.

        Args:
            name: the tensor.
            mask: of its shape and on its device, of any dtype; it may be the mask that the choice
                was made under.
        """
        entries, place = self._entries[name], self._places[name]
        row_major = tuple(range(len(entries.shape)))
        order = row_major if place.order is None else place.order
        torn = 0 < sum(place.kept_ties) < sum(place.ties)
        if torn and order != row_major:
            # The first of equal entries are the first in row-major order.
            field = entries.field(name, place.keys, None)
            ties = ties_of(field, place.keys, place.threshold)
            kept_ties = first_of(ties, sum(place.kept_ties))
            place = replace(place, field=field, ties=ties, kept_ties=kept_ties)
            order = row_major
        ordered = mask.permute(order)
        target = ordered if ordered.is_contiguous() else torch.empty_like(ordered).contiguous()
        flat = target.view(-1)
        # Numpy converts bools to floats six times as fast; it has no bfloat16.
        array = flat.numpy() if flat.is_cpu and flat.dtype != torch.bfloat16 else None

        def write(_: int, chunk: int, space: Space) -> None:
            where = place.field.parts[chunk]
            kept = place.field.kept(
                where, place.threshold, place.ties[chunk], place.kept_ties[chunk], space
            )
            if isinstance(array, np.ndarray):
                np.copyto(array[where], kept)
            else:
                flat[where].copy_(torch.as_tensor(kept))

        run([place.field], place.keys, write)
        if target is not ordered:
            ordered.copy_(target)
