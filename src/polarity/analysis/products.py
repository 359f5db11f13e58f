"""Count the multiply-adds of one forward pass, weight by weight."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.utils._python_dispatch import TorchDispatchMode

from polarity._running import call, evaluation, map_tensors, tensors_in, twice_differentiable
from polarity.attach.plain_copy import plain_copy
from polarity.parametrizations.registering import own_class
from polarity.targets.search import all_targets

__all__ = ["Products"]

aten = torch.ops.aten

# The first argument of these is added to the product, and no factor of it.
_ADDED = (aten.addmm, aten.baddbmm)
# What these return has the entries of what they are given: casts of autocast, contiguous copies.
_COPIES = (aten._to_copy, aten.clone)


class Products(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the multiply-adds of matrix products and convolutions by PyTorch's own formulas.

    A product belongs to the parameter whose memory one of its factors is, seen through views and
    copies. ``torch.utils.flop_counter`` alone knows modules, and a module may have several weights.

    Attributes:
        counts: by name of a weight, the multiply-adds of products that it is a factor of.
        others: those of products without a weight, as in attention.
    """

    def __init__(self, weights: Mapping[int, str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        # The import takes up to a second, which not every user of polarity should wait for.
        from torch.utils.flop_counter import flop_registry

        self._formulas: Mapping[Any, Any] = flop_registry
        self._weights = dict(weights)
        self._kept: list[Tensor] = []  # memory that is not given to another tensor meanwhile
        self._read: set[str] = set()
        self.counts: dict[str, int] = {}
        self.others = 0

    @classmethod
    def of(cls, model: nn.Module, inputs: Any) -> "Products":
        """Run a plain copy of a model on inputs, in evaluation mode, and count."""
        plain = plain_copy(model).eval()
        held = next(iter((*plain.parameters(), *plain.buffers())), None)
        if held is not None:
            inputs = map_tensors(lambda each: each.to(held.device), inputs)
        with evaluation(plain), twice_differentiable(plain):
            counted = cls(_by_memory(plain))
            with counted:
                call(plain, inputs)
        return counted

    def of_weight(self, name: str) -> int | None:
        """Return the count of a weight: 0 if nothing read it, None if no product took it."""
        return self.counts.get(name, None if name in self._read else 0)

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        out = function(*args, **kwargs)
        packet = function._overloadpacket
        names = [name for each in tensors_in((args, kwargs)) if (name := self._name(each))]
        self._read.update(names)
        if names and packet in _COPIES and isinstance(out, Tensor):
            self._weights[_memory(out)] = names[0]
            self._kept.append(out)
        if packet in self._formulas:
            count = self._formulas[packet](*args, **kwargs, out_val=out) // 2
            factors = args[1:] if packet in _ADDED else args
            # A bias has one dimension, and is no factor either.
            matrices = [each for each in tensors_in(factors) if each.dim() > 1]
            name = next(filter(None, map(self._name, matrices)), None)
            if name is None:
                self.others += count
            else:
                self.counts[name] = self.counts.get(name, 0) + count
        return out

    def _name(self, tensor: Tensor) -> str | None:
        memory = _memory(tensor)
        return self._weights.get(memory) if memory else None


def _by_memory(plain: nn.Module) -> dict[int, str]:
    """Make computed weights parameters, and return the names of all by their memory.

    Parameters of a copy share none, even if those of the model are views of one tensor.
    """
    targets = all_targets(plain)
    for target in targets:
        for use in target.owners:
            if parametrize.is_parametrized(use.module, use.tensor_name):
                for leaf in target.stored:
                    leaf.requires_grad_(True)  # or PyTorch leaves a tensor that is no parameter
                own_class(use.module)  # a copy shares the class of its original
                with torch.enable_grad():
                    parametrize.remove_parametrizations(use.module, use.tensor_name)
    weights: dict[int, str] = {}
    for target in targets:
        for use in target.owners:
            parameter = use.module._parameters[use.tensor_name]
            if parameter is not None and _memory(parameter) not in weights:
                weights[_memory(parameter)] = target.name
    return weights


def _memory(tensor: Tensor) -> int:
    """Return the address of a tensor's memory, 0 for one without."""
    if tensor.is_nested or tensor.layout is not torch.strided:
        return 0
    return tensor.untyped_storage().data_ptr()
