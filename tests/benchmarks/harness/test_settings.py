"""Settings that are copied by name from options to the configuration of a run."""

from dataclasses import dataclass

import pytest

from benchmarks.harness.settings import given, same_named
from benchmarks.papers.sign_in.command import SignInOptions
from benchmarks.papers.sign_in.command import configurations as sign_in_runs
from benchmarks.papers.signs.command import FragilityOptions
from benchmarks.papers.signs.command import configurations as sign_runs
from benchmarks.papers.winning_sign.command import WinningSignOptions, configuration


def test_only_fields_that_the_source_has_are_copied():
    @dataclass
    class Wanted:
        epochs: int
        seed: int = 0

    @dataclass
    class Options:
        epochs: int = 3
        seeds: tuple[int, ...] = (1,)

    assert same_named(Options(), Wanted) == {"epochs": 3}
    assert given(lr=None, epochs=0, augment=False) == {"epochs": 0, "augment": False}


@pytest.mark.parametrize(
    ("options", "runs", "asked"),
    [
        (
            FragilityOptions,
            sign_runs,
            {"train_size": 100, "test_size": 50, "keep_rest": True, "holdout": 0.2, "mix": 0.3},
        ),
        (
            SignInOptions,
            sign_in_runs,
            {"train_size": 100, "test_size": 50, "channels_last": True, "sharpness_every": 2},
        ),
        (
            WinningSignOptions,
            lambda options: configuration(options)[:1],
            {"recalibrate": 7, "prune_classifier": True, "official_signs": True, "score_lr": 3.0},
        ),
    ],
)
def test_what_is_asked_for_reaches_every_run(options, runs, asked):
    for run in runs(options(**asked)):
        assert {name: getattr(run, name) for name in asked} == asked
