"""A plain copy of a model to compute scores on, so that the model itself is never touched."""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import chain

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from polarity.attach.masks import attach_masks
from polarity.attach.merge import merge
from polarity.targets.search import all_targets
from polarity.targets.target import Target


def merged_copy(
    model: nn.Module, found: Mapping[str, Target], dtype: torch.dtype | None = None
) -> tuple[nn.Module, dict[str, Tensor]]:
    """Return a copy whose weights are plain parameters, and those of ``found`` by name.

    The copy computes with the effective weights. Only the weights of ``found`` require gradients.

    Args:
        model: any module, whatever is attached to it.
        found: the weights that will be scored.
        dtype: what floating parameters and buffers of the copy are cast to; None leaves them.
    """
    # deepcopy refuses tensors that were computed, which pruning hooks and recurrent modules keep.
    computed = {id(each): each.detach().clone() for each in _computed_tensors(model)}
    twin = copy.deepcopy(model, computed)
    attach_masks({target.name: target for target in all_targets(twin) if target.name in found})
    merge(twin)
    if dtype is not None:
        twin.to(dtype)
    twin.requires_grad_(False)
    plain = {target.name: target.stored[0] for target in all_targets(twin)}
    return twin, {name: plain[name].requires_grad_() for name in found}


@contextmanager
def undisturbed(model: nn.Module, seed: int | None = None) -> Iterator[None]:
    """Record gradients inside, and restore the random state of torch afterwards.

    Args:
        model: says which CUDA devices' generators are restored beside the CPU's.
        seed: what these generators are seeded with inside; None leaves them as they are.
    """
    tensors = chain(model.parameters(), model.buffers())
    devices = sorted({each.get_device() for each in tensors if each.is_cuda})
    with torch.random.fork_rng(devices), torch.inference_mode(False), torch.enable_grad():
        if seed is not None:
            torch.default_generator.manual_seed(seed)
            for device in devices:
                torch.cuda.default_generators[device].manual_seed(seed)
        yield


@contextmanager
def differentiable_kernels(model: nn.Module) -> Iterator[None]:
    """Use kernels that can be differentiated twice, and in evaluation mode.

    cuDNN's recurrent networks can do neither, and fused attention not the first.
    """
    enabled = torch.backends.cudnn.enabled
    recurrent = any(isinstance(module, nn.RNNBase) for module in model.modules())
    try:
        if recurrent:
            torch.backends.cudnn.enabled = False
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        if recurrent:
            torch.backends.cudnn.enabled = enabled


def _computed_tensors(model: nn.Module) -> Iterator[Tensor]:
    """Tensors with a graph that modules keep as ordinary attributes, alone or in lists."""
    for module in model.modules():
        for value in vars(module).values():
            several = value if isinstance(value, (list, tuple)) else (value,)
            yield from (each for each in several if isinstance(each, Tensor) and not each.is_leaf)
