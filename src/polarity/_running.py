"""Run a model on any inputs and leave no trace: modes, random state, gradients, kernels."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import wraps
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils.parametrizations import _WeightNorm
from torch.nn.utils.weight_norm import WeightNorm
from torch.overrides import TorchFunctionMode
from typing_extensions import ParamSpec

from polarity._bits.random import among_ranks, seed_from
from polarity._checks import check_generator

__all__ = [
    "arguments",
    "call",
    "drawn_seed",
    "evaluation",
    "map_tensors",
    "outside_inference_mode",
    "recordable",
    "recording_gradients",
    "same_modes",
    "same_random_state",
    "tensors_in",
    "twice_differentiable",
    "under_transform",
]

P = ParamSpec("P")
R = TypeVar("R")


def arguments(inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return a tensor, a tuple or list of arguments, or a dict of keywords as (args, kwargs)."""
    if isinstance(inputs, Mapping):
        return (), dict(inputs)
    return (tuple(inputs) if isinstance(inputs, (tuple, list)) else (inputs,)), {}


def call(model: nn.Module, inputs: Any) -> Any:
    """Call a model on a tensor, a tuple or list of arguments, or a dict of keywords."""
    args, kwargs = arguments(inputs)
    return model(*args, **kwargs)


def recordable(value: Any) -> Any:
    """Copy the tensors of a batch that were made in inference mode: no graph can hold those."""
    return map_tensors(lambda each: each.clone() if each.is_inference() else each, value)


def map_tensors(function: Callable[[Tensor], Tensor], value: Any) -> Any:
    """Apply a function to every tensor in nested tuples, lists and dicts."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, Mapping):
        return {key: map_tensors(function, each) for key, each in value.items()}
    if isinstance(value, (tuple, list)):
        mapped = [map_tensors(function, each) for each in value]
        if isinstance(value, list):
            return mapped
        return type(value)(*mapped) if hasattr(value, "_fields") else tuple(mapped)
    return value


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Yield every tensor in nested tuples, lists and dicts."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (Mapping, tuple, list)):
        for each in value.values() if isinstance(value, Mapping) else value:
            yield from tensors_in(each)


def outside_inference_mode(function: Callable[P, R]) -> Callable[P, R]:
    """Let a function make tensors that can be trained, also if called in inference mode.

    Validation hooks are called there, and what is made there can never be part of a graph.
    """

    @wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> R:
        if not torch.is_inference_mode_enabled():
            return function(*args, **kwargs)
        with torch.inference_mode(False):
            return function(*args, **kwargs)

    return called


def under_transform() -> bool:
    """Return whether code is being compiled or traced, or runs under a functional transform."""
    return (
        torch.compiler.is_compiling()
        or torch._C._get_tracing_state() is not None
        or torch._C._are_functorch_transforms_active()
    )


@contextmanager
def same_modes(model: nn.Module) -> Iterator[None]:
    """Restore the training flag of every module at exit."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def same_random_state(model: nn.Module, seed: int | None = None) -> Iterator[None]:
    """Restore torch's random state at exit: of the CPU and of the model's CUDA devices.

    With a ``seed``, exactly these generators are seeded with it on entry.
    """
    tensors = (*model.parameters(), *model.buffers())
    devices = sorted({each.get_device() for each in tensors if each.is_cuda})
    with torch.random.fork_rng(devices):
        if seed is not None:
            torch.default_generator.manual_seed(seed)
            for device in devices:
                torch.cuda.default_generators[device].manual_seed(seed)
        yield


@contextmanager
def recording_gradients() -> Iterator[None]:
    """Record gradients inside, even where the caller turned that off."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


@contextmanager
def evaluation(model: nn.Module) -> Iterator[None]:
    """Run in evaluation mode without gradients; restore modes and random state at exit.

    Not in inference mode: a tensor that the model keeps from the run must remain usable outside.
    """
    with same_modes(model), same_random_state(model), torch.no_grad():
        model.eval()
        yield


@contextmanager
def twice_differentiable(model: nn.Module) -> Iterator[None]:
    """Keep PyTorch from fused kernels whose second derivative is missing or wrong.

    Missing: fused attention, the fast path of ``nn.TransformerEncoderLayer``, and the recurrent
    networks of cuDNN (without a first derivative in evaluation mode, too) and oneDNN. Wrong:
    ``weight_norm``.
    """
    backends: tuple[Any, ...] = (torch.backends.cudnn, torch.backends.mkldnn)
    enabled = [backend.enabled for backend in backends]
    fast_path = torch.backends.mha.get_fastpath_enabled()
    try:
        torch.backends.mha.set_fastpath_enabled(False)
        if any(isinstance(each, nn.RNNBase) for each in model.modules()):
            for backend in backends:
                backend.enabled = False
        weight_norm = _WeightNormByParts() if _has_weight_norm(model) else nullcontext()
        with sdpa_kernel(SDPBackend.MATH), weight_norm:
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
        for backend, before in zip(backends, enabled, strict=True):
            backend.enabled = before


class _WeightNormByParts(TorchFunctionMode):
    """Compute ``g v / |v|`` from its parts: the second derivative of the fused kernel is wrong.

    PyTorch differentiates its backward as if ``|v|`` were a constant (seen in 2.6 and 2.14).
    """

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if function is torch._weight_norm:
            v, g, *dim = args
            return v * (g / torch.norm_except_dim(v, 2, *dim))
        return function(*args, **(kwargs or {}))


def _has_weight_norm(model: nn.Module) -> bool:
    """Whether ``weight_norm`` is on a module, as a parametrization or as a hook."""
    modules = list(model.modules())
    hooks = (hook for module in modules for hook in module._forward_pre_hooks.values())
    return any(isinstance(each, (_WeightNorm, WeightNorm)) for each in (*modules, *hooks))


def drawn_seed(generator: torch.Generator | None) -> int | None:
    """Draw a seed from a generator; without one None, or among several ranks a common seed.

    The common seed leaves the global random state of every rank as it was.
    """
    check_generator(generator)
    if generator is not None:
        return seed_from(generator)
    if not among_ranks():
        return None
    with torch.random.fork_rng([]):
        return seed_from(None)
