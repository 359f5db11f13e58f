"""Fill a module with new values through what is attached to it, whole or not at all.

While a layer's own ``reset_parameters`` runs, the module holds copies of its tensors as plain
parameters, in their original order. So the method does what it does to the plain layer, and draws
what it would draw there. The results are then written through masks, Sign-In and interpolation.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

from polarity._bits.random import undrawn_on_error
from polarity._checks import check_shape
from polarity._running import outside_inference_mode
from polarity.targets.dense_leaves import on_dense_leaves
from polarity.targets.search import all_targets, plain_buffers
from polarity.targets.state_hooks import original_order
from polarity.targets.state_keys import leads_inside
from polarity.targets.stored import stored_leaves
from polarity.targets.target import Target, check_has_values
from polarity.targets.writing import write_all

__all__ = ["RESETS", "Fresh", "as_plain", "reset_through", "write_fresh"]

# The methods by which PyTorch's modules draw new values; attention has the second.
RESETS = ("reset_parameters", "_reset_parameters")


@dataclass
class Fresh:
    """What was set while a model was plain.

    Attributes:
        weights: the weights and other parameters that were set, and their new values.
        buffers: the buffers that were set, by name, and their new values.
        untouched: the names of the parameters that nothing wrote to.
    """

    weights: list[tuple[Target, Tensor]] = field(default_factory=list)
    buffers: list[tuple[str, Tensor, Tensor]] = field(default_factory=list)
    untouched: list[str] = field(default_factory=list)


@dataclass
class _Copy:
    """A plain copy of one tensor, and the version it had before anything wrote to it."""

    value: Tensor
    version: int
    places: list[tuple[nn.Module, str, str]] = field(default_factory=list)

    def now(self) -> Tensor:
        """Return what the modules hold where the copy was put, or in its place."""
        held = [getattr(module, kind).get(name) for module, kind, name in self.places]
        return next(
            (each for each in held if each is not self.value and each is not None), self.value
        )

    def was_set(self, now: Tensor, before: Tensor) -> bool:
        """Return whether anything wrote to the copy or replaced it; writes by ``.data`` count."""
        if now is not self.value or now._version != self.version or now.is_meta:
            return True
        before = before.to(now.device)
        return not bool(((now == before) | (now.isnan() & before.isnan())).all())


@contextmanager
def as_plain(model: nn.Module, device: str | None = None) -> Iterator[Fresh]:
    """Let a module and all inside it hold plain copies of their tensors while the block runs.

    At the end everything is as before, and what the block set stands in the :class:`Fresh` that
    was yielded. If the block raises, Python attributes that it set are given back too.

    Args:
        model: any module.
        device: where the copies are; by default where their tensors are.

    Raises:
        ValueError: if a parameter has no value yet: it is lazy, or on the meta device and to be
            copied to another one; or if a module is compiled by ``torch.jit``.
    """
    targets, buffers = all_targets(model), plain_buffers(model)
    copies: dict[int, _Copy] = {}
    for target in targets:
        leaf = target.stored[0]
        if is_lazy(leaf):
            raise ValueError(f"{target.name} is lazy: run one batch through the model first")
        if device is not None:
            check_has_values([target])
        value = target.weight.to(device or leaf.device, copy=True)
        copies[id(leaf)] = _copy(nn.Parameter(value, requires_grad=leaf.requires_grad))
    for buffer in buffers.values():
        copies[id(buffer)] = _copy(buffer.detach().to(device or buffer.device, copy=True))

    modules = [m for name, m in model.named_modules() if not leads_inside(name)]
    if scripted := [m for m in modules if isinstance(m, torch.jit.ScriptModule)]:
        raise ValueError(
            f"{scripted[0].original_name} is compiled by torch.jit, whose parameters cannot be "
            "replaced: draw new values before torch.jit.script"
        )
    kept = [(module, type(module), dict(vars(module))) for module in modules]
    fresh = Fresh()
    try:
        for module in modules:
            _hold(module, copies)
        yield fresh
        now = {key: each.now() for key, each in copies.items()}
    except BaseException:
        for module, _, attributes in kept:
            vars(module).clear()
            vars(module).update(attributes)
        raise
    finally:
        for module, own_class, attributes in kept:
            parts = ("_parameters", "_buffers", "_modules")
            vars(module).update({part: attributes[part] for part in parts})
            module.__class__ = own_class
    for target in targets:
        key = id(target.stored[0])
        if copies[key].was_set(now[key], target.weight):
            fresh.weights.append((target, now[key].detach()))
        else:
            fresh.untouched.append(target.name)
    for name, buffer in buffers.items():
        key = id(buffer)
        if copies[key].was_set(now[key], buffer):
            fresh.buffers.append((name, buffer, now[key].detach()))


def _copy(value: Tensor) -> _Copy:
    return _Copy(value, value._version)


def _hold(module: nn.Module, copies: dict[int, _Copy]) -> None:
    """Make a module plain, with the copies in place of its tensors in their original order."""
    attributes: dict[str, Any] = vars(module)
    plain_class = parametrize.type_before_parametrizations(module)
    computed = list(module.parametrizations) if parametrize.is_parametrized(module) else []  # type: ignore[arg-type]
    held: dict[str, dict[str, Tensor | None]] = {"_parameters": {}, "_buffers": {}}
    for name in (*original_order(module), *module._parameters, *computed):
        if name in computed:
            held["_parameters"][name] = stored_leaves(module, name)[0]
        elif name in module._parameters:
            held["_parameters"][name] = module._parameters[name]
    held["_buffers"] = dict(module._buffers)
    for kind, tensors in held.items():
        for name, tensor in tensors.items():
            if tensor is not None and id(tensor) in copies:
                tensors[name] = copies[id(tensor)].value
                copies[id(tensor)].places.append((module, kind, name))
        attributes[kind] = tensors
    inside = "parametrizations" if computed else None
    attributes["_modules"] = {k: v for k, v in module._modules.items() if k != inside}
    module.__class__ = plain_class


@torch.no_grad()
def write_fresh(fresh: Fresh) -> None:
    """Write new values through everything that is attached, after all of them were computed."""
    pairs: list[tuple[Tensor, Tensor]] = []
    for target, value in fresh.weights:
        check_shape("the new value", target.name, value.shape, target.shape)
        pairs += target.staged(value)
    for name, buffer, value in fresh.buffers:
        check_shape("the new value", name, value.shape, buffer.shape)
        pairs.append((buffer, value))
    write_all(pairs)


@outside_inference_mode
@on_dense_leaves
def reset_through(module: nn.Module, method: str, *args: Any, **kwargs: Any) -> Any:
    """Call a module's own reset method on plain copies, and write what it set through the masks."""
    with undrawn_on_error(None):
        with as_plain(module) as fresh:
            result = getattr(module, method)(*args, **kwargs)
        write_fresh(fresh)
    return result
