"""Save a converted model in one safetensors file, and load it without unpickling."""

import json
from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from polarity._files import check_path, parse_json, read_tensors, safetensors_for, write_tensors
from polarity._running import outside_inference_mode
from polarity._shards import is_sharded, why_unknown
from polarity.attach.checkpoint_forms import forms_to_attach
from polarity.attach.load_pieces import load_pieces
from polarity.attach.loading import plan_loading
from polarity.targets.dense_leaves import on_dense_leaves
from polarity.targets.pieces_file import write_pieces
from polarity.targets.search import all_targets, plain_buffers
from polarity.targets.shards import ranks_of_model, together
from polarity.targets.state_keys import (
    TORCH_MASK,
    TORCH_STORED,
    attached_parts,
    torch_masked,
    without_wrappers,
)
from polarity.targets.target import Target
from polarity.targets.torch_prune import warn_of_torch_masks
from polarity.targets.wrappers import refuse_ddp, unwrapped

__all__ = ["load", "save"]


def save(model: nn.Module, path: str | Path) -> None:
    """Write a model's parameters, buffers and masks to a safetensors file.

    The file is complete or not there: it is written under another name first, so that a crash
    leaves an earlier file of this name as it was. A tied weight is stored once, with all its names.

    Args:
        model: any module, masked or plain.
        path: the file, conventionally ``*.safetensors``, in a folder that exists.

    Raises:
        ImportError: if safetensors is not installed.
        TypeError: if ``model`` is not a module, ``path`` is not the name of a file, or the
            ``state_dict`` holds other things than whole, dense tensors; they are named.
        ValueError: if a tensor has no values yet (on the meta device, or lazy), or is of a dtype
            that the format does not know.
        OSError: if the file cannot be written: ``path`` is a folder, or its folder does not exist
            or cannot be written to.

    Example:
        >>> import tempfile
        >>> from torch import nn
        >>> import polarity as pol
        >>> model = pol.load_masks(nn.Linear(2, 2), {"weight": nn.Linear(2, 2).weight > 0})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     pol.save(model, f"{folder}/ticket.safetensors")
        ...     copy = pol.load(nn.Linear(2, 2), f"{folder}/ticket.safetensors")
        >>> pol.density(copy) == pol.density(model)
        True
    """
    inner = unwrapped(model)
    ranks = ranks_of_model(inner)

    def prepared() -> tuple[dict[str, Tensor], dict[str, str]]:
        check_path(path)
        safetensors_for("polarity.save")
        return _distinct(inner.state_dict(keep_vars=ranks is not None))

    tensors, aliases = together(ranks, prepared)
    metadata = {"aliases": json.dumps(aliases)}
    if ranks is None:
        write_tensors(path, tensors, metadata, "polarity.save")
    else:
        write_pieces(path, tensors, metadata, ranks)


@outside_inference_mode
@on_dense_leaves
def load(model: nn.Module, path: str | Path) -> nn.Module:
    """Read a file of :func:`save` into a model, in place, with the same forms attached.

    The file is read and checked whole before anything is changed: a file that is damaged or does
    not fit leaves the model as it was. Names in it are taken literally. Nothing in it is executed.

    A model keeps the forms that it has where the file says nothing of them: a dense file leaves
    masks as they are, and a masked one is loaded into Sign-In factors. These files load as well:
    dense ones, also where they hold a tied weight under one of its names alone; those of
    ``torch.nn.utils.prune`` (``weight_orig`` and ``weight_mask``); masks without a word on whether
    they are enforced, which are; and those of a model that was wrapped when its ``state_dict`` was
    taken (``module.``, ``_orig_mod.``). Those of ``torch.ao``'s sparsifiers are refused, because
    they hold no masks.

    Args:
        model: a model of the structure that was saved, plain or masked.
        path: the file.

    Returns:
        The model.

    Raises:
        ImportError: if safetensors is not installed.
        FileNotFoundError: if there is no such file.
        IsADirectoryError: if ``path`` is a folder.
        ValueError: if the file is damaged, holds other names, shapes or kinds of dtype than the
            model, a mask of other values than 0 and 1, or NaN or infinite parameters; the message
            begins with the path. The model is left as it was.
        TypeError: if ``model`` is not a module, or ``path`` not the name of a file.

    Warns:
        UserWarning: if ``torch.nn.utils.prune`` also holds a mask on a tensor that the file does
            not mask, such as a bias: it stays there, with its hook.

    Example:
        >>> import tempfile
        >>> from torch import nn
        >>> import polarity as pol
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     pol.save(pol.mask_weights(nn.Linear(2, 2)), f"{folder}/model.safetensors")
        ...     model = pol.load(nn.Linear(2, 2), f"{folder}/model.safetensors")
        >>> model.parametrizations.weight[0]
        MaskedWeight((2, 2), density=1)
    """
    inner = unwrapped(model)
    ranks = ranks_of_model(inner)
    if ranks is not None:
        load_pieces(inner, path, _entries, together(ranks, lambda: _known_targets(inner)), ranks)
        return model
    tensors, metadata = read_tensors(path, "polarity.load")
    state = {name: tensors[same] for name, same in _entries(path, tensors, metadata).items()}
    try:
        targets = _known_targets(inner)
        state = without_wrappers(state, {*targets, *plain_buffers(inner)})
        _fill_tied(targets, state)
        _keep_torch_masks(targets, state)
        plan = plan_loading(inner, state, forms_to_attach(inner, targets, state))
    except (ValueError, TypeError) as error:
        raise type(error)(f"{path} {error}") from error
    if plan.fresh:
        refuse_ddp(model, "load")
        taken = {use.name for target, _, _ in plan.fresh for use in target.uses}
        warn_of_torch_masks((use for t in all_targets(inner) for use in t.uses), taken, "load")
    plan.perform(inner)
    return model


