"""How a training computes: compiled, in which memory order, repeatably, without denormals."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

Forward = Callable[[torch.Tensor], torch.Tensor]


def forward_of(model: nn.Module, compile: bool | str = False) -> Forward:
    """Return the model as a function of a batch, compiled if that is asked for.

    Compiled code reads parameters, masks and running statistics in place, so it stays right when
    they change between rounds. Batches of one size share their code; the smaller last batch of an
    epoch has its own.

    Args:
        model: the network. It is not changed: only the returned function runs compiled.
        compile: True for torch's own compiler, which on a GPU also captures forward and backward
            as CUDA graphs (`mode="reduce-overhead"`); the name of another backend of
            `torch.compile`; or False for the model itself.

    Returns:
        A function from images to logits. On a GPU, logits and gradients of a step are overwritten
        by the next one.
    """
    if not compile:
        return model
    _forget_code_of_others(model)
    if compile is not True:
        return torch.compile(model, backend=compile, dynamic=False)
    if next(model.parameters()).device.type != "cuda":
        return torch.compile(model, dynamic=False)
    captured = torch.compile(model, mode="reduce-overhead", dynamic=False)

    def step(images: torch.Tensor) -> torch.Tensor:
        # The memory of the previous step may be used again: nothing of it is needed any more.
        torch.compiler.cudagraph_mark_step_begin()
        return captured(images)

    return step


_compiled: list[weakref.ref[nn.Module]] = []


def _forget_code_of_others(model: nn.Module) -> None:
    """Reset the compiler when the network changes.

    Every network has code of its own, because a parametrized layer is a class of its own. After
    eight versions torch would run uncompiled, and the CUDA graphs of earlier networks would keep
    their memory.
    """
    if _compiled and _compiled.pop()() is not model:
        torch.compiler.reset()
    _compiled.append(weakref.ref(model))


def memory_order(model: nn.Module, channels_last: bool) -> torch.memory_format:
    """Return the memory format of the batches; bring the model into it if it is channels_last."""
    if not channels_last:
        return torch.contiguous_format
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return torch.channels_last


@contextmanager
def repeatable() -> Iterator[None]:
    """Let cuDNN choose among kernels that give the same bits each time; it works as a decorator."""
    before = torch.backends.cudnn.deterministic
    torch.backends.cudnn.deterministic = True
    try:
        yield
    finally:
        torch.backends.cudnn.deterministic = before


@contextmanager
def without_denormals() -> Iterator[None]:
    """Count numbers below 1e-38 as zero on the CPU while this lasts.

    Adam's running means of dead units shrink until they are denormal, and stay so. Processors
    compute a hundred times slower with such numbers: after 16 epochs of MNIST a step took 1.5 times
    as long as at the start. It also works as a decorator.
    """
    before = _flushes()
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


def _flushes() -> bool:
    # torch has no getter for this setting; arithmetic shows it.
    return not bool(torch.full((2,), 1e-39).mul(0.5).any())
