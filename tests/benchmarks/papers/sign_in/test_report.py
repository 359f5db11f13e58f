"""Tables and the page from made-up results, with the papers' numbers."""

import math
from dataclasses import asdict, replace

import pytest

from benchmarks.harness.results import load_results, write_result
from benchmarks.papers.sign_in.command import configurations
from benchmarks.papers.sign_in.report import (
    accuracy_table,
    gain_table,
    period_table,
    write_pages,
)
from benchmarks.papers.sign_in.summary import comparisons, published
from tests.benchmarks.papers.sign_in.small import SMALL


def made_up(method, density, seed, accuracy, period=None, sharpness=2.0):
    (config,) = configurations(
        replace(
            SMALL,
            dataset="cifar10",
            arch="resnet20",
            width=None,
            methods=(method,),
            densities=(density,),
            seeds=(seed,),
            rescale_periods=(period or 1,),
        )
    )
    epoch = {"epoch": 1, "flips": 0.1, "flips_cumulative": 0.2, "test_accuracy": accuracy}
    stages = {"init_to_warmup": 0.25, "warmup_to_end": 0.125, "init_to_end": 0.3}
    layer = {"name": "conv1.weight", "total": 100, "survivors": 10, **stages}
    scaling = {"mean": 0.5, "min": 0.1, "max": 1.0} if config.parametrized else None
    final = {"test_accuracy": accuracy, "flips_cumulative": 0.2, "sharpness": sharpness, **stages}
    return {
        "schema": 1,
        "experiment": "sign_in",
        "run_id": config.run_id,
        "config": asdict(config),
        "dataset": {
            **{"name": "cifar10", "shape": [3, 32, 32]},
            **{"train": 300, "train_available": 50_000, "test": 100, "test_available": 10_000},
        },
        "epochs": [epoch] * 3,
        "layers": [layer] * 4,
        "final": {**final, "inner_scaling": scaling, "density": density},
        "seconds": 1.0,
        "started": "2026-01-01T00:00:00+00:00",
        "versions": {"torch": "2"},
        "machine": {"device": "cpu", "cpu": "abacus", "cores": 2, "threads": 1},
        "git_commit": None,
    }


@pytest.fixture
def group():
    rows = [
        made_up("random", 0.1, 0, 80.0),
        made_up("random", 0.1, 1, 82.0),
        made_up("random+sign_in", 0.1, 0, 83.0, period=1),
        made_up("random+sign_in", 0.1, 1, 81.0, period=1),
        made_up("random+sign_in", 0.1, 0, 79.0, period=5),
        made_up("random+mv", 0.1, 0, 80.5),
        made_up("random", 0.2, 0, 90.0, sharpness=None),
    ]
    (found,) = comparisons(rows)
    return found


def cells(table):
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]


def test_tables_by_hand(group):
    rows = cells(accuracy_table(group))
    assert rows[0] == ["method", "0.2", "paper", "0.1", "paper"]
    assert rows[2] == ["Random", "90.00 (1)", "88.25 ± 0.35", "81.00 ± 1.41", "86.25 ± 0.3"]
    assert rows[3] == ["Random + m⊙v", "—", "89.11 ± 0.08", "80.50 (1)", "87.13 ± 0.23"]
    assert rows[4][0] == "Random + Sign-In, p = 1"
    assert rows[4][3:] == ["82.00 ± 1.41", "87.83 ± 0.11"]
    gains = cells(gain_table(group))
    # +3 and −1 in the two seeds: a standard deviation of √8, so 12.706 · √8 / √2 on both sides.
    assert gains[3][:3] == ["Random + Sign-In, p = 1", "—", "+1.00 [-24.41, +26.41]"]
    # One seed, with the spread of the others.
    assert gains[2][:3] == [
        "Random + m⊙v",
        "—",
        f"+0.50 [{0.5 - 12.706 * math.sqrt(8):.2f}, +36.44]",
    ]
    assert group.swept() == [("random+sign_in", 0.1)]
    periods = cells(period_table(group, "random+sign_in", 0.1))
    assert [row[0] for row in periods[2:]] == ["1", "5", "never (m⊙v)", "plain training"]
    assert periods[3][1:] == ["79.00", "25.0 %", "12.5 %", "30.0 %", "0.20", "2.00", "0.5000"]
    assert periods[5][-1] == "—"


def test_published_numbers():
    assert published("cifar10", "random+sign_in", 0.05) == "84.74 ± 0.06"
    assert published("cifar100", "snip+sign_in", 0.2) == "75.16 ± 0.15"
    assert published("cifar100", "synflow", 0.05) == "68.56 ± 0.17"
    assert published("cifar10", "synflow", 0.05) == "73.22"  # one run: the others crashed
    assert published("cifar10", "grasp", 0.1) is None
    assert published("cifar10", "random", 0.3) is None
    assert published("mnist", "random", 0.1) is None


def test_the_page_of_made_up_results(group, tmp_path):
    for result in group.results:
        write_result(tmp_path / f"{result['run_id']}.json", result)
    (page,) = write_pages(tmp_path, tmp_path)
    text = page.read_text()
    assert "training images 300 of 50,000, drawn at random, the paper's all" in text
    assert "epochs 3, the paper's 150" in text
    assert "abacus" in text
    assert text.count("![") == 7
    # Verdicts and their figure stand before every other table, and long ones are folded.
    order = (
        "Claim. ",
        "### Verdicts",
        "-differences.png",
        "### Test accuracy",
        "## The experiment",
    )
    places = [text.index(part) for part in order]
    assert places == sorted(places)
    assert text.count("<details>") == 4


def test_results_of_others_are_not_read(tmp_path):
    (tmp_path / "fragility-digits.json").write_text('{"schema": 1, "experiment": "fragility"}')
    assert load_results(tmp_path, ["sign_in"]) == []
    assert write_pages(tmp_path, tmp_path) == []
