"""Models that FSDP2 has sharded: their masks follow their weights, and their ranks agree."""

import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrize import ParametrizationList

from polarity._shards import is_sharded, piece_of, rows_of, shard_like, why_unknown
from polarity.parametrizations.arithmetic import count_ones
from polarity.parametrizations.masked import MaskedWeight, NotEnforced
from polarity.selection.ranks import Ranks
from polarity.targets.wrappers import unwrapped

__all__ = [
    "SHARDED",
    "added",
    "follow_shards",
    "piece_like",
    "plain_class",
    "ranks_of",
    "ranks_of_model",
    "refuse_pieces",
    "refuse_sharded",
    "together",
]

SHARDED = "sharded (DTensor): call mask_weights before fully_shard"

Value = TypeVar("Value")


def _fsdp_module(name: str = "FSDPModule") -> Any:
    """Return the class that FSDP2 gives to modules, or None where it was never imported."""
    return getattr(sys.modules.get("torch.distributed.fsdp"), name, None)


def plain_class(module: nn.Module) -> type[nn.Module]:
    """Return the class that a module has when it is neither parametrized nor wrapped by FSDP2."""
    kind, wrapping = type(module), _fsdp_module()
    if wrapping is not None and issubclass(kind, wrapping):
        kind = kind.__bases__[1]
    return kind.__bases__[0] if parametrize.is_parametrized(module) else kind


def follow_shards(model: nn.Module) -> None:
    """Let FSDP2 show its shards, and shard the masks of sharded weights as these are.

    After a forward without backward FSDP2 leaves some weights whole, in memory that it drops:
    what is written there is lost. Nothing is communicated: every rank keeps its rows of the mask.
    """
    kind, former = _fsdp_module(), _fsdp_module("FullyShardedDataParallel")
    sharded = [each for each in model.modules() if isinstance(each, kind)] if kind else []
    if former is not None and any(isinstance(each, former) for each in model.modules()):
        raise TypeError(
            "model is wrapped in FullyShardedDataParallel, which flattens its weights, expected "
            "one that fully_shard (FSDP2) divides: call mask_weights, then fully_shard"
        )
    for each in sharded:
        each.reshard()
    for module in model.modules() if sharded else ():
        if isinstance(module, ParametrizationList) and isinstance(module[0], MaskedWeight):
            _follow(module[0], next(module.parameters(recurse=False)))


def _follow(masking: MaskedWeight, leaf: Tensor) -> None:
    """Shard the mask of a weight as what it is stored as, unless it is so already."""
    if not is_sharded(leaf) or is_sharded(masking.mask):
        return
    if masking.places is not None:
        raise TypeError(
            f"{masking.name!r} is compact and sharded (DTensor), expected a masked weight: call "
            "expand(model) before fully_shard"
        )
    _check_placement(masking.name, leaf)
    # A copy: a view would keep the whole mask in memory.
    piece = masking.mask[rows_of(leaf)].clone()
    masking.mask = shard_like(piece, leaf)
    masking.written = None if piece.is_meta else count_ones(piece)
    if masking.in_step is not None:  # of the parameter that was there before
        masking.in_step.remove()
    masking.in_step = NotEnforced(masking)


def ranks_of(leaves: Iterable[Tensor], name: str = "the model") -> Ranks | None:
    """Return the ranks among which tensors are divided, or None if all are whole.

    Raises:
        TypeError: if some are divided and others not, or by other means than by rows among the
            same ranks.
    """
    leaves = list(leaves)
    sharded = [leaf for leaf in leaves if is_sharded(leaf)]
    if not sharded:
        return None
    meshes = {leaf.device_mesh for leaf in sharded}  # type: ignore[attr-defined]
    for leaf in sharded:
        _check_placement(name, leaf)
    if len(sharded) < len(leaves) or len(meshes) > 1:
        raise TypeError(
            f"{len(sharded)} of {len(leaves)} weights of {name} are sharded, over {len(meshes)} "
            "meshes, expected all of them over one: call fully_shard(model) on the whole model"
        )
    return Ranks(meshes.pop().get_group())


