"""Tables from made-up results, with means and deviations that were computed by hand."""

from dataclasses import asdict

import pytest

from benchmarks.harness.results import versions, write_result
from benchmarks.pages.published import best_over_grid
from benchmarks.papers.signs.report import describe, write_pages
from benchmarks.papers.signs.summary import groups_of, sweeps
from benchmarks.papers.signs.tables import accuracy_table, summary_table

RUNS = [
    # strategy, epsilon, seed, held-out accuracy, test accuracy
    ("mask1", 0.0, 0, 96.0, 97.0),
    ("mask1", 0.0, 1, 96.4, 98.0),
    ("mask1", 0.5, 0, 96.9, 95.0),
    ("mask1", 0.5, 1, 96.7, 96.0),
    ("standard", 0.0, 0, 95.0, 94.0),
    ("standard", 0.5, 0, 94.0, 96.0),
    ("standard", 0.5, 1, 94.0, 98.0),
]


@pytest.fixture
def make(tiny):
    def make_result(strategy, epsilon, seed, val, test, **settings):
        perturbation = (("epsilon", epsilon),) if epsilon else ()
        changes = {"dataset": "mnist", "rounds": 2, **settings}
        config = tiny(strategy=strategy, perturbation=perturbation, seed=seed, **changes)
        signs = {"positive": 0.5, "agree_init": 0.7, "agree_trained": 0.6, "flipped": 30}
        rounds = [
            {
                "round": k,
                "density": 0.8**k,
                "survivors": 100,
                "total": 1000,
                "test_accuracy": test - (2 - k),
                "val_accuracy": val,
                "signs": signs if k else None,
                "seconds": 1.0,
            }
            for k in range(3)
        ]
        final = {"round": 2, "density": 0.64, "val_accuracy": val, "test_accuracy": test}
        return {
            "schema": 1,
            "experiment": config.experiment,
            "run_id": config.run_id,
            "config": asdict(config),
            "dataset": {
                "name": "mnist",
                **{"train": 270, "held_out": 30, "test": 100, "shape": [1, 28, 28]},
                **{"train_available": 60_000, "test_available": 10_000},
            },
            "final": final,
            "rounds": rounds,
            "seconds": 3.0,
            "started": "2025-01-01T00:00:00+00:00",
            "versions": {"polarity": "0", "torch": "2"},
            "machine": {"device": "cpu", "cpu": "abacus", "cores": 2, "threads": 1},
            "git_commit": None,
        }

    return make_result


@pytest.fixture
def results(make):
    return [make(*row) for row in RUNS]


def test_table_of_means_and_deviations(results):
    (sweep,) = sweeps(results)
    lines = accuracy_table(sweep).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[0] == ["ε", "mask1", "standard"]
    # One seed of two is marked, and the best of each column is bold.
    assert cells[2] == ["0", "**97.50 ± 0.71**", "94.00 (1)"]
    assert cells[3] == ["0.5", "95.50 ± 0.71", "**97.00 ± 1.41**"]


def test_both_ways_of_choosing_stand_beside_the_paper(results):
    (sweep,) = sweeps(results)
    published = best_over_grid("fragility", "mnist", "fc", "epsilon")
    lines = summary_table(sweep, published).splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    assert rows[0] == ["mask1", "97.50 ± 0.71", "0", "95.50 ± 0.71", "0.5", "97.4", "not given"]
    assert rows[1] == [
        "standard",
        "97.00 ± 1.41",
        "0.5",
        "97.00 ± 1.41",
        "0.5",
        "97.8",
        "not given",
    ]


def test_a_point_with_fewer_seeds_is_never_chosen(results):
    (sweep,) = sweeps(results)
    # Its held-out accuracy is the highest of `standard`, and comes from one seed of two.
    assert sweep.final("standard", (), "val_accuracy").count == 1
    assert sweep.best("standard", "val_accuracy") == (("epsilon", 0.5),)


def test_without_held_out_images_nothing_is_chosen_on_them(make):
    (sweep,) = sweeps([make("mask0", 0.1, 0, None, 90.0)])
    assert "| —" in summary_table(sweep, {})


