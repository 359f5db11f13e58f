"""A sign report: what it counts, by hand, and how it prints."""

import numpy as np
import pytest
import torch
from torch import Tensor

import polarity as pol
from polarity import Epsilon, Phi


@pytest.fixture
def by_hand() -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
    """Trained, initial and masks. Of `a` four live and the signs agree in two; of `b` one lives."""
    return (
        {"a": torch.tensor([1.0, 1, -1, -1, 0.5]), "b": torch.tensor([[0.0, 2.0]])},
        {"a": torch.tensor([1.0, -1, 1, -1, 5.0]), "b": torch.tensor([[-4.0, 4.0]])},
        {"a": torch.tensor([1, 1, 1, 1, 0]).bool(), "b": torch.tensor([[1, 0]]).bool()},
    )


def turn_the_first(signs: Tensor, magnitudes: Tensor, generator: object) -> Tensor:
    assert magnitudes.tolist() in ([1, 1, 1, 1], [0])
    return torch.cat([-signs[:1], signs[1:]])


def test_a_sign_report_counts_what_can_be_counted_by_hand(by_hand):
    _, report = pol.signed_constants(*by_hand, "mask1", turn_the_first)
    a, b = report
    # + - + - becomes - - + -, and - becomes +; a zero counts as +
    assert (a.name, a.survivors, a.positive, a.agree_init, a.agree_trained) == (
        "a",
        4,
        0.25,
        0.75,
        0.25,
    )
    assert (b.name, b.survivors, b.positive, b.agree_init, b.agree_trained) == ("b", 1, 1, 0, 1)
    assert (a.flipped, b.flipped, a.revived, b.revived) == (1, 1, 0, 0)
    assert a.sigma == pytest.approx(np.std([1, -1, 1, -1, 5]))
    assert b.sigma == 4
    assert (len(report), report.strategy) == (2, "mask1")


def test_the_whole_models_fractions_are_means_over_survivors(by_hand):
    _, report = pol.signed_constants(*by_hand, "mask1", turn_the_first)
    assert (report.survivors, report.flipped, report.revived) == (5, 2, 0)
    assert report.positive == pytest.approx(2 / 5)
    assert report.agree_init == pytest.approx(3 / 5)
    assert report.agree_trained == pytest.approx(2 / 5)


@pytest.mark.parametrize(
    ("strategy", "flipped", "revived"),
    [("mask1", [2, 0], [0, 0]), ("mask0", [2, 1], [0, 0]), ("standard", [2, 1], [1, 1])],
)
def test_flipped_counts_what_phi_relabels_against_the_zero_crossing(
    by_hand, strategy, flipped, revived
):
    _, report = pol.signed_constants(*by_hand, strategy, Phi(3))
    assert [layer.flipped for layer in report] == flipped
    assert [layer.revived for layer in report] == revived


def test_a_sign_report_prints_as_a_table(by_hand):
    _, report = pol.signed_constants(*by_hand, "standard", turn_the_first)
    assert str(report) == (
        "strategy standard\n"
        "weight  survivors  sigma      +  = init  = trained  flipped  revived\n"
        "--------------------------------------------------------------------\n"
        "a               4  2.191  0.250   0.250      0.750        1        1\n"
        "b               1      4  0.000   1.000      0.000        1        1\n"
        "total           5         0.200   0.400      0.600        2        2"
    )


def test_a_report_of_nothing_left_has_no_fractions():
    field = {"w": torch.tensor([1.0, 2.0])}
    new, report = pol.signed_constants(
        field, field, {"w": torch.zeros(2).bool()}, perturb=Epsilon(1)
    )
    assert new["w"].tolist() == [0, 0]
    assert (report.survivors, report.positive, report.agree_init, report.flipped) == (0, 0, 0, 0)
