"""The figure of the first page: what it shows, of which runs, and that they suffice for it."""

import math
from statistics import fmean, stdev

import pytest

from benchmarks.papers.sign_in.dense_to_sparse.config import METHODS
from benchmarks.papers.sign_in.dense_to_sparse.first_page import (
    MAGNITUDES,
    SIGNS,
    caption,
    draw,
    gains,
    shown,
)
from benchmarks.papers.sign_in.dense_to_sparse.summary import comparisons
from tests.benchmarks.papers.sign_in.dense_to_sparse.synthetic import EPOCHS, sweep

NEEDED = [
    (f"{method}/{start}", 0.1) for method in METHODS for start in (SIGNS, MAGNITUDES, "random")
]


def accuracies(results, arm):
    return [each["final"]["test_accuracy"] for each in results if each["config"]["arm"] == arm]


def test_a_gain_is_the_mean_difference_to_the_random_start_of_the_same_seed():
    results = sweep((0, 1, 2))
    (group,) = comparisons(results)
    for start in (SIGNS, MAGNITUDES):
        for method, found in zip(METHODS, gains(group, start), strict=True):
            ours, theirs = (accuracies(results, f"{method}/{arm}") for arm in (start, "random"))
            assert found.mean == pytest.approx(fmean(ours) - fmean(theirs))
            assert found.count == 3


def test_with_one_start_and_the_random_one_the_interval_is_that_of_a_paired_t_test():
    results = sweep((0, 1, 2), [(f"acdc/{start}", 0.1) for start in (SIGNS, "random")])
    (group,) = comparisons(results)
    (found,) = gains(group, SIGNS)
    ours, theirs = (accuracies(results, f"acdc/{arm}") for arm in (SIGNS, "random"))
    spread = stdev(one - other for one, other in zip(ours, theirs, strict=True))
    assert found.half == pytest.approx(4.302653 * spread / math.sqrt(3), rel=1e-5)


def test_the_figure_is_drawn_for_light_and_for_dark_pages(tmp_path):
    light, dark = draw(comparisons(sweep((0, 1), NEEDED)), tmp_path / "new")
    assert light.name == "first_page.png"
    assert dark.name == "first_page-dark.png"
    assert light.read_bytes()[:8] == dark.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert light.read_bytes() != dark.read_bytes()


@pytest.mark.parametrize("missing", [each for each, _ in NEEDED])
def test_without_one_of_its_runs_there_is_no_figure(missing, tmp_path):
    groups = comparisons(sweep((0, 1), [each for each in NEEDED if each[0] != missing]))
    assert shown(groups) is None
    assert draw(groups, tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_one_seed_tells_no_interval_and_is_not_shown():
    assert shown(comparisons(sweep((0,), NEEDED))) is None


def test_of_several_comparisons_the_one_with_most_runs_is_shown():
    small = sweep((0, 1), NEEDED)
    for result in small:
        result["config"]["epochs"] = 10
    groups = comparisons([*small, *sweep((0, 1, 2), NEEDED)])
    assert len(groups) == 2
    assert shown(groups).config["epochs"] == EPOCHS


def test_the_caption_says_scale_density_and_seeds():
    (group,) = comparisons(sweep((0, 1), NEEDED))
    assert caption(group) == (
        "CIFAR-10 at 16×16 (averaged), 5,000 training images, resnet8 of width 16, 30 epochs; "
        "density 0.1; differences paired by seed, 2 seeds, with 95 % intervals"
    )
