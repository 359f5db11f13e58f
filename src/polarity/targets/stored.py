"""What a tensor of a module is stored as: its parametrizations, and the leaves under them."""

from typing import cast

from torch import Tensor, nn
from torch.nn.utils import parametrize

from polarity.targets.state_keys import TORCH_STORED

__all__ = ["chain_of", "parametrizations_of", "stored_leaves"]


def parametrizations_of(module: nn.Module, tensor_name: str) -> tuple[nn.Module, ...]:
    """Return the parametrizations of a tensor, first applied first; none if it is plain."""
    # What parametrize.is_parametrized looks at, without Module.__getattr__: this is asked often.
    held = module._modules
    chains = held["parametrizations"] if "parametrizations" in held else None  # noqa: SIM401
    chain = chains._modules.get(tensor_name) if isinstance(chains, nn.ModuleDict) else None
    return () if chain is None else cast(tuple[nn.Module, ...], tuple(chain._modules.values()))


def stored_leaves(module: nn.Module, tensor_name: str) -> tuple[Tensor, ...]:
    """Return the parameters that a weight is stored as."""
    if parametrize.is_parametrized(module, tensor_name):
        chain = chain_of(module, tensor_name)
        if chain.is_tensor:
            return (chain.original,)
        return tuple(cast(Tensor, getattr(chain, f"original{i}")) for i in range(chain.ntensors))
    held = module._parameters
    leaf = held[tensor_name if tensor_name in held else f"{tensor_name}{TORCH_STORED}"]
    assert leaf is not None
    return (leaf,)


def chain_of(module: nn.Module, tensor_name: str) -> parametrize.ParametrizationList:
    """Return the module that holds what a parametrized tensor is stored as."""
    chains = cast(nn.ModuleDict, module.parametrizations)
    return cast(parametrize.ParametrizationList, chains[tensor_name])
