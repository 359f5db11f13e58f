"""A run in its middle, and what it takes to say that a refused call left it as it was."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import polarity as pol

W0, W2 = "0.weight", "2.weight"  # 5 x 6 and 3 x 5 entries, 45 together, of which 27 live


def wide(value: float, shape: tuple[int, ...]) -> Tensor:
    return torch.full(shape, value)


@dataclass
class Run:
    """A run in its middle: masks, an optimizer with state, a schedule, and where it began."""

    model: nn.Sequential
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler
    start: pol.RewindPoint

    @property
    def scores(self) -> dict[str, Tensor]:
        return {name: target.weight.abs() for name, target in pol.find_targets(self.model).items()}

    @property
    def init(self) -> dict[str, Tensor]:
        return dict(self.start.weights)

    def without(self, name: str) -> dict[str, Tensor]:
        return {key: value for key, value in self.init.items() if key != name}

    def train(self) -> None:
        draw = torch.Generator().manual_seed(3)
        for _ in range(2):
            self.optimizer.zero_grad()
            self.model(torch.randn(8, 6, generator=draw)).square().sum().backward()
            self.optimizer.step()
            self.scheduler.step()


def in_the_middle() -> Run:
    model = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Linear(5, 3)).eval()
    draw = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        nn.init.normal_(parameter, generator=draw)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01, weight_decay=0.1)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    run = Run(model, optimizer, scheduler, pol.RewindPoint.capture(model, optimizer, scheduler))
    run.train()
    pol.imp_prune(model, density=0.6, optimizer=optimizer)
    run.train()
    return run


def fingerprint(thing: Any) -> Any:
    """Everything in nested containers, tensors by their bytes: NaN equals itself, -0 is not 0."""
    if isinstance(thing, Tensor):
        bits = thing.detach().contiguous().reshape(-1).view(torch.uint8)
        return thing.dtype, tuple(thing.shape), bits.numpy().tobytes()
    if isinstance(thing, dict):
        return [(key, fingerprint(value)) for key, value in thing.items()]
    if isinstance(thing, (list, tuple)):
        return [fingerprint(each) for each in thing]
    return thing


def everything_of(run: Run) -> list[Any]:
    modules = [(name, type(module), module.training) for name, module in run.model.named_modules()]
    leaves = [(name, id(p), p.requires_grad) for name, p in run.model.named_parameters()]
    buffers = fingerprint(dict(run.model.named_buffers()))  # those that are never saved too
    states = (run.model, run.optimizer, run.scheduler)
    held = [fingerprint(run.start.weights), fingerprint(run.start.optimizer)]
    buffers.append(fingerprint(torch.get_rng_state()))
    return [modules, leaves, buffers, *[fingerprint(each.state_dict()) for each in states], *held]


def refuse(
    run: Run, call: Callable[[Run], object], error: type[Exception], parts: list[str]
) -> None:
    """Expect the error, look for every part in its message, and for changes anywhere."""
    before = everything_of(run)
    with pytest.raises(error) as raised:
        call(run)
    assert raised.type is error, raised.value
    missing = [part for part in parts if part not in str(raised.value)]
    assert not missing, f"{missing} not in the message: {raised.value}"
    assert everything_of(run) == before, "the refused call changed something"
