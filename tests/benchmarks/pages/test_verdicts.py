"""Verdicts: one rule, each of its branches."""

import pytest

from benchmarks.pages.paired import Compared
from benchmarks.pages.verdicts import (
    FAILS,
    HOLDS,
    MISSING,
    PARTLY,
    UNTESTABLE,
    positive,
    reaches,
    together,
)


def found(low, high, detectable=1.0):
    return Compared((low + high) / 2, 3, (high - low) / 2, detectable)


@pytest.mark.parametrize(
    ("difference", "paper", "verdict"),
    [
        (found(0.5, 3.0), 2.0, HOLDS),
        (found(-3.0, -0.5), 2.0, FAILS),
        (found(-1.0, 1.5), 2.0, FAILS),  # the paper's effect is outside
        (found(-1.0, 2.5), 2.0, UNTESTABLE),  # zero and the paper's effect are inside
        (found(0.5, 3.0, detectable=2.1), 2.0, UNTESTABLE),
        (found(0.5, 3.0, detectable=2.0), 2.0, HOLDS),
        (found(-3.0, -2.5, detectable=2.1), 2.0, FAILS),  # the other sign, with any power
        (found(-1.0, 0.5, detectable=2.1), 2.0, UNTESTABLE),
        (found(0.5, 3.0), -0.01, UNTESTABLE),  # the paper's own numbers say otherwise
        (found(0.5, 3.0, detectable=99.0), None, HOLDS),
        (found(-3.0, -0.5), None, FAILS),
        (found(-0.5, 0.5), None, UNTESTABLE),
        (Compared(5.0, 1), 2.0, UNTESTABLE),
        (Compared(5.0, 1), None, UNTESTABLE),
        (None, 2.0, MISSING),
    ],
)
def test_a_difference_that_must_be_positive(difference, paper, verdict):
    assert positive(difference, paper) == verdict


@pytest.mark.parametrize(
    ("gain", "rest", "verdict"),
    [
        (found(1.0, 3.0), found(-0.5, 0.5), HOLDS),
        (found(1.0, 3.0), found(0.5, 1.5), HOLDS),
        (found(1.0, 3.0), found(-2.0, -0.5), PARTLY),
        (found(-1.0, 3.0), found(-2.0, -0.5), FAILS),
        (found(-3.0, -1.0), found(-2.0, -0.5), FAILS),
        (found(-1.0, 3.0), found(-0.5, 0.5), UNTESTABLE),  # there was nothing to recover
        (found(1.0, 3.0, detectable=4.0), found(-0.5, 0.5), UNTESTABLE),
        (found(1.0, 3.0), found(-0.5, 0.5, detectable=4.0), UNTESTABLE),
        (Compared(1.0, 1), Compared(0.0, 1), UNTESTABLE),
        (None, found(-0.5, 0.5), MISSING),
        (found(1.0, 3.0), None, MISSING),
    ],
)
def test_better_than_one_and_no_worse_than_another(gain, rest, verdict):
    assert reaches(gain, rest, 3.5) == verdict


def test_the_paper_may_allow_to_be_a_little_worse():
    gain, rest = found(1.0, 3.0), found(-1.5, -0.5)
    assert reaches(gain, rest, 3.5) == PARTLY
    assert reaches(gain, rest, 3.5, allowance=1.0) == HOLDS
    assert reaches(gain, found(-2.5, -1.1), 3.5, allowance=1.0) == PARTLY


def test_where_the_detectable_effect_exceeds_the_papers_only_the_other_sign_is_a_verdict():
    for low in range(-30, 30):
        for width in (1, 10, 40):
            blind = found(low / 10, (low + width) / 10, detectable=2.01)
            assert positive(blind, 2.0) == (FAILS if blind.high < 0 else UNTESTABLE)
            assert reaches(blind, found(-0.1, 0.1), 2.0) == UNTESTABLE


def test_of_several_cases_the_testable_ones_decide():
    assert together([HOLDS, HOLDS]) == HOLDS
    assert together([FAILS, FAILS]) == FAILS
    assert together([HOLDS, FAILS]) == together([HOLDS, PARTLY]) == together([PARTLY]) == PARTLY
    assert together([HOLDS, UNTESTABLE, UNTESTABLE]) == f"{HOLDS} (1 of 3 testable)"
    assert together([UNTESTABLE, MISSING]) == UNTESTABLE
    assert together([HOLDS, MISSING]) == HOLDS
    assert together([MISSING, MISSING]) == together([]) == MISSING
