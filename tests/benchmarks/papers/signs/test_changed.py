"""Runs with one changed setting: which have no section of their own, and the tables they are in."""

from dataclasses import fields

import pytest

from benchmarks.papers.signs.captions import AXES
from benchmarks.papers.signs.changed import gather, sensitivity_table, steps_section
from benchmarks.papers.signs.config import RunConfig
from benchmarks.papers.signs.report import describe
from benchmarks.papers.signs.summary import groups_of

# Of every setting but data set and network, which sections are named after: another value, what was
# used of the data where the setting decides it, and what the table says.
CHANGED = {
    "rounds": (9, {}, "rounds 9"),
    "prune_base": (0.7, {}, "prune base 0.7"),
    "optimizer": ("sgd", {}, "optimizer sgd"),
    "lr": (3e-4, {}, "learning rate 0.0003"),
    "momentum": (0.8, {}, "momentum (sgd) 0.8"),
    "weight_decay": (1e-4, {}, "weight decay 0.0001"),
    "batch_size": (128, {}, "batch size 128"),
    "prune_scope": ("layer", {}, "prune scope layer"),
    "sign_scope": ("global", {}, "sign scope global"),
    "mix": (0.6, {}, "gradual's share of trained signs 0.6"),
    "init": ("torch", {}, "initialisation torch"),
    "keep_rest": (True, {}, "biases and norms kept at a round yes"),
    "holdout": (
        *(0.2, {"train": 48_000, "held_out": 12_000}),
        "held out for selection 12,000 training images",
    ),
    "train_size": (
        *(600, {"train": 540, "held_out": 60}),
        "held out for selection 60 training images, training images 600 of 60,000, drawn at random",
    ),
    "test_size": (50, {"test": 50}, "test images 50 of 10,000, drawn at random"),
    "weights": ("file.pt", {}, "file of weights file.pt"),
    "bf16": (True, {}, "bf16 yes"),
    "resolution": (14, {"shape": [1, 14, 14], "pooled_from": 28}, "resolution 14x14 (averaged)"),
    "width": (8, {}, "width of VGG 8"),
}
OF_THE_SECTION = {"epochs", "survivors", "dataset", "arch", "device"}


@pytest.fixture
def usual(made_run):
    """The runs of a section: two strategies, two perturbations, three seeds."""
    return [
        made_run(strategy, epsilon, seed, level - epsilon + 0.1 * seed)
        for strategy, level in (("mask0", 98.0), ("mask1", 97.0))
        for epsilon in (0.0, 0.5)
        for seed in range(3)
    ]


def table(parts):
    lines = next(part for part in parts if part.startswith("|")).splitlines()
    return [
        [cell.strip() for cell in line.strip("|").split("|")] for line in lines if line[1] != "-"
    ]


@pytest.mark.parametrize(
    "name",
    [f.name for f in fields(RunConfig) if f.name not in {*AXES, *OF_THE_SECTION}],
)
def test_a_changed_setting_is_named_with_its_value(usual, made_run, name):
    value, facts, text = CHANGED[name]
    changed = made_run("mask1", 0.5, 0, 95.0, facts=facts, **{name: value})
    (gathered,) = gather(groups_of([*usual, changed]))
    assert gathered.main == usual
    head, default, row = table(sensitivity_table(gathered))
    assert head == ["changed", "seed", "mask1, ε = 0.5"]
    assert default == ["none, as above", "0", "96.50"]
    assert row == [text, "0", "95.00"]


def test_an_optimizer_and_its_learning_rate_are_one_setting(usual, made_run):
    changed = made_run("mask1", 0.0, 1, 95.0, optimizer="sgd", lr=0.1)
    (gathered,) = gather(groups_of([*usual, changed]))
    rows = table(sensitivity_table(gathered))
    assert rows[1:] == [
        ["none, as above", "1", "97.10"],
        ["optimizer sgd, learning rate 0.1", "1", "95.00"],
    ]


