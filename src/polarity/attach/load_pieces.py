"""Load a checkpoint into a sharded model: each rank reads its rows, and none the whole."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from polarity._files import read_tensors, shapes_in
from polarity._shards import is_sharded, rows_of
from polarity.attach.checkpoint_forms import check_masked
from polarity.attach.loading import checked_pairs
from polarity.parametrizations.arithmetic import count_ones
from polarity.selection.ranks import Ranks
from polarity.targets.state_keys import ENFORCED, MASK, inside, split_key
from polarity.targets.target import Target
from polarity.targets.writing import write_all

__all__ = ["load_pieces"]

_REMEDY = (
    "a sharded model takes files of its own forms alone: call load(model, path) before "
    "fully_shard(model)"
)


def load_pieces(
    model: nn.Module, path: str | Path, aliases: Any, targets: Mapping[str, Target], ranks: Ranks
) -> None:
    """Read a file of :func:`polarity.save` into a sharded model of the same forms, or raise.

    Args:
        model: the model, without wrappers.
        path: the file, which every rank reads.
        aliases: returns the names of a file by its entries and metadata, with those of tied ones.
        targets: the model's parameters by each of their names.
        ranks: those of the model; all of them call.

    Raises:
        ValueError: on every rank, if the file does not fit; nothing is written.
    """
    tensors = model.state_dict(keep_vars=True)
    own = {target.name: target for target in targets.values()}

    def planned() -> tuple[Any, object]:
        shapes, metadata = shapes_in(path, "polarity.load")
        entries: dict[str, str] = aliases(path, shapes, metadata)
        try:
            _check_forms(own)
            _check_fits({key: shapes[entry] for key, entry in entries.items()}, tensors)
            rows = {
                entries[key]: rows_of(value) if is_sharded(value) else None
                for key, value in tensors.items()
            }
            read, _ = read_tensors(path, "polarity.load", rows)
            state = {key: read[entry] for key, entry in entries.items()}
            for name, target in targets.items():
                if target.masking is not None:
                    check_masked(name, state, target)
            pairs = checked_pairs(
                [
                    (split_key(key)[0], value, state[key])
                    for key, value in tensors.items()
                    if split_key(key)[1] != ENFORCED
                ]
            )
            masks = [
                (target, bool(state[f"{inside(name)}{ENFORCED}"]), state[f"{inside(name)}{MASK}"])
                for name, target in own.items()
                if target.masking is not None
            ]
            ones = [(target, enforced, count_ones(mask)) for target, enforced, mask in masks]
        except ValueError as error:
            raise ValueError(f"{path} {error}") from error
        return (list(pairs), ones), (shapes, metadata)

    pairs, masks = ranks.agree(planned, "the same file, read into the same model")
    write_all(pairs)
    for target, enforced, ones in masks:
        target.masking.enforce = enforced
        if enforced:
            target.masking.clear(target.stored, ones)
        else:
            target.masking.written = ones


def _check_forms(targets: Mapping[str, Target]) -> None:
    """Raise if a weight has a form of which the pieces of a file cannot be checked."""
    for name, target in targets.items():
        if target.chain and (target.masking is None or len(target.chain) > 1):
            raise ValueError(
                f"fits no {name!r}, which is parametrized by {type(target.chain[-1]).__name__}, "
                f"expected masks and Sign-In at most: {_REMEDY}"
            )


def _check_fits(shapes: Mapping[str, tuple[int, ...]], tensors: Mapping[str, Any]) -> None:
    """Raise unless a file holds what the model holds, in the whole shapes."""
    if strange := sorted(shapes.keys() ^ tensors.keys()):
        which = "holds" if strange[0] in shapes else "is missing"
        raise ValueError(f"{which} {strange[0]!r}, expected the model's own names: {_REMEDY}")
    for key, value in tensors.items():
        if not isinstance(value, Tensor) or (
            key.endswith("_extra_state") and split_key(key)[1] != ENFORCED
        ):
            raise ValueError(f"fits no {key!r}, a state of a module's own: {_REMEDY}")
        if shapes[key] != tuple(value.shape):
            raise ValueError(
                f"holds {key!r} in shape {shapes[key]}, expected the model's {tuple(value.shape)}"
            )
