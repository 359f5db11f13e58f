"""Register a parametrization so that a module computes its tensor at little cost."""

from typing import Any, cast

from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrize import ParametrizationList, register_parametrization

__all__ = ["own_class", "register_lean"]


def register_lean(module: nn.Module, tensor_name: str, form: nn.Module) -> ParametrizationList:
    """Register a parametrization, so that a tensor that has no other takes less Python to compute.

    The list of torch asks for a second parametrization at every access, by an attribute that is not
    there, whose error costs as much as the rest of the access. Of a small network's training step
    that is a hundredth. Everything else stays what it is, further parametrizations included.

    Args:
        module: any module.
        tensor_name: which of its tensors.
        form: as for ``register_parametrization``.

    Returns:
        The list of the tensor's parametrizations.
    """
    register_parametrization(module, tensor_name, form)
    chain: Any = cast(nn.ModuleDict, module.parametrizations)[tensor_name]
    if type(chain) is ParametrizationList:
        chain.__class__ = _LeanChain
    return cast(ParametrizationList, chain)


class _LeanChain(ParametrizationList):
    def forward(self) -> Tensor:
        modules = self._modules
        if len(modules) > 1:
            return super().forward()
        only: Any = modules["0"]
        if self.is_tensor:
            return cast(Tensor, only(self.original))
        return cast(Tensor, only(*(getattr(self, f"original{i}") for i in range(self.ntensors))))

    def _get_name(self) -> str:
        return "ParametrizationList"


def own_class(module: nn.Module) -> None:
    """Give a parametrized module a class that no other module has.

    ``parametrize`` keeps a tensor as a property of a class made for the module. A deepcopy has
    that class too: changing one of the two would break the other.
    """
    if parametrize.is_parametrized(module):
        shared = type(module)
        contents = {k: v for k, v in vars(shared).items() if k not in ("__dict__", "__weakref__")}
        module.__class__ = type(shared.__name__, shared.__bases__, contents)