def test_rows_have_the_section_of_the_same_seed_and_say_what_was_not_run(usual, made_run):
    changed = [
        made_run("mask1", 0.0, 0, 95.0, lr=0.1),
        made_run("mask0", 0.5, 2, 94.0, batch_size=128),
    ]
    (gathered,) = gather(groups_of([*usual, *changed]))
    assert table(sensitivity_table(gathered)) == [
        ["changed", "seed", "mask0, ε = 0.5", "mask1, ε = 0"],
        ["none, as above", "0", "97.50", "97.00"],
        ["learning rate 0.1", "0", "—", "95.00"],
        ["none, as above", "2", "97.70", "97.20"],
        ["batch size 128", "2", "94.00", "—"],
    ]


def test_the_table_says_what_two_runs_differ_by_without_any_change(usual, made_run):
    changed = made_run("mask1", 0.0, 0, 95.0, lr=0.1)
    # A seed moves all rows together, and one run by 0.3 more: of four rows and three seeds.
    usual[0]["final"]["test_accuracy"] += 0.3
    (gathered,) = gather(groups_of([*usual, changed]))
    (said, _) = sensitivity_table(gathered)
    assert said.startswith("### Sensitivity (one seed, no verdict)\n\n1 runs that differ")
    # 0.3² (1 − 1/4)(1 − 1/3) = 0.045 over six degrees of freedom, doubled: 0.015.
    assert "by 0.12 points" in said


@pytest.mark.parametrize(
    ("changes", "sections"),
    [
        ({"lr": 0.1}, 1),
        ({"lr": 0.1, "batch_size": 128}, 2),
        ({"init": "torch", "optimizer": "sgd"}, 2),
        ({"dataset": "digits"}, 2),
        ({"arch": "conv2"}, 2),
    ],
)
def test_two_changed_settings_or_another_task_are_a_section(usual, made_run, changes, sections):
    changed = made_run("mask1", 0.0, 0, 95.0, **changes)
    assert len(gather(groups_of([changed, *usual]))) == sections


def test_several_seeds_are_a_section_but_for_epochs_and_survivors(usual, made_run):
    def sections(**changes):
        changed = [made_run("mask1", 0.0, seed, 95.0, **changes) for seed in (0, 1)]
        return gather(groups_of([*usual, *changed]))

    assert len(sections(lr=0.1)) == 2
    for changes in ({"epochs": 3}, {"survivors": "random"}):
        (gathered,) = sections(**changes)
        assert len(gathered.by(*changes)[0].results) == 2
        assert sensitivity_table(gathered) == []


def test_sections_of_one_seed_and_of_a_foreign_seed_stay_apart(usual, made_run):
    alone = [made_run("mask1", 0.0, 0, 95.0, lr=lr) for lr in (0.1, 0.2)]
    assert len(gather(groups_of(alone))) == 2
    foreign = made_run("mask1", 0.0, 7, 95.0, lr=0.1)
    assert len(gather(groups_of([*usual, foreign]))) == 2


def test_no_such_runs_no_such_tables(usual):
    sections = gather(groups_of(usual))
    assert sensitivity_table(sections[0]) == []
    assert steps_section(sections) == []


