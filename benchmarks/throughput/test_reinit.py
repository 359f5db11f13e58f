"""`reinit_signs` compared with the same written down naively in torch, at 80 % sparsity."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import polarity as pol

from .memory import WORTH_WEIGHING, peak_bytes

SIZES = {"0.25 M": (10, 158), "25 M": (10, 1581)}
SHARE = 0.1  # both epsilon and delta
CENTER = 0.005
PERTURBATIONS = {
    "base": None,
    "epsilon": pol.Epsilon(SHARE),
    "delta": pol.Delta(SHARE),
    "phi": pol.Phi(CENTER),
}


def naive(kind: str, init: Tensor, trained: Tensor, mask: Tensor) -> Tensor:
    """The formula as it stands in a paper; neither counts, checks nor reports."""
    sign = (init - CENTER).sign() if kind == "phi" else init.sign()
    if kind == "epsilon":
        sign = torch.where(torch.rand_like(init) < SHARE, -sign, sign)
    if kind == "delta":
        magnitudes = trained.abs()
        survivors = magnitudes[mask]
        threshold = survivors.kthvalue(round(SHARE * survivors.numel())).values
        coins = torch.randint_like(init, 0, 2) * 2 - 1
        sign = torch.where(magnitudes <= threshold, coins, sign)
    return sign * init.std() * mask


@pytest.mark.parametrize("kind", PERTURBATIONS)
@pytest.mark.parametrize("size", ["0.25 M", pytest.param("25 M", marks=pytest.mark.large)])
def test_signs_for_the_survivors(
    in_turns: Any, device: torch.device, benchmark: Any, size: str, kind: str
) -> None:
    benchmark.group = f"reinit_signs, {size} weights at 80 % sparsity, mask1"
    ours, theirs, trained, start = models(size, device)
    masks = pol.masks(ours)

    def sign_ours() -> None:
        pol.reinit_signs(ours, "mask1", PERTURBATIONS[kind], init=start)

    @torch.no_grad()
    def sign_theirs() -> None:
        for name, weight in theirs.items():
            weight.copy_(naive(kind, start.weights[name], trained[name], masks[name]))

    prepare = restore(ours, trained)
    prepare()
    total = sum(value.numel() for value in trained.values())
    extra = peak_bytes(sign_ours, device) if total >= WORTH_WEIGHING else None
    in_turns(
        sign_ours,
        sign_theirs,
        what=kind,
        against="naive torch",
        prepare_contender=prepare,
        rounds=9,
        target=1.0 if size == "25 M" else None,  # never slower than naive
        extra_bytes_per_weight=None if extra is None else extra / total,
    )


@pytest.mark.large
@pytest.mark.parametrize("kind", PERTURBATIONS)
def test_signs_beside_one_read_and_one_write(
    in_turns: Any, device: torch.device, benchmark: Any, kind: str
) -> None:
    benchmark.group = "reinit_signs, 25 M weights at 80 % sparsity, mask1"
    ours, theirs, trained, start = models("25 M", device)

    @torch.no_grad()
    def copy() -> None:
        for name, weight in theirs.items():
            weight.copy_(start.weights[name])

    in_turns(
        lambda: pol.reinit_signs(ours, "mask1", PERTURBATIONS[kind], init=start),
        copy,
        what=kind,
        against="a copy of the weights",
        prepare_contender=restore(ours, trained),
        rounds=9,
    )


def models(
    size: str, device: torch.device
) -> tuple[nn.Sequential, dict[str, Tensor], dict[str, Tensor], pol.RewindPoint]:
    """A trained and pruned model, as many plain weights, what was trained, and the start."""
    torch.manual_seed(0)
    count, width = SIZES[size]
    ours = nn.Sequential(*(nn.Linear(width, width, bias=False) for _ in range(count))).to(device)
    start = pol.RewindPoint.capture(ours)
    with torch.no_grad():
        for weight in ours.parameters():
            weight.add_(torch.randn_like(weight), alpha=0.01)
    pol.imp_prune(ours, density=0.2)
    trained = {name: target.weight.clone() for name, target in pol.find_targets(ours).items()}
    theirs = {name: torch.empty_like(weight) for name, weight in trained.items()}
    return ours, theirs, trained, start


def restore(model: nn.Sequential, trained: dict[str, Tensor]) -> Callable[[], None]:
    stored = {name: target.stored[0] for name, target in pol.find_targets(model).items()}

    @torch.no_grad()
    def prepare() -> None:
        for name, leaf in stored.items():
            leaf.copy_(trained[name])

    return prepare
