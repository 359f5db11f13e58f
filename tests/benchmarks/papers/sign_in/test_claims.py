"""Captions, printed cells and verdicts of training from scratch, from made-up runs."""

from dataclasses import asdict, fields, replace

import pytest

from benchmarks.harness.command_line import RunOptions
from benchmarks.pages.captions import NOT_GIVEN
from benchmarks.pages.cells import PAPER_SCALE, PROXY, Printed, status
from benchmarks.pages.verdicts import FAILS, HOLDS, MISSING, UNTESTABLE
from benchmarks.papers.sign_in.captions import AXES, caption, departs_from_paper, settings
from benchmarks.papers.sign_in.cells import found_cells
from benchmarks.papers.sign_in.claims import claims
from benchmarks.papers.sign_in.command import SignInOptions, configurations
from benchmarks.papers.sign_in.config import SignInConfig
from benchmarks.papers.sign_in.stated import stated
from benchmarks.papers.sign_in.summary import comparisons

FACTS = {
    **{"name": "cifar10", "shape": [3, 32, 32], "train": 50_000, "held_out": 0, "test": 10_000},
    **{"train_available": 50_000, "test_available": 10_000},
}
# What the runs of a seed have in common, and what they have not.
OF_SEED = {0: 0.6, 1: -0.4, 2: 0.2}
NOISE = (0.05, -0.05, 0.0, 0.05, -0.05, 0.02, -0.02)


def config(method="random+sign_in", density=0.1, seed=0, **changes) -> SignInConfig:
    options = SignInOptions(
        dataset="cifar10",
        methods=(method,),
        densities=(density,),
        seeds=(seed,),
        where=RunOptions(device="cpu"),
    )
    (made,) = configurations(options)
    return replace(made, **changes)


def result(accuracy, method="random", density=0.1, seed=0, left=0.3, **changes):
    made = config(method, density, seed, **changes)
    final = {"test_accuracy": accuracy, "flips_cumulative": accuracy / 100, "sharpness": 9.0}
    final["inner_scaling"] = {"mean": left} if "+" in method else None
    return {
        "experiment": "sign_in",
        "config": asdict(made),
        "dataset": FACTS,
        "final": final,
        "git_commit": "c0ffee",
    }


def runs(levels, **changes):
    """Results of three seeds, by the accuracies of the methods at densities 0.2 and 0.1."""
    return [
        result(
            level + OF_SEED[seed] + NOISE[(3 * place + 2 * seed + n) % len(NOISE)],
            method, density, seed, **changes,
        )
        for n, density in enumerate((0.2, 0.1))
        for place, (method, level) in enumerate(levels.items())
        for seed in OF_SEED
    ]  # fmt: skip


def verdicts(results):
    (group,) = comparisons(results)
    return {claim.key: claim.verdict for claim in claims(group)}


# Captions -------------------------------------------------------------------------------------

OTHER_VALUES = {
    **{"dataset": "mnist", "arch": "resnet8", "width": 8, "stem_stride": 2},
    **{"densities": "erk", "score_images": 64, "epochs": 75, "batch_size": 128},
    **{"optimizer": "adamw", "lr": 0.1, "momentum": 0.8, "weight_decay": 0.5},
    **{"schedule": "cosine", "label_smoothing": 0.1, "augment": False, "beta": 2.0},
    **{"rescale_period": 5, "rescale_until": 50, "rescale_momentum": "zero"},
    **{"frobenius_decay": 0.25, "sharpness_images": 64, "sharpness_every": 3},
    **{"device": "cuda", "bf16": True, "channels_last": True},
}
OTHER_FACTS = {
    "train_size": {"train": 20_000},
    "test_size": {"test": 500},
    "resolution": {"shape": [3, 16, 16], "pooled_from": 32},
}
FIELDS = [field.name for field in fields(SignInConfig) if field.name not in AXES]


@pytest.mark.parametrize("name", dict.fromkeys([*FIELDS, "resolution"]))
def test_a_caption_names_every_field_that_differs(name):
    one = {**result(80.0, "random+sign_in")}
    other = {**one, "dataset": {**FACTS, **OTHER_FACTS.get(name, {})}}
    if name not in OTHER_FACTS:
        assert one["config"][name] != OTHER_VALUES[name]
        other["config"] = {**one["config"], name: OTHER_VALUES[name]}
    rows = [
        {row.name: row.ours for row in settings(each["config"], each["dataset"])}
        for each in (one, other)
    ]
    differing = [key for key in rows[0] if rows[0][key] != rows[1][key]]
    assert len(differing) == 1
    assert f"{differing[0]} {rows[1][differing[0]]}" in caption([other])
    assert caption([other]) != caption([one])


