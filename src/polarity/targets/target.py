"""One prunable weight: where it is used, what it is made of, how to read and write it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from polarity._shards import is_sharded, piece_of, shard_like, start_of
from polarity.parametrizations.arithmetic import count_ones
from polarity.parametrizations.masked import MaskedWeight
from polarity.parametrizations.norm_interp import NormInterp
from polarity.parametrizations.soft_threshold import SoftThreshold
from polarity.targets.defaults import Use
from polarity.targets.shards import added, piece_like, ranks_of, together
from polarity.targets.stored import parametrizations_of, stored_leaves
from polarity.targets.torch_prune import torch_mask
from polarity.targets.writing import write_all

__all__ = [
    "Target",
    "check_has_values",
    "count_survivors",
    "refuse_compact",
]


@dataclass(frozen=True)
class Target:
    """One prunable weight and every place of the model that uses it.

    Of a weight that FSDP2 has sharded, every tensor of values or of a mask is this rank's piece,
    a plain tensor: ``pieces``, ``weight``, ``mask`` and what is staged.
    ``stored`` are the parameters that optimizers hold, and ``shape`` is the whole weight's.

    Attributes:
        uses: plain name, module, tensor name and leaf of each use, in model order; more than one
            where the weight, or the module that holds it, is shared.
    """

    uses: tuple[Use, ...]

    @property
    def name(self) -> str:
        """The name the parameter has when nothing is attached, e.g. ``layer1.0.conv1.weight``."""
        return self.uses[0].name

    @property
    def aliases(self) -> tuple[str, ...]:
        """Its other names; empty unless it is tied."""
        return tuple(use.name for use in self.uses[1:])

    @property
    def module(self) -> nn.Module:
        """The module that holds it, the first one where it is shared."""
        return self.uses[0].module

    @property
    def tensor_name(self) -> str:
        """Its name in that module, e.g. ``weight``."""
        return self.uses[0].tensor_name

    @property
    def owners(self) -> tuple[Use, ...]:
        """One use for every module that holds the tensor."""
        return tuple(
            {(id(use.module), use.tensor_name): use for use in reversed(self.uses)}.values()
        )[::-1]

    @property
    def chain(self) -> tuple[nn.Module, ...]:
        """Its parametrizations, first applied first; empty for a plain parameter."""
        return parametrizations_of(self.module, self.tensor_name)

    @property
    def masking(self) -> MaskedWeight | None:
        """The parametrization that owns its mask, or None while there is none."""
        return next((each for each in self.chain if isinstance(each, MaskedWeight)), None)

    @property
    def threshold(self) -> SoftThreshold | None:
        """The soft threshold right after its mask, or None while there is none."""
        second = self.chain[1] if len(self.chain) > 1 else None
        return second if self.masking and isinstance(second, SoftThreshold) else None

    @property
    def interpolation(self) -> NormInterp | None:
        """The parametrization that interpolates it with its initial value, or None."""
        first = self.chain[0] if self.chain else None
        return first if isinstance(first, NormInterp) else None

    @property
    def torch_mask(self) -> Tensor | None:
        """The mask that ``torch.nn.utils.prune`` holds on it, or None."""
        return torch_mask(self.module, self.tensor_name)

    @property
    def is_plain(self) -> bool:
        """Whether it is a parameter and nothing else."""
        return not self.chain and self.torch_mask is None

    @property
    def is_stored(self) -> bool:
        """Whether it is one stored tensor, seen through a mask and nothing else."""
        return len(self.chain) == 1 and type(self.chain[0]) is MaskedWeight

    @property
    def is_compact(self) -> bool:
        """Whether its survivors alone are stored (:func:`polarity.compact`)."""
        return self.masking is not None and self.masking.places is not None

    @property
    def stored(self) -> tuple[Tensor, ...]:
        """The leaves an optimizer trains: one for a plain or masked weight."""
        return stored_leaves(self.module, self.tensor_name)

    @property
    def is_sharded(self) -> bool:
        """Whether this rank may hold a piece of it only (FSDP2)."""
        return is_sharded(self.stored[0])

    @property
    def pieces(self) -> tuple[Tensor, ...]:
        """What is stored here, to read and to write: the leaves, or this rank's pieces of them."""
        return tuple(piece_of(leaf) for leaf in self.stored)

    @property
    def start(self) -> int:
        """How many entries of the weight come before this rank's piece."""
        return start_of(self.stored[0]) if self.is_sharded else 0

    def piece(self, value: Tensor, parameter: str) -> Tensor:
        """Return what of a given tensor belongs to this rank's piece, see :func:`piece_like`."""
        return piece_like(value, self.stored[0], parameter, self.name)

    def as_given(self, piece: Tensor) -> Tensor:
        """Return a piece in the form that users get: divided as the weight is, if that is."""
        return shard_like(piece, self.stored[0]) if self.is_sharded else piece

    @property
    def weight(self) -> Tensor:
        """The effective weight, detached: with zeros outside its mask, if it has one."""
        if self.is_sharded:
            return self._piece_of_weight()
        if self.torch_mask is not None:  # the attribute is from the last forward pass
            return self.stored[0].detach() * self.torch_mask
        if self.interpolation is not None:
            return self.stored[0].detach()  # the trained value, not the interpolated one
        with torch.no_grad():
            effective: Tensor = getattr(self.module, self.tensor_name)
        return effective.detach()

    @torch.no_grad()
    def _piece_of_weight(self) -> Tensor:
        """Return this rank's piece of the effective weight, or of what is trained of a norm."""
        pieces = tuple(piece.detach() for piece in self.pieces)
        if not self.chain or self.interpolation is not None:
            return pieces[0]
        if self.masking is None or len(self.chain) > 1:
            raise TypeError(
                f"{self.name!r} is sharded (DTensor) and parametrized by "
                f"{type(self.chain[-1]).__name__}, expected a mask or Sign-In alone"
            )
        return self.masking.of_pieces(pieces, self.enforced_mask)

    @property
    def before_threshold(self) -> Tensor:
        """The effective weight, detached, that it would have without a soft threshold."""
        if self.threshold is None or self.masking is None:
            return self.weight
        with torch.no_grad():
            return cast(Tensor, self.masking(*self.stored)).detach()

    @property
    def support(self) -> Tensor:
        """Which entries are not zero behind a soft threshold; without one, the mask. New, bool."""
        return self.mask if self.threshold is None else self.weight != 0

    def aliases_storage(self, weight: Tensor) -> bool:
        """Whether ``weight`` is the memory of a stored leaf: a plain or unenforced weight is."""
        return any(weight.data_ptr() == leaf.data_ptr() for leaf in self.pieces)

    @property
    def mask(self) -> Tensor:
        """The mask as a new bool tensor; all ones where there is none.

        Raises:
            ValueError: if the mask holds values other than 0 and 1, as an average of models does.
        """
        mask = self.numeric_mask
        if mask is None:
            return torch.ones_like(self.pieces[0], dtype=torch.bool)
        self._count(mask)
        return mask != 0

    @property
    def held_mask(self) -> Tensor | None:
        """The mask itself, not a copy, as the model holds it; None for all ones."""
        return self.torch_mask if self.masking is None else self.masking.mask

    @property
    def numeric_mask(self) -> Tensor | None:
        """The mask itself, not a copy, or this rank's piece of it; None for all ones."""
        return None if self.held_mask is None else piece_of(self.held_mask)

    @property
    def survivors(self) -> int:
        """The number of ones in the mask, enforced or only remembered; see count_survivors."""
        return count_survivors([self])[self.name]

    def _survivors_here(self) -> int:
        """Count the ones in the mask, or in this rank's piece of it."""
        mask = self.numeric_mask
        return self.pieces[0].numel() if mask is None else self._count(mask)

    @property
    def live(self) -> Tensor:
        """Which entries are live, as a new bool tensor: all where no mask is enforced."""
        mask = self.mask
        return mask if self.enforced_mask is not None else mask.fill_(True)

    @property
    def enforced_mask(self) -> Tensor | None:
        """The mask that is enforced, not a copy, as the model holds it; None if there is none."""
        if self.masking is not None and not self.masking.enforce:
            return None
        return self.numeric_mask

    @property
    def shape(self) -> torch.Size:
        """The shape of the weight."""
        if self.masking is not None:
            return self.masking.mask.shape
        return self.weight.shape if self.chain and not self.is_sharded else self.stored[0].shape

    @property
    def shape_here(self) -> torch.Size:
        """The shape of the weight, or of this rank's piece of it."""
        return self.pieces[0].shape if self.is_sharded else self.shape

    def _count(self, mask: Tensor) -> int:
        """Count the ones of the mask; report one that others changed, and refuse fractions."""
        if mask.is_meta:  # without values: what polarity last wrote
            written = None if self.masking is None else self.masking.written
            return mask.numel() if written is None else written
        try:
            ones = count_ones(mask)
        except ValueError:
            raise ValueError(
                f"mask of {self.name!r} holds values other than 0 and 1 (an average of models "
                "averages their masks): restore it with pol.load_masks(average, pol.masks(model))"
            ) from None
        if self.masking is not None:
            self.masking.notice(ones, self.name)
        return ones

    def write(self, values: Tensor) -> None:
        """Set the effective weight in place: the leaves stay the same objects."""
        write_all(self.staged(values))

    @torch.no_grad()
    def staged(self, values: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Return (leaf, new values) for each leaf, so that the effective weight becomes ``values``.

        Nothing is written: :func:`polarity.targets.writing.write_all` does it for many weights.

        Raises:
            ValueError: if one of its parametrizations has no inverse.
        """
        masking = self.masking
        return self.staged_under(values, self.numeric_mask if masking and masking.enforce else None)

    @torch.no_grad()
    def staged_under(self, values: Tensor, mask: Tensor | None) -> list[tuple[Tensor, Tensor]]:
        """Return the same for a weight that is about to have this mask enforced, None for none."""
        leaves = self.pieces
        stored: Any = values.to(leaves[0].device, leaves[0].dtype)
        for each in reversed(self.chain):
            if isinstance(each, MaskedWeight):
                stored = each.to_store(stored, mask)
            elif each is self.interpolation and self.is_sharded:
                stored = stored.clone()  # its initial value is whole
            else:
                stored = self._undone(each, stored)
        new = stored if isinstance(stored, tuple) else (stored,)
        return list(zip(leaves, new, strict=True))

    def _undone(self, each: nn.Module, values: Any) -> Any:
        """Return what a parametrization has to be given to return these values."""
        if self.is_sharded and isinstance(each, NormInterp):
            return values.clone()  # of a piece; its right_inverse takes whole values
        try:
            if hasattr(each, "right_inverse"):
                return cast(Any, each).right_inverse(values)
        except NotImplementedError:
            pass
        raise ValueError(
            f"{self.name!r} cannot be written: {type(each).__name__}, which parametrizes it, has "
            "no right_inverse; give it one, or remove it with "
            "torch.nn.utils.parametrize.remove_parametrizations"
        )


def count_survivors(targets: Iterable[Target]) -> dict[str, int]:
    """Return the number of ones in the mask of each weight, of the ranks together if sharded.

    Raises:
        ValueError: if a mask holds values other than 0 and 1; on every rank.
    """
    targets = list(targets)
    ranks = ranks_of(target.stored[0] for target in targets)
    here = together(ranks, lambda: {each.name: each._survivors_here() for each in targets})
    return added(ranks, here)


def refuse_compact(targets: Mapping[str, "Target"], what: str) -> None:
    """Raise if one of some weights is compact, and say how to store it densely."""
    for name, target in targets.items():
        if target.is_compact:
            raise ValueError(
                f"{what} gives pruned entries values, and {name!r} is compact and stores none of "
                "them, expected a masked weight: call expand(model, optimizer=optimizer) first"
            )


def check_has_values(targets: Iterable[Target]) -> None:
    """Raise if the model is on the meta device, where a weight has no values."""
    for target in targets:
        if target.stored[0].is_meta:
            raise ValueError(
                f"model has {target.name!r} on the meta device, expected values: call "
                "model.to_empty(device='cpu'), or on another device, and load the weights first"
            )
