"""The search for a decay: bisection in the logarithm, by full runs, at most a given number."""

import math

import pytest

from polarity.dense_to_sparse import DecaySearch, find_decay


def run_of(calls: list[float]):
    def train(decay: float) -> float:
        calls.append(decay)
        return 1 / (1 + (decay / 1e-3) ** 2)  # 0.1 at decay 3e-3

    return train


def test_it_bisects_the_logarithm_between_the_ends():
    calls: list[float] = []
    with pytest.warns(UserWarning, match="was not met"):
        search = find_decay(run_of(calls), 0.4, between=(1e-4, 1e-1), tolerance=0.0, runs=3)
    assert [math.log10(each) for each in calls] == pytest.approx([-2.5, -3.25, -2.875])
    assert search.decay == calls[2]


@pytest.mark.filterwarnings("error")
def test_it_stops_within_the_tolerance_and_names_the_nearest_run():
    calls: list[float] = []
    search = find_decay(run_of(calls), 0.1, tolerance=0.02, runs=20)
    assert search.found
    assert abs(search.density - 0.1) <= 0.02
    assert search.decay == calls[-1]
    assert [decay for decay, _ in search.runs] == calls
    assert len(calls) < 20
    assert all(abs(density - 0.1) > 0.02 for _, density in search.runs[:-1])


def test_it_makes_no_more_than_the_given_runs_and_warns_where_none_is_near_enough():
    calls: list[float] = []
    with pytest.warns(UserWarning, match=r"density=0\.1 was not met .* in 2 runs") as caught:
        search = find_decay(run_of(calls), 0.1, tolerance=1e-6, runs=2)
    assert caught[0].filename == __file__
    assert len(calls) == 2
    assert not search.found
    assert "not within" in str(search)
    best = min(search.runs, key=lambda run: abs(run[1] - 0.1))
    assert (search.decay, search.density) == best


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"train": 3}, TypeError, "train=3"),
        ({"density": 2.0}, ValueError, "density=2.0"),
        ({"tolerance": -1}, ValueError, "tolerance=-1"),
        ({"runs": 0}, ValueError, "runs=0"),
        ({"between": 3}, TypeError, "between=3"),
        ({"between": (0.0, 1.0)}, ValueError, r"between\[0\]"),
        ({"between": (0.1, 0.1)}, ValueError, r"between\[1\]"),
        ({"train": lambda decay: 2.0}, ValueError, r"what train\(.*\) returns=2.0"),
        ({"train": lambda decay: None}, TypeError, "returns"),
    ],
)
def test_bad_arguments_and_results_are_refused(arguments, error, match):
    given = {"train": run_of([]), "density": 0.1} | arguments
    with pytest.raises(error, match=match):
        find_decay(**given)


def test_the_search_is_plain_data():
    assert DecaySearch(1e-3, 0.2, 0.1, 0.1, ((1e-3, 0.2),)).found