def ranks_of_model(model: nn.Module) -> Ranks | None:
    """Return the ranks among which a model is divided, None if it is whole."""
    model = unwrapped(model)
    follow_shards(model)
    return ranks_of(leaf for leaf in model.parameters() if is_sharded(leaf))


def _check_placement(name: str, leaf: Tensor) -> None:
    """Raise unless a sharded tensor is divided by rows among the ranks of one dimension."""
    if how := why_unknown(leaf):
        raise TypeError(
            f"{name!r} is sharded with {how}, expected (Shard(dim=0),) on a mesh of one "
            "dimension: polarity takes models that fully_shard divides by rows"
        )


def refuse_sharded(model: nn.Module, call: str) -> None:
    """Raise if a model is sharded and a call does not take such models; exchange nothing."""
    if _is_sharded(unwrapped(model)):
        raise TypeError(
            f"model is sharded (DTensor), expected a whole one: {call} does not take models that "
            "fully_shard has divided: call it before fully_shard, or on a whole model that "
            "load(model, path) fills from the file that save(model, path) writes on all ranks"
        )


def _is_sharded(model: nn.Module) -> bool:
    """Return whether a model is divided; its weights may be whole for a while, after a forward."""
    kind = _fsdp_module()
    if kind is not None and any(isinstance(each, kind) for each in model.modules()):
        return True
    return any(is_sharded(leaf) for leaf in model.parameters())


def refuse_pieces(parameter: str, tensors: Mapping[str, Any], call: str) -> None:
    """Raise if one of some given tensors is sharded and a call does not take such tensors."""
    for name, value in tensors.items():
        if isinstance(value, Tensor) and is_sharded(value):
            raise TypeError(
                f"{parameter} holds {name!r} sharded (DTensor), expected a whole tensor: {call} "
                "takes no pieces; pass .full_tensor(), which gathers it"
            )


def piece_like(value: Tensor, leaf: Tensor, parameter: str, name: str) -> Tensor:
    """Return what of a tensor belongs to the piece of a weight that is here.

    Args:
        value: a tensor that is whole, is divided as the weight is, or is this rank's piece.
        leaf: what the weight is stored as.
        parameter: what holds the tensor, for errors.
        name: of the weight.

    Raises:
        ValueError: if its shape is another, or it is divided otherwise.
    """
    if not is_sharded(leaf):
        if is_sharded(value):
            raise ValueError(
                f"{parameter} holds {name!r} sharded (DTensor), expected a whole tensor, as in the "
                "model: .full_tensor() gathers it"
            )
        return value
    if is_sharded(value):
        how = why_unknown(value)
        same = value.device_mesh == leaf.device_mesh  # type: ignore[attr-defined]
        if how is not None or not same or value.shape != leaf.shape:
            raise ValueError(
                f"{parameter} holds {name!r} in shape {tuple(value.shape)} with "
                f"{how or 'Shard(dim=0)'}, expected the model's {tuple(leaf.shape)} divided as "
                "the model is"
            )
        return piece_of(value)
    rows = rows_of(leaf)
    mine = (rows.stop - rows.start, *leaf.shape[1:])
    if value.shape == leaf.shape:
        return value.detach()[rows]
    if tuple(value.shape) == mine:
        return value
    raise ValueError(
        f"{parameter} holds {name!r} in shape {tuple(value.shape)}, expected the model's "
        f"{tuple(leaf.shape)}, or {mine}, the rows that are on this rank"
    )


def together(ranks: Ranks | None, check: Callable[[], Value], *shared: object) -> Value:
    """Return what a function returns here, if it raises on no rank.

    Args:
        ranks: those of a sharded model; all of them call. None for a model that is whole.
        check: whatever of a call may fail on this rank alone. It exchanges nothing.
        shared: what must be the same on every rank.
    """
    if ranks is None:
        return check()
    alike = "the same call on the same model"
    return ranks.agree(lambda: ((check(),), shared), alike)[0]


def added(ranks: Ranks | None, counts: dict[str, int]) -> dict[str, int]:
    """Return the sums over the ranks of counts by name."""
    if ranks is None:
        return counts
    return dict(zip(counts, ranks.add(list(counts.values())).tolist(), strict=True))
