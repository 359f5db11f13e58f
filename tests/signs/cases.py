"""Fields of weights and signs, drawn from seeds, and how they are compared."""

import math

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from torch import Tensor

from tests.models import generator as seeded

SCOPES = ["layer", "global"]
FLOATS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
each_dtype = pytest.mark.parametrize("dtype", FLOATS, ids=str)
fractions = st.floats(0, 1)
quick = settings(deadline=None, max_examples=100)
Fields = tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]


def fields(sizes: dict[str, tuple[int, ...]], alive: float = 0.4, seed: int = 11) -> Fields:
    """Trained weights, initial weights and masks; multiples of 1/8, so that many are tied."""
    draw = seeded(seed)
    trained, init = (
        {n: torch.randn(s, generator=draw).mul(8).round().div(8) for n, s in sizes.items()}
        for _ in range(2)
    )
    return trained, init, {n: torch.rand(s, generator=draw) < alive for n, s in sizes.items()}


def without_empty(layers: Fields) -> Fields:
    return tuple({n: t for n, t in each.items() if n != "none"} for each in layers)


def differing(one: dict[str, Tensor], other: dict[str, Tensor]) -> list[str]:
    return [name for name in one if not torch.equal(one[name], other[name])]


def random_signs(n: int, seed: int = 1) -> Tensor:
    return (torch.randint(0, 2, (n,), generator=seeded(seed)) * 2 - 1).to(torch.int8)


def within_six_sigma(count: int, n: int, share: float) -> bool:
    return abs(count - share * n) <= 6 * math.sqrt(n * share * (1 - share))


def masks_of(*sizes: int, alive: float = 0.5) -> dict[str, Tensor]:
    draw = seeded(5)
    return {f"w{k}": torch.rand(n, generator=draw) < alive for k, n in enumerate(sizes)}
