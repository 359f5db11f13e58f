"""Register a parametrization with little overhead in every forward pass."""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrize import ParametrizationList, register_parametrization

from polarity._checks import check_shape, check_type
from polarity._running import outside_inference_mode

__all__ = ["own_class", "register_light"]


def register_light(module: nn.Module, tensor_name: str, form: nn.Module) -> ParametrizationList:
    """Register a parametrization; one that is alone on its tensor is read by a direct call.

    Torch's property calls two modules, with the bookkeeping of ``Module.__call__`` each time. In a
    training step of a small network that is 2 % (row *limit: an identity by parametrize* of the
    throughput page). With a further parametrization, or inside ``parametrize.cached()``, torch's
    own property is used.

    Errors inside the parametrization surface as themselves, and a tensor of another shape, dtype
    or device is refused before anything is written.

    Args:
        module: any module.
        tensor_name: which of its tensors.
        form: as for ``register_parametrization``.

    Returns:
        The list of the tensor's parametrizations.
    """
    register_parametrization(module, tensor_name, form)
    own_class(module)
    torchs: Any = vars(type(module))[tensor_name]

    def computed(module: nn.Module) -> Tensor:
        chain: Any = cast(Any, module._modules["parametrizations"])._modules[tensor_name]
        if len(chain) > 1 or parametrize._cache_enabled:
            return cast(Tensor, torchs.fget(module))
        form = chain._modules["0"]
        if chain.is_tensor:
            return cast(Tensor, form.forward(chain.original))
        return cast(Tensor, form.forward(chain.original0, chain.original1))

    def read(module: nn.Module) -> Tensor:
        try:
            return computed(module)
        except AttributeError as error:
            # Module.__getattr__ would take its place: "no attribute 'weight'".
            raise RuntimeError(
                f"computing {tensor_name!r} raised AttributeError: {error}"
            ) from error

    @outside_inference_mode
    def write(module: nn.Module, value: Tensor) -> None:
        chain: Any = cast(Any, module.parametrizations)[tensor_name]
        check_type(tensor_name, value, Tensor, "a tensor: its values are copied")
        if len(chain) > 1:
            return cast(None, torchs.fset(module, value))
        stored = [chain.original] if chain.is_tensor else [chain.original0, chain.original1]
        shape = chain[0].mask.shape if hasattr(chain[0], "mask") else stored[0].shape
        check_shape(tensor_name, None, value.shape, shape, "layer")
        if value.dtype != stored[0].dtype:
            raise ValueError(
                f"{tensor_name} has dtype {value.dtype}, expected the layer's {stored[0].dtype}: "
                f"convert it with .to({stored[0].dtype})"
            )
        if value.device != stored[0].device:
            raise ValueError(
                f"{tensor_name} is on {value.device}, expected the layer's {stored[0].device}: "
                f"move it with .to({str(stored[0].device)!r})"
            )
        with torch.no_grad():
            new = chain[0].right_inverse(value)
            torch._foreach_copy_(stored, [new] if chain.is_tensor else list(new))
        return None

    setattr(type(module), tensor_name, property(read, write))
    return cast(ParametrizationList, cast(nn.ModuleDict, module.parametrizations)[tensor_name])


def own_class(module: nn.Module) -> None:
    """Give a parametrized module a class that no other module has.

    ``parametrize`` makes a tensor a property of a class made for the module. A deepcopy shares that
    class, so that changing one of the two would break the other.
    """
    if parametrize.is_parametrized(module):
        shared = type(module)
        contents = {k: v for k, v in vars(shared).items() if k not in ("__dict__", "__weakref__")}
        module.__class__ = type(shared.__name__, shared.__bases__, contents)