def test_ties_go_to_the_smallest_perturbation(make):
    (sweep,) = sweeps([make("mask0", e, 0, 90.0, 95.0) for e in (0.9, 0.0, 0.4)])
    assert sweep.best("mask0", "test_accuracy") == ()


def test_other_settings_are_another_group(results, make):
    groups = groups_of([*results, make("mask1", 0.0, 0, 90.0, 91.0, lr=0.1)])
    assert [len(group) for group in groups] == [7, 1]


def test_runs_of_two_devices_are_one_group_that_says_so(results, make):
    more = [make("mask0", 0.0, seed, 90.0, 91.0, device="cuda") for seed in (0, 1)]
    (group,) = groups_of([*results, *more])
    assert len(group) == len(results) + 2
    assert "device cpu (7 runs) and cuda (2 runs)" in describe(group, None).text
    assert "device cpu," in describe(results, None).text


def test_of_a_run_of_two_devices_the_one_counts_that_performed_more_runs(results, make):
    strategy, value, seed, *_ = RUNS[0]
    twice = make(strategy, value, seed, 10.0, 11.0, device="cuda")
    for given in ([twice, *results], [*results, twice]):
        assert groups_of(given) == [results]


def test_kinds_of_perturbation_are_separate_sweeps(results, make):
    together = make("mask1", 0.0, 0, 90.0, 91.0)
    together["config"]["perturbation"] = [["phi", 0.001], ["epsilon", 0.3]]
    found = sweeps([*results, together])
    assert [sweep.kind for sweep in found] == ["epsilon", "combined"]
    assert "φ 0.001, ε 0.3" in accuracy_table(found[1])


def test_reports_show_tables_plots_and_provenance(results, tmp_path):
    for result in results:
        write_result(tmp_path / "runs" / f"{result['run_id']}.json", result)
    (path,) = write_pages(tmp_path / "runs", tmp_path)
    text = path.read_text()
    assert path.name == "fragility.md"
    parts = (
        "# The Fragility",
        "97.50 ± 0.71",
        "published best",
        "abacus",
        "rounds 2, the paper's 10",
        "seeds 0, 1",
    )
    for part in parts:
        assert part in text
    images = sorted(tmp_path.glob("*.png"))
    assert len(images) == 2
    for image in images:
        assert f"({image.name})" in text
        assert image.stat().st_size > 10_000


def test_plots_of_thresholds_and_collapsed_runs(make, tmp_path):
    results = []
    for phi, test in ((-0.1, 96.0), (-5e-5, 97.0), (0.0, 97.0), (1e-4, 97.2), (0.1, 11.0)):
        result = make("mask1", 0.0, 0, 90.0, test)
        result["experiment"] = result["config"]["experiment"] = "zero_crossing"
        result["config"]["perturbation"] = [["phi", phi]] if phi else []
        results.append(result)
    section = describe(results, tmp_path)
    assert all(path.is_file() for path in section.plots)
    assert "-5e-05" in section.text


def test_printed_section_has_no_pictures(results):
    section = describe(results, None)
    assert section.plots == []
    assert "![" not in section.text


def test_a_sweep_of_part_of_the_papers_grid_says_so(make):
    runs = [make("mask1", 0.0, 0, 96.0, 97.0, experiment="zero_crossing") for _ in range(2)]
    runs[1]["config"]["perturbation"] = [["phi", 0.001]]
    assert "2 of the paper's 11 values." in describe(runs, None).text


def test_a_section_marks_results_that_todays_code_cannot_repeat(make):
    old = make(*RUNS[0])
    text = describe([old], None).text
    assert "**Today's code cannot repeat this result:**" in text
    today = {**old, "git_commit": "0123", "versions": versions()}
    assert "cannot repeat" not in describe([today], None).text


def test_a_section_states_the_time_of_a_run_of_the_planned_size(make):
    whole = make(*RUNS[0], rounds=10, epochs=10)
    whole["dataset"] |= {"train": 54_000, "held_out": 6000}
    assert "**Time of a run:** 3 s, at most 3 s of a core each" in describe([whole], None).text
    assert "**Time of a run:**" not in describe([make(*RUNS[0])], None).text
