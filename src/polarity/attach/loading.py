"""Load a checkpoint into a model whole or not at all: plan and check it first, then write it."""

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from polarity._checks import all_finite, nonfinite_error
from polarity._shards import piece_of
from polarity.attach.forms import attach_form, make_plain
from polarity.attach.norms import draw_when_called
from polarity.attach.trial_copy import trial_copy
from polarity.optimizers.replaced import Replacement, replace_parameter
from polarity.parametrizations.masked import MaskedWeight
from polarity.parametrizations.norm_interp import NormInterp
from polarity.parametrizations.sign_in import SignInMW
from polarity.targets.search import all_targets
from polarity.targets.state_keys import TORCH_MASK, factor_keys, split_key
from polarity.targets.target import Target
from polarity.targets.torch_prune import torch_mask
from polarity.targets.writing import write_all

__all__ = ["Loading", "checked_pairs", "plan_loading"]

Stored = tuple[nn.Parameter, ...]


@dataclass(frozen=True)
class Loading:
    """All that is to be done to a model, so that nothing of it can fail.

    Attributes:
        pairs: existing tensors and their new values.
        enforce: masks that the model has, and whether each is enforced from now on.
        fresh: weights that change their form: the form, and what is stored instead of the weight.
        resized: buffers of another size from now on, as of a sparse layer with other survivors:
            the module, the buffer's name there, and its values.
        extra: modules of others with a state of their own, and that state.
    """

    pairs: list[tuple[Tensor, Tensor]]
    enforce: list[tuple[MaskedWeight, bool]]
    fresh: list[tuple[Target, nn.Module, Stored | None]]
    resized: list[tuple[nn.Module, str, Tensor]]
    extra: list[tuple[nn.Module, Any]]

    def perform(self, model: nn.Module) -> None:
        """Write the values by one call, then give every weight its form."""
        write_all(self.pairs)
        for module, name, value in self.resized:
            module._buffers[name] = value
        for masking, enforced in self.enforce:
            masking.enforce = enforced
        for target, form, stored in self.fresh:
            replaced = target.stored
            _change_form(target, form, stored)
            if stored is not None:
                replace_parameter((), _replacement(target.name, replaced, stored), ())
        alphas = [form.shared for _, form, _ in self.fresh if isinstance(form, NormInterp)]
        if alphas:
            draw_when_called(model, list(dict.fromkeys(alphas)))
        for target in all_targets(model):
            if target.masking is not None:
                target.masking.take_as_written(target.stored)
        for masking, _ in self.enforce:
            if masking.in_step is not None:
                masking.in_step.project()
        for module, state in self.extra:
            module.set_extra_state(state)


def plan_loading(
    model: nn.Module, state: Mapping[str, Tensor], forms: Mapping[str, nn.Module]
) -> Loading:
    """Plan what a checkpoint does to a model, by loading it into a copy.

    Args:
        model: the model, which is not changed.
        state: the checkpoint, whose masks and settings were checked.
        forms: the new form of every weight that changes it, by plain name.

    Raises:
        ValueError: if the checkpoint does not fit the model. The message says what it holds or is
            missing, and a caller puts its name before it.
    """
    trial = trial_copy(model)
    for target in all_targets(trial):
        if target.name in forms:
            form = copy.deepcopy(forms[target.name])
            old = target.stored[0].detach()
            factors = (nn.Parameter(old), nn.Parameter(old)) if isinstance(form, SignInMW) else None
            _change_form(target, form, factors)
    before = _tensors(trial)
    _check_ties(before, state)
    _load_into(trial, state, before)
    after = _tensors(trial)

    targets = {target.name: target for target in all_targets(model)}
    loaded = {use.name: target for target in all_targets(trial) for use in target.uses}
    changing = {use.name for name in forms for use in targets[name].uses}
    # Of these, loading has refused all but those that their modules resize by themselves.
    resized = {
        key: after[key].to(buffer, copy=True)
        for key, buffer in model.named_buffers(remove_duplicate=False)
        if key in after and after[key].shape != buffer.shape
    }
    moved = [
        (split_key(key)[0], tensor, after[key])
        for key, tensor in _tensors(model).items()
        if key in after
        and key not in resized
        and split_key(key)[0] not in changing
        and not (after[key] is before[key] and torch.equal(after[key], tensor))
    ]
    stored: dict[str, Stored] = {}
    for name, form in forms.items():
        values = [loaded[use.name].stored for use in targets[name].uses]
        if isinstance(form, SignInMW):
            stored[name] = _factors(name, targets[name].stored[0], values)
        else:
            moved += [(name, targets[name].stored[0], value) for (value,) in values]
    return Loading(
        list(checked_pairs(moved)),
        [(old, new.enforce) for old, new in _maskings(model, trial)],
        [(targets[name], form, stored.get(name)) for name, form in forms.items()],
        [(*_place(model, key), value) for key, value in resized.items()],
        [
            (module, state[key])
            for path, module in model.named_modules()
            for key in (f"{path}._extra_state" if path else "_extra_state",)
            if key in state and not isinstance(module, MaskedWeight)
        ],
    )


def _place(model: nn.Module, key: str) -> tuple[nn.Module, str]:
    """Return the module that holds a tensor, and the tensor's name there."""
    path, _, name = key.rpartition(".")
    return model.get_submodule(path), name


