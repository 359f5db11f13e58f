"""A whole training step as one CUDA graph: what takes longer to launch than to compute."""

from __future__ import annotations

from collections.abc import Callable

import torch

Step = Callable[..., None]

# Kernels, workspaces and gradients are found in the first steps; torch's notes on CUDA graphs
# take three.
_BEFORE_CAPTURE = 3


class CapturedStep:
    """Perform a training step by replaying it as one CUDA graph.

    The first steps, and those of another batch size, are performed one kernel at a time; the others
    launch every kernel of forward, backward and optimizer at once. The same kernels compute the
    same numbers either way.

    Args:
        step: a whole training step of some tensors of a GPU, the optimizer's included. It must not
            read a value of the GPU, and nothing that Python alone changes between steps takes part
            in it: a learning rate that changes must be a tensor.
    """

    def __init__(self, step: Step) -> None:
        self._step = step
        self._left = _BEFORE_CAPTURE
        self._stream = torch.cuda.Stream()
        self._graph: torch.cuda.CUDAGraph | None = None
        self._given: tuple[torch.Tensor, ...] = ()

    def __call__(self, *given: torch.Tensor) -> None:
        """Perform the step of these tensors."""
        if not self._given:
            self._given = tuple(each.clone() for each in given)
        if self._left or [each.shape for each in given] != [each.shape for each in self._given]:
            self._left = max(0, self._left - 1)
            self._by_itself(*given)
            return
        if self._graph is None:
            self._graph = self._captured()
        for held, each in zip(self._given, given, strict=True):
            held.copy_(each)
        self._graph.replay()

    def _by_itself(self, *given: torch.Tensor) -> None:
        """Perform the step on a stream of its own, as a capture does."""
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            self._step(*given)
        torch.cuda.current_stream().wait_stream(self._stream)

    def _captured(self) -> torch.cuda.CUDAGraph:
        """Record the step of the held tensors, without performing it."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._step(*self._given)
        return graph
