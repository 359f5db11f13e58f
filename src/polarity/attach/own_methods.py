"""What a module answers differently while polarity computes one of its weights.

The methods go into the class that the module has for itself, and leave with that class.
"""

from functools import wraps
from typing import Any, NoReturn

from torch import nn
from torch.nn.utils import parametrize

from polarity.attach.resetting import RESETS, reset_through

__all__ = ["give_own_methods"]


def give_own_methods(module: nn.Module) -> None:
    """Let a parametrized module reset through its masks, and refuse what would go past them."""
    own_class: Any = type(module)
    plain_class: Any = parametrize.type_before_parametrizations(module)
    for name in RESETS:
        if callable(getattr(plain_class, name, None)):
            setattr(own_class, name, _resetting(plain_class, name))
    own_class.register_parameter = _registering(plain_class, "register_parameter")
    own_class.register_buffer = _registering(plain_class, "register_buffer")
    own_class.__getstate__ = _refuse_pickling
    own_class.__new__ = staticmethod(_making(plain_class))


def _making(plain_class: Any) -> Any:
    """Let ``type(layer)(...)``, as peft calls it for adapters, make a layer of the plain class."""

    def make(cls: Any, *args: Any, **kwargs: Any) -> Any:
        # Copies call __new__ without arguments and fill in what the layer has.
        return plain_class(*args, **kwargs) if args or kwargs else plain_class.__new__(cls)

    return make


def _resetting(plain_class: Any, method: str) -> Any:
    """Return the reset method of a class as one that writes through what is attached."""

    @wraps(getattr(plain_class, method))
    def reset(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        return reset_through(self, method, *args, **kwargs)

    return reset


def _registering(plain_class: Any, method: str) -> Any:
    """Return a method that registers a tensor, without those in place of computed weights."""

    @wraps(getattr(plain_class, method))
    def register(self: nn.Module, name: str, *args: Any, **kwargs: Any) -> None:
        if parametrize.is_parametrized(self, name):
            what = "Buffer" if method == "register_buffer" else "Parameter"
            raise TypeError(
                f"{name} of this {plain_class.__name__} is computed from what polarity stores, and "
                f"no {what} can replace it: call pol.merge(model) first, or assign a tensor "
                f"(layer.{name} = {what.lower()}.detach()), which is copied and seen through the "
                "mask"
            )
        getattr(plain_class, method)(self, name, *args, **kwargs)

    return register


def _refuse_pickling(self: nn.Module) -> NoReturn:
    """Say how a model with masks is stored (``pickle``, ``torch.save(model)``, ``spawn``)."""
    raise RuntimeError(
        f"{parametrize.type_before_parametrizations(self).__name__} has weights that polarity "
        "computes, and cannot be pickled: store the model with pol.save(model, path) or "
        "torch.save(model.state_dict(), path), or call pol.merge(model) first"
    )