def _distinct(state: Mapping[str, object]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return each tensor of a ``state_dict`` once, and the other names of those that are tied."""
    first: dict[tuple[object, ...], str] = {}
    tensors: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    memory: set[int] = set()
    for name, value in state.items():
        _check_savable(name, value)
        assert isinstance(value, Tensor)
        if is_sharded(value):  # the parameter or the mask itself; a piece may be empty
            same = first.setdefault((id(value),), name)
            if same != name:
                aliases[name] = same
            else:
                tensors[name] = value
            continue
        view = (value.data_ptr(), value.device, value.dtype, value.shape, value.stride())
        same = first.setdefault(view, name)
        if same != name and value.numel() > 0:  # a tied weight: one copy on disk
            aliases[name] = same
            continue
        plain = value.detach().resolve_neg().contiguous()
        # The format refuses memory that two tensors share in part.
        overlaps = plain.untyped_storage().data_ptr() in memory
        tensors[name] = plain.clone() if overlaps and plain.numel() > 0 else plain
        memory.add(plain.untyped_storage().data_ptr())
    return tensors, aliases


def _check_savable(name: str, value: object) -> None:
    """Raise unless an entry of a ``state_dict`` is a tensor whose values can be written."""
    what = f"state_dict holds {name!r}"
    if not isinstance(value, Tensor):
        raise TypeError(
            f"{what} of type {type(value).__name__}, expected a tensor: keep it in another file"
        )
    if is_lazy(value):
        raise ValueError(f"{what}, which is lazy: run one batch through the model first")
    if value.is_meta:
        raise ValueError(
            f"{what} on the meta device, expected values: load them first, for instance after "
            "model.to_empty(device='cpu')"
        )
    strange = is_sharded(value) and why_unknown(value) is not None
    if strange or value.layout is not torch.strided or value.is_quantized:
        raise TypeError(
            f"{what}, a {type(value).__name__} of layout {value.layout} and dtype {value.dtype}, "
            "expected a whole, dense tensor"
        )


def _entries(
    path: str | Path, held: Collection[str], metadata: Mapping[str, str]
) -> dict[str, str]:
    """Return the entry of a file for each of its names; tied ones have the same."""
    if "polarity_signed_mask" in metadata:
        raise ValueError(f"{path} holds a signed mask, expected a model: SignedMask.load reads it")
    if "polarity_rewind_point" in metadata:
        raise ValueError(
            f"{path} holds a rewind point, expected a model: RewindPoint.load reads it"
        )
    try:
        aliases = parse_json(metadata.get("aliases", "{}"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged: its aliases are not JSON ({error})") from None
    if not isinstance(aliases, dict):
        raise ValueError(f"{path} is damaged: its aliases are not an object of names")
    entries = {name: name for name in held}
    for name, same in aliases.items():
        if not isinstance(same, str) or same not in held:
            raise ValueError(
                f"{path} is damaged: it ties {name!r} to {same!r}, which it does not hold"
            )
        if name in held:
            raise ValueError(f"{path} is damaged: it holds {name!r} and ties it to {same!r} too")
        entries[name] = same
    return entries


def _known_targets(model: nn.Module) -> dict[str, Target]:
    """Return every parameter of a model by each of its names, if values can be written to all."""
    targets = {use.name: target for target in all_targets(model) for use in target.uses}
    tensors = [(name, leaf) for name, target in targets.items() for leaf in target.stored]
    for name, tensor in (*tensors, *plain_buffers(model).items()):
        if is_lazy(tensor):
            raise ValueError(f"fits no lazy {name!r}: run one batch through the model first")
        if tensor.is_meta:
            raise ValueError(
                f"fits no {name!r} on the meta device, expected memory for its values: call "
                "model.to_empty(device='cpu') first"
            )
    return targets


def _fill_tied(targets: Mapping[str, Target], state: dict[str, Tensor]) -> None:
    """Add the other names of tied weights that a file holds plainly under one name alone."""
    elsewhere = {*attached_parts(state), *torch_masked(state)}
    for target in {target.name: target for target in targets.values()}.values():
        names = [use.name for use in target.uses]
        given = [name for name in names if name in state]
        for name in names if given else ():
            if name not in elsewhere:
                state.setdefault(name, state[given[0]])


def _keep_torch_masks(targets: Mapping[str, Target], state: dict[str, Tensor]) -> None:
    """Let a dense weight be loaded under the mask that ``torch.nn.utils.prune`` has on it."""
    for name, target in targets.items():
        if target.torch_mask is not None and name in state:
            state.setdefault(f"{name}{TORCH_STORED}", state.pop(name))
            state.setdefault(f"{name}{TORCH_MASK}", target.torch_mask)