def _check_ties(tensors: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    """Raise if a checkpoint holds different values under the names of one tensor."""
    first: dict[int, str] = {}
    for key, tensor in tensors.items():
        if key in state:
            name = first.setdefault(id(tensor), key)
            _check_same(_in_words(name), state[name], _in_words(key), state[key])


def _load_into(
    trial: nn.Module, state: Mapping[str, Tensor], tensors: Mapping[str, Tensor]
) -> None:
    """Load a checkpoint into a copy, by the hooks and rules of its modules."""
    for key, tensor in tensors.items():
        if tensor.dim() == 0 and key in state and state[key].numel() != 1:
            _check_shape(_in_words(key), state[key], tensor)  # older PyTorch takes the first entry
    try:
        # Assigned, so that nothing is copied; values keep the checkpoint's dtypes.
        missing, unexpected = trial.load_state_dict(dict(state), strict=False, assign=True)
    except Exception as error:  # modules of others may read their part by themselves
        for key, tensor in tensors.items():
            if key in state:
                _check_shape(_in_words(key), state[key], tensor)
                _check_kind(_in_words(key), state[key], tensor)
        raise ValueError(f"does not fit the model: {type(error).__name__}: {error}") from error
    if missing:
        raise ValueError(f"is missing {_in_words(missing[0])}, which is in the model")
    if unexpected:
        raise ValueError(f"holds {_in_words(unexpected[0])}, which is not in the model")


def _in_words(key: str) -> str:
    name, part = split_key(key)
    return f"{name!r}" if part in ("", "original") else f"{part!r} of {name!r}"


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return every parameter and buffer of a model by each of its keys."""
    parameters = model.named_parameters(remove_duplicate=False)
    return {**dict(parameters), **dict(model.named_buffers(remove_duplicate=False))}


def _maskings(model: nn.Module, trial: nn.Module) -> Iterator[tuple[MaskedWeight, MaskedWeight]]:
    """Yield the masks that a model has and keeps, and those of the copy in their place."""
    copies = dict(trial.named_modules())
    for path, module in model.named_modules():
        new = copies.get(path)
        if type(new) is type(module) and isinstance(module, MaskedWeight):
            assert isinstance(new, MaskedWeight)
            yield module, new


def checked_pairs(
    moved: list[tuple[str, Tensor, Tensor]],
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield each tensor once with its new value, after checking that it can take it."""
    first: dict[int, tuple[str, Tensor]] = {}
    for name, tensor, given in moved:
        value = given.detach()
        earlier_name, earlier = first.setdefault(id(tensor), (name, value))
        if earlier is not value:
            _check_same(repr(earlier_name), earlier, repr(name), value)
            continue
        _check_value(name, value, tensor)
        yield tensor, value


def _check_same(first: str, earlier: Tensor, name: str, value: Tensor) -> None:
    """Raise unless two values of one tensor are equal."""
    same = earlier is value or (earlier.dtype == value.dtype and torch.equal(earlier, value))
    if not same:
        raise ValueError(
            f"holds different values of {first} and {name}, expected equal ones: they are one "
            "tensor in the model"
        )


def _check_value(name: str, value: Tensor, tensor: Tensor) -> None:
    """Raise unless a tensor of the model can take a value, without NaN in a parameter."""
    _check_shape(repr(name), value, piece_of(tensor))
    _check_kind(repr(name), value, tensor)
    if isinstance(tensor, nn.Parameter):
        _check_finite(f"holds {name!r}, which", value.to(tensor.dtype))


def _check_shape(name: str, value: Tensor, tensor: Tensor) -> None:
    if value.shape != tensor.shape:
        raise ValueError(
            f"holds {name} in shape {tuple(value.shape)}, expected the model's "
            f"{tuple(tensor.shape)}"
        )


def _check_kind(name: str, value: Tensor, tensor: Tensor) -> None:
    if _kind(value) != _kind(tensor):
        raise ValueError(
            f"holds {name} of dtype {value.dtype}, expected one like the model's {tensor.dtype}"
        )


def _kind(tensor: Tensor) -> tuple[bool, ...]:
    return tensor.is_floating_point(), tensor.is_complex(), tensor.dtype == torch.bool


def _check_finite(what: str, value: Tensor) -> None:
    parts = torch.view_as_real(value) if value.is_complex() else value
    if parts.is_floating_point() and not all_finite(parts):
        raise nonfinite_error(what, int((~value.isfinite()).count_nonzero()))


def _factors(name: str, old: Tensor, values: list[tuple[Tensor, ...]]) -> Stored:
    """Return the new factors of a weight, like the weight that they replace."""
    for others in values[1:]:
        for one, other in zip(values[0], others, strict=True):
            _check_same(repr(name), one, "another name of it", other)
    for value in values[0]:
        _check_value(name, value, nn.Parameter(old.detach(), requires_grad=False))
    new = [value.detach().to(old.device, old.dtype, copy=True) for value in values[0]]
    return tuple(nn.Parameter(each, requires_grad=old.requires_grad) for each in new)


def _change_form(target: Target, form: nn.Module, stored: Stored | None) -> None:
    """Put a form on a weight in place of what is on it; no value is written."""
    for use in target.owners:
        theirs = torch_mask(use.module, use.tensor_name)
        if theirs is not None:  # torch applies its mask to the values when it comes off
            use.module._buffers[f"{use.tensor_name}{TORCH_MASK}"] = torch.ones_like(theirs)
    if not target.is_plain:
        make_plain(target)
    attach_form(target, form, stored=stored)


def _replacement(name: str, old: tuple[Tensor, ...], new: Stored) -> Replacement:
    return Replacement(
        old,
        dict(zip(factor_keys(name), new, strict=True)),
        lambda *_: ({}, {}),
        f"load made {name!r} a product of two; build the optimizer after load",
    )