def test_losses_stand_by_the_steps_of_a_round_over_data_sets(usual, made_run):
    short = [
        made_run("mask1", epsilon, 0, accuracy, epochs=1)
        for epsilon, accuracy in ((0.0, 96.0), (0.1, 95.5), (0.5, 93.0))
    ]
    digits = [
        made_run("mask1", epsilon, seed, 90.0 - 8 * epsilon - seed, dataset="digits",
                 facts={"train": 1293, "held_out": 144, "train_available": 1437})
        for epsilon in (0.0, 0.5)
        for seed in (0, 1)
    ]  # fmt: skip
    sections = gather(groups_of([*usual, *short, *digits]))
    assert len(sections) == 2
    title, said, _, read = steps_section(sections)
    assert title == "## Steps or task"
    assert "3 runs with other epochs" in said
    assert "Seed 0 in all rows" in said
    # No two data sets have the same number of steps.
    assert read == (
        "Read: in the mean of the strategies, ε = 0.5 costs, by the steps of a round: digits, 4.00 "
        "at 220; mnist, 3.00 at 900, 0.50 at 9,000 (points)."
    )
    assert table(steps_section(sections)) == [
        ["strategy", "data set", "epochs per round", "steps per round", "ε = 0",
         "lost at ε = 0.1", "lost at ε = 0.5"],
        # 22 steps of 60 images in an epoch, the last one smaller; 900 on the real MNIST.
        ["mask1", "digits", "10", "220", "90.00", "—", "4.00"],
        ["mask1", "mnist", "1", "900", "96.00", "0.50", "3.00"],
        ["mask1", "mnist", "10", "9,000", "97.00", "—", "0.50"],
    ]  # fmt: skip


def test_losses_at_the_same_steps_say_what_the_data_set_changes(usual, made_run):
    facts = {"train": 1293, "held_out": 144, "train_available": 1437}
    mnist = [
        made_run(strategy, epsilon, 0, accuracy - 10 * epsilon, epochs=1)
        for strategy, accuracy in (("mask0", 96.0), ("mask1", 94.0))
        for epsilon in (0.0, 0.1, 0.5)
    ]
    digits = [
        made_run("mask1", epsilon, seed, 90.0 - 8 * epsilon, dataset="digits", facts=facts)
        for epsilon in (0.0, 0.5)
        for seed in (0, 1)
    ]
    digits += [
        made_run("mask1", epsilon, 0, 90.0 - 2 * epsilon, dataset="digits", facts=facts, epochs=41)
        for epsilon in (0.0, 0.5)
    ]
    # 41 · 22 steps of digits are about as many as 900 of MNIST, whose two strategies lose 5.
    assert steps_section(gather(groups_of([*usual, *mnist, *digits])))[-1] == (
        "Read: in the mean of the strategies, ε = 0.5 costs, by the steps of a round: digits, 4.00 "
        "at 220, 1.00 at 902; mnist, 5.00 at 900, 0.50 at 9,000 (points). On one data set, steps "
        "change this by up to 4.50; at the same number of steps (within 5 %), the data set changes "
        "it by up to 4.00."
    )


def test_runs_of_other_settings_are_in_no_table_of_steps(usual, made_run):
    short = made_run("mask1", 0.5, 0, 93.0, epochs=1)
    zero = made_run("mask1", 0.0, 0, 96.0, epochs=1)
    other = [made_run("mask1", e, 0, 50.0, dataset="digits", lr=0.1) for e in (0.0, 0.5)]
    rows = table(steps_section(gather(groups_of([*usual, short, zero, *other]))))
    assert {row[1] for row in rows[1:]} == {"mnist"}


def test_a_page_shows_changed_runs_in_their_section_with_their_provenance(usual, made_run):
    changed = [
        {**made_run("mask1", 0.0, 0, 95.0, lr=0.1), "command": "changed lr"},
        {**made_run("mask1", 0.0, 0, 94.0, survivors="random"), "command": "random mask"},
        {**made_run("mask1", 0.0, 0, 93.0, epochs=1), "command": "one epoch"},
        {**made_run("mask1", 0.5, 0, 92.0, epochs=1), "command": "one epoch"},
    ]
    text = describe([*usual, *changed], None, details=True).text
    assert text.count("## mnist, fc") == 1
    assert "12 runs, seeds 0, 1, 2" in text
    titles = ("## mnist, fc", "### Controls", "### Sensitivity", "`changed lr`", "## Steps or task")
    places = [text.index(title) for title in titles]
    assert places == sorted(places)
    for command in ("`changed lr`", "`random mask`", "`one epoch`"):
        assert command in text
    plain = describe(usual, None, details=True).text
    assert "Sensitivity" not in plain
    assert "Steps or task" not in plain
