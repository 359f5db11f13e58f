"""A small network in three forms, three optimizers, and the loop in which schedules train it."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn, optim
from torch.nn.functional import cross_entropy

import polarity as pol
from polarity.dense_to_sparse import RigL
from tests.forms import random_masks
from tests.models import seeded

FIRST, LAST = "0.weight", "2.weight"  # 10 x 12 and 4 x 10 entries

FORMS = ("plain", "masked", "sign_in")
OPTIMIZERS: dict[str, Callable[[Any], optim.Optimizer]] = {
    "sgd": lambda parameters: optim.SGD(parameters, 0.1, momentum=0.9),
    "adam": lambda parameters: optim.Adam(parameters, 0.01),
    "adamw": lambda parameters: optim.AdamW(parameters, 0.01, weight_decay=0.1),
}
PRODUCT = pytest.mark.parametrize("product", [False, True], ids=["masked", "sign_in"])
EVERY_FORM = pytest.mark.parametrize("form", FORMS)
EVERY_OPTIMIZER = pytest.mark.parametrize("optimizer", OPTIMIZERS)


def network(seed: int = 0) -> nn.Sequential:
    return seeded(nn.Sequential(nn.Linear(12, 10), nn.ReLU(), nn.Linear(10, 4)), seed).train()


def masked(density: float = 0.4, product: bool = False) -> nn.Sequential:
    """Return the network under random masks, as a masked or a Sign-In model."""
    model = network()
    pol.load_masks(model, random_masks(model, density))
    return pol.sign_in(model) if product else model


def in_form(form: str, density: float = 0.4) -> tuple[nn.Sequential, dict[str, Any]]:
    """Return the network in a form, and what a schedule is told to draw masks for a plain one."""
    if form == "plain":
        return network(), {
            "densities": {FIRST: density, LAST: density},
            "generator": torch.Generator().manual_seed(1),
        }
    return masked(density, product=form == "sign_in"), {}


def rigl(model: nn.Module, optimizer: str = "sgd", **options: Any) -> tuple[Any, RigL]:
    """Return an optimizer of a model and a schedule that updates its masks at steps 4, 8, …, 40."""
    built = OPTIMIZERS[optimizer](model.parameters())
    settings = {"every": 4, "end": 40, "fraction": 0.5} | options
    return built, RigL(model, built, **settings)


def batches(seed: int = 5) -> Iterator[tuple[Tensor, Tensor]]:
    draw = torch.Generator().manual_seed(seed)
    while True:
        yield torch.randn(6, 12, generator=draw), torch.randint(4, (6,), generator=draw)


def parts(rank: int | None) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield one rank's batches, or those of all ranks together."""
    draw = torch.Generator().manual_seed(5)
    while True:
        x = torch.randn(8, 12, generator=draw, dtype=torch.float64)
        y = torch.randint(4, (8,), generator=draw)
        mine = slice(None) if rank is None else slice(4 * rank, 4 * rank + 4)
        yield x[mine], y[mine]


def train(
    model: nn.Module,
    optimizer: optim.Optimizer,
    schedule: Any,
    steps: int,
    *,
    data: Iterator[tuple[Tensor, Tensor]] | None = None,
    before_step: Callable[[], object] = lambda: None,
    after_step: Callable[[Any], object] = lambda report: None,
) -> list[Any]:
    """Train for some steps, and return what the schedule returned."""
    reports = []
    for _, (x, y) in zip(range(steps), data or batches(), strict=False):
        optimizer.zero_grad()
        cross_entropy(model(x), y).backward()
        before_step()
        optimizer.step()
        reports.append(schedule.step())
        after_step(reports[-1])
    return reports


def leaves(model: nn.Module, layer: int = 0) -> list[nn.Parameter]:
    """Return what a layer's weight is stored as."""
    return [p for _, p in model[layer].parametrizations.weight.named_parameters()]


def masking(model: nn.Module, layer: int = 0) -> pol.MaskedWeight:
    return model[layer].parametrizations.weight[0]


def effective(model: nn.Module) -> dict[str, Tensor]:
    with torch.no_grad():
        return {FIRST: model[0].weight.clone(), LAST: model[2].weight.clone()}


def counts(model: nn.Module) -> dict[str, int]:
    return {name: int(mask.sum()) for name, mask in pol.masks(model).items()}


def snapshot(*things: Any) -> list[Any]:
    """Return deep copies of state_dicts, which further training cannot reach."""

    def copied(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value.detach().clone()
        if isinstance(value, dict):
            return {key: copied(each) for key, each in value.items()}
        return [copied(each) for each in value] if isinstance(value, (list, tuple)) else value

    return [copied(each.state_dict()) for each in things]


def assert_alike(one: nn.Module, other: nn.Module) -> None:
    """Two models have the same masks and the same effective weights, bit for bit."""
    for name, mask in pol.masks(one).items():
        assert torch.equal(mask, pol.masks(other)[name])
        assert torch.equal(effective(one)[name], effective(other)[name])
