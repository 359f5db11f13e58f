"""An optimizer's memory of a product, split over its factors and joined again."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from polarity.optimizers.factor_state import foreign_state, join_state, split_state


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 10_000), small=st.sampled_from([1.0, 1e-3, 1e-6]))
def test_joining_undoes_splitting(seed: int, small: float) -> None:
    draw = torch.Generator().manual_seed(seed)
    m, v, u, s = (torch.randn(5, generator=draw, dtype=torch.float64) for _ in "mvus")
    v *= small
    state = {"step": torch.tensor(7.0), "exp_avg": u, "exp_avg_sq": s.square()}
    joined = join_state(*split_state(state, m, v), m, v)
    assert joined.keys() == state.keys()
    for key, value in state.items():
        torch.testing.assert_close(joined[key], value)


def test_joining_finds_the_gradient_that_fits_both_averages_best() -> None:
    m, v = torch.tensor([1.0]), torch.tensor([2.0])
    u_m, u_v = torch.tensor([1.0]), torch.tensor([3.0])
    grid = torch.linspace(-5, 5, 100_001)
    misfit = (grid * v - u_m) ** 2 + (grid * m - u_v) ** 2
    joined = join_state({"momentum_buffer": u_m}, {"momentum_buffer": u_v}, m, v)
    assert abs(joined["momentum_buffer"].item() - grid[misfit.argmin()].item()) < 1e-3


def test_pruned_entries_join_to_zero() -> None:
    zero = torch.zeros(3)
    state = {"exp_avg": torch.ones(3), "exp_avg_sq": torch.ones(3)}
    for value in join_state(state, state, zero, zero).values():
        assert not value.any()


def test_what_follows_no_rule_is_named_and_nothing_of_it_is_kept() -> None:
    shape = torch.Size([2])
    assert foreign_state({"eta": torch.tensor(1.0), "exp_avg": torch.ones(2)}, shape) == []
    state = {"step": 1, "prev": torch.ones(2)}
    assert foreign_state(state, shape) == ["prev"]
    assert split_state(state, torch.ones(2), torch.ones(2)) == ({}, {})
    assert join_state(state, state, torch.ones(2), torch.ones(2)) == {}
    assert foreign_state({"exp_avg": torch.ones(3)}, shape) == ["exp_avg"], "of another shape"
