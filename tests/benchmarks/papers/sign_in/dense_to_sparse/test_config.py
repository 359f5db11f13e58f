"""Which runs the dense-to-sparse command makes, and what their settings say."""

from collections import Counter
from dataclasses import replace

import pytest

from benchmarks.__main__ import main
from benchmarks.harness.command_line import RunOptions
from benchmarks.papers.sign_in.dense_to_sparse.command import (
    DenseToSparseOptions,
    configuration,
    configurations,
)

OPTIONS = DenseToSparseOptions(where=RunOptions(device="cpu"))


def arms(seed, options=OPTIONS):
    return [(each.arm, each.density) for each in configurations(options) if each.seed == seed]


def test_the_default_runs_are_those_of_tables_1_5_and_10():
    runs = configurations(OPTIONS)
    assert Counter(each.seed for each in runs) == {0: 36, 1: 35, 2: 35, 3: 14, 4: 14}
    assert len({each.run_id for each in runs}) == len(runs)
    starts = ("sign10", "sign30", "sign_final", "mag10", "mag_final", "random")
    table1 = {
        (arm, 0.1) for m in ("acdc", "rigl", "str") for arm in (m, *(f"{m}/{s}" for s in starts))
    }
    table5 = {(arm, d) for arm in ("acdc", "acdc+sign_in") for d in (0.2, 0.1, 0.05)}
    masks = ("acdc/random", "rigl/random", "str/random", "snip", "synflow", "random")
    table10 = {(f"{mask}{way}", 0.1) for mask in masks for way in ("", "+sign_in")}
    assert set(arms(1)) == table1 | table5 | table10
    assert set(arms(0)) == {*arms(1), ("str/find_decay", 0.1)}
    assert set(arms(3)) == {each for each in table1 if not each[0].startswith("str")}


def test_the_default_runs_have_the_decided_scale():
    for each in configurations(OPTIONS):
        assert (each.dataset, each.resolution, each.train_size) == ("cifar10", 16, 5000)
        assert (each.arch, each.width, each.epochs, each.batch_size) == ("resnet8", 16, 30, 128)
        assert (each.lr, each.momentum, each.schedule) == (0.2, 0.9, "triangular")
        assert (each.augment, each.crop_padding, each.channels_last) == (True, 2, True)
        assert (each.warmup_epochs, each.middle_epochs, each.test_size) == (3, 9, None)
        sharp = [epoch for epoch in range(1, 31) if each.measures_sharpness(epoch)]
        assert sharp == [1, 3, 9, 20, 30]


def test_runs_go_seed_by_seed_and_what_a_run_needs_comes_before_it():
    runs = configurations(OPTIONS)
    assert [each.seed for each in runs] == sorted(each.seed for each in runs)
    names = [each.run_id for each in runs]
    for each in runs:
        if each.start is not None:
            # With two jobs the one before is still at work.
            assert names.index(each.source.run_id) < names.index(each.run_id) - 1
        if each.method == "str" and each.arm != "str/find_decay":
            assert names.index(each.search.run_id) < names.index(each.run_id)


def test_what_an_arm_does_not_use_is_none():
    by_arm = {each.arm: each for each in configurations(OPTIONS) if each.seed == 0}
    acdc, rigl, str_ = by_arm["acdc"], by_arm["rigl"], by_arm["str"]
    assert (acdc.acdc_calendar, rigl.acdc_calendar) == ("imagenet", None)
    assert (rigl.rigl_updates, rigl.rigl_until, rigl.rigl_fraction) == (60, 0.75, 0.3)
    assert (rigl.rigl_replace_step, rigl.densities, acdc.rigl_updates) == (True, "balanced", None)
    assert (str_.str_s0, str_.str_decay, str_.search_seed) == (-8.0, None, 0)
    assert (by_arm["snip"].score_images, by_arm["random"].score_images) == (512, None)
    plain, converted = by_arm["random"], by_arm["random+sign_in"]
    assert (plain.weight_decay, plain.beta, plain.frobenius_decay) == (1e-4, None, None)
    assert (converted.weight_decay, converted.beta, converted.frobenius_decay) == (0, 1, 1e-4)
    assert (converted.rescale_period, converted.rescale_until) == (1, 15)


@pytest.mark.parametrize("method", ["acdc", "rigl", "str"])
def test_a_start_names_the_very_run_that_its_mask_is_from(method):
    source = configuration(OPTIONS, method, 0.1, 1)
    for start in ("sign10", "mag_final", "random", "random+sign_in"):
        run = configuration(OPTIONS, f"{method}/{start}", 0.1, 1)
        assert run.source == source
        assert run.start == start.removesuffix("+sign_in")
        assert run.parametrized == start.endswith("+sign_in")
    assert source.start is None
    assert source.source == source


def test_a_given_decay_needs_no_search():
    options = replace(OPTIONS, str_decay=5e-4)
    assert not [each for each in configurations(options) if each.arm == "str/find_decay"]
    run = configuration(options, "str/sign10", 0.1, 0)
    assert (run.search, run.str_decay) == (None, 5e-4)


def test_starts_have_streams_of_their_own_which_they_share():
    source = configuration(OPTIONS, "acdc", 0.1, 0)
    starts = [
        configuration(OPTIONS, f"{method}/{start}", 0.1, 0)
        for method in ("acdc", "rigl")
        for start in ("sign10", "random+sign_in")
    ]
    for purpose in ("init", "batches"):
        assert {each.stream(purpose) for each in starts} == {starts[0].stream(purpose)}
        assert source.stream(purpose) != starts[0].stream(purpose)
        assert source.stream(purpose) == configuration(OPTIONS, "snip", 0.1, 0).stream(purpose)
        assert source.stream(purpose) != configuration(OPTIONS, "acdc", 0.1, 1).stream(purpose)


def test_arms_and_tables_can_be_chosen():
    assert arms(0, replace(OPTIONS, arms=("acdc/sign10",))) == [("acdc/sign10", 0.1)]
    five = replace(OPTIONS, tables=("5",), more_seeds=())
    assert set(arms(0, five)) == {
        (arm, d) for arm in ("acdc", "acdc+sign_in") for d in (0.2, 0.1, 0.05)
    }
    assert not arms(3, replace(OPTIONS, tables=("5",)))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--density", "0"), "--density"),
        (("--arms", "acdc/sign20"), "--arms acdc/sign20 is none of"),
        (("--search-between", "1e-3", "1e-4"), "--search-between"),
        (("--rigl-until", "2"), "--rigl-until"),
        (("--epochs", "0"), "at least 1"),
        (("--crop-padding", "-1"), "--crop-padding"),
        (("--epochs", "20", "--data-root", "nowhere"), "--data-root"),
        (("--dataset", "digits", "--resolution", "5", "--train-size", "99"), "resolution=5"),
    ],
)
def test_mistakes_are_told_in_one_line(words, message, refused):
    refused(lambda out: main(["dense-to-sparse", *words, "--out", str(out)]), message)


@pytest.mark.parametrize(
    "words",
    [["dense-to-sparse"], ["dense_to_sparse"], ["sign_in", "dense-to-sparse"]],
    ids=lambda words: " ".join(words),
)
def test_the_command_has_three_spellings(words, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([*words, "--help"])
    assert stopped.value.code == 0
    assert "--acdc-calendar" in capsys.readouterr().out