def test_a_field_that_is_new_is_a_row_of_its_own():
    stored = {**asdict(config()), "warp": 9}
    assert ("warp", "9", NOT_GIVEN) in settings(stored, FACTS)


def test_the_papers_own_settings_depart_in_nothing():
    for method in ("random", "random+mv", "random+sign_in", "snip", "synflow+sign_in"):
        assert departs_from_paper(result(80.0, method)) == ()
    hundred = {**result(70.0), "dataset": {**FACTS, "name": "cifar100"}}
    hundred["config"] = {**hundred["config"], "dataset": "cifar100", "arch": "resnet18"}
    assert departs_from_paper(hundred) == ()
    assert departs_from_paper(result(80.0, epochs=75)) == ("epochs 75, the paper's 150",)


def test_a_caption_of_several_methods_says_whose_a_setting_is():
    text = caption([result(80.0), result(80.0, "random+sign_in", rescale_until=7)])
    assert (
        "epoch T2 of the last rescale 7 (random+sign_in), the paper's 75 (random+sign_in)" in text
    )
    assert text.startswith("epoch T2")
    # What differs between the methods, but for each as the paper has it, is no departure.
    assert "weight decay" not in text.split("not given by the paper")[0]


# Cells ----------------------------------------------------------------------------------------


def cell(table, *path):
    return next(
        each for each in found_cells(runs({"random": 86.0, "random+sign_in": 87.0}, epochs=9))
        if (each.table, each.path) == (table, path)
    )  # fmt: skip


def test_the_same_runs_stand_for_the_cells_of_three_tables():
    found = found_cells(runs({"random": 86.0, "random+mv": 86.5, "random+sign_in": 87.0}))
    assert all(isinstance(each, Printed) and status(ours) == PAPER_SCALE
               for each, ours in found.items())  # fmt: skip
    assert {each.path[0] for each in found} == {"cifar10_resnet20"}
    by_table = [each.table for each in found]
    assert [by_table.count(table) for table in dict.fromkeys(by_table)] == [4, 4, 6]
    ours = found[cell("table3_random_mask", "cifar10_resnet20", "0.9", "sign_in")]
    assert (ours.value[:4], ours.seeds, ours.note) == ("87.1", "3 seeds", "p = 1")


def test_shorter_runs_are_proxies():
    found = found_cells(runs({"random": 86.0}, epochs=149))
    assert {status(each) for each in found.values()} == {PROXY}


# Verdicts -------------------------------------------------------------------------------------


def test_gains_hold_and_missing_gains_do_not():
    found = verdicts(runs({"random": 86.0, "random+mv": 86.5, "random+sign_in": 88.0}))
    assert (found["table3"], found["table11"], found["flips"]) == (HOLDS, HOLDS, HOLDS)
    assert found["table9"] == found["random"] == MISSING
    found = verdicts(runs({"random": 86.0, "random+mv": 86.0, "random+sign_in": 86.0}))
    assert (found["table3"], found["table11"]) == (FAILS, FAILS)


def test_where_the_inner_scaling_stays_no_claim_about_rescaling_is_testable():
    levels = {"random": 86.0, "random+mv": 86.0, "random+sign_in": 86.0}
    results = runs(levels, left=0.97)
    (group,) = comparisons(results)
    for claim in claims(group):
        if claim.key in ("table3", "table11", "flips", "flat"):
            assert claim.verdict == UNTESTABLE
            assert {case.why for case in claim.cases} == {
                "β̂ keeps 0.97 of β without a rescale, so that one restores next to nothing"
            }
            assert claim.cases[0].gain is not None


def test_an_effect_that_could_not_be_seen_is_not_tested():
    results = runs({"random": 86.0, "random+mv": 86.0, "random+sign_in": 86.0})
    for place, each in enumerate(results):
        each["final"]["test_accuracy"] += (2.0, -2.0, 0.5, 1.5)[place % 4]
    assert verdicts(results)["table3"] == UNTESTABLE


def test_scored_masks_are_compared_with_and_without_sign_in_and_with_random_ones():
    found = verdicts(runs({"random": 86.0, "snip": 84.0, "snip+sign_in": 87.0}))
    assert (found["table9"], found["random"]) == (HOLDS, HOLDS)
    assert found["table3"] == MISSING


def test_claims_are_stated_for_every_data_set_and_judged_on_their_own():
    results = runs({"random": 86.0, "random+mv": 86.5, "random+sign_in": 88.0})
    found = {(each.source, each.place): each for each in stated(results)}
    assert found["Table 3", "CIFAR-10, ResNet-20"].verdict == HOLDS
    assert found["Table 3", "CIFAR-100, ResNet-18"].verdict == MISSING
    assert found["Table 4", "ImageNet, DeiT-S"].verdict == MISSING
    assert found["Table 3", "CIFAR-10, ResNet-20"].leading.departs == ()
