"""Which runs of ours stand for which printed cells of the sign papers."""

from dataclasses import asdict

import pytest

from benchmarks.pages.cells import PAPER_SCALE, PROXY, Printed, status
from benchmarks.papers.signs.cells import found_cells
from benchmarks.papers.signs.stated import stated

SIZES = {
    **{"train": 54_000, "held_out": 6_000, "test": 10_000},
    **{"train_available": 60_000, "test_available": 10_000, "pooled_from": None},
}


@pytest.fixture
def made(tiny):
    def make(accuracy, kind="epsilon", size=0.5, seed=0, commit="c0ffee", **changes):
        whole = {"dataset": "mnist", "rounds": 10, "epochs": 10, "strategy": "mask1"}
        perturbation = ((kind, size),) if size else ()
        config = tiny(perturbation=perturbation, seed=seed, **{**whole, **changes})
        return {
            "experiment": config.experiment,
            "config": asdict(config),
            "dataset": {"name": config.dataset, "shape": [1, 28, 28], **SIZES},
            "final": {"test_accuracy": accuracy, "val_accuracy": accuracy, "density": 0.1},
            "rounds": [],
            "git_commit": commit,
        }

    return make


MASK1 = Printed("fragility_of_polarity", "table1_mnist_epsilon_best", ("mask1",), 97.4)


def test_the_best_of_the_grid_stands_for_a_cell_with_its_seeds(made):
    results = [made(97.0 + seed, size=0.0, seed=seed) for seed in (0, 1)]
    results += [made(96.0, seed=seed) for seed in (0, 1)]
    found = found_cells(results, "fragility")
    assert list(found) == [MASK1]
    ours = found[MASK1]
    assert (ours.value, ours.seeds) == ("97.50 ± 0.71", "2 seeds")
    assert ours.note == "at ε = 0, best of 2 values"
    assert status(ours) == PAPER_SCALE


def test_values_with_fewer_seeds_are_not_counted_as_those_that_the_best_was_taken_of(made):
    results = [made(97.0 + seed, size=0.0, seed=seed) for seed in (0, 1)]
    results += [made(96.0, seed=seed) for seed in (0, 1)]
    results += [made(99.0, size=0.9)]
    assert found_cells(results, "fragility")[MASK1].note == "at ε = 0, best of 2 values"


@pytest.mark.parametrize(
    "changes",
    [
        {"rounds": 9},
        {"epochs": 9},
        {"prune_base": 0.7},
        {"mix": 0.5},
        {"dataset": "digits"},
        {"survivors": "random"},
    ],
)
def test_runs_that_depart_in_one_given_setting_are_proxies(made, changes):
    ours = found_cells([made(97.0, **changes)], "fragility")[MASK1]
    assert status(ours) == PROXY
    assert len(ours.departs) == 1


def test_settings_that_the_paper_leaves_open_are_no_departures(made):
    ours = found_cells([made(97.0, optimizer="sgd", lr=0.1, device="cuda")], "fragility")[MASK1]
    assert status(ours) == PAPER_SCALE


def test_runs_nearer_to_the_paper_are_shown(made):
    results = [made(99.0, rounds=9, seed=seed) for seed in range(3)] + [made(97.0)]
    assert found_cells(results, "fragility")[MASK1].value == "97.00"


def test_another_perturbation_or_network_stands_for_no_cell(made):
    assert found_cells([made(97.0, kind="delta")], "fragility") == {}
    assert found_cells([made(97.0, dataset="mnist", arch="conv2")], "fragility") == {}


def test_code_that_was_not_committed_is_marked(made):
    ours = found_cells([made(97.0, commit="c0ffee-dirty")], "fragility")[MASK1]
    assert "computed by code that was not committed" in ours.note


def test_a_vgg_of_other_width_is_a_proxy_of_the_papers(made):
    cell = Printed("fragility_of_polarity", "table2_cifar10_delta_best", ("vgg16", "mask1"), 72.0)
    whole = {"dataset": "cifar10", "arch": "vgg16", "kind": "delta"}
    found = []
    for width in (None, 8):
        result = made(70.0, **whole, width=width)
        result["dataset"]["shape"] = [3, 32, 32]
        found.append(found_cells([result], "fragility")[cell])
    assert [status(each) for each in found] == [PAPER_SCALE, PROXY]
    assert found[1].departs == ("width of VGG 8, the paper's as published",)


def test_a_claim_is_judged_where_it_is_made_and_nowhere_else(made):
    results = [
        made(level + 0.1 * seed, size=size, seed=seed, strategy=strategy)
        for strategy in ("gradual", "mask0", "mask1", "standard")
        for size, level in ((0.0, 98.0), (0.9, 97.6))
        for seed in range(3)
    ]
    found = {(each.text[:20], each.place): each for each in stated(results, "fragility")}
    above = found["MNIST: every strateg", "MNIST, fc"]
    assert above.verdict == "holds"
    assert above.leading.departs == ()
    vgg = [each for (_, place), each in found.items() if place == "CIFAR-10, VGG"]
    assert vgg
    assert {each.verdict for each in vgg} == {"not run"}
    # digits are no MNIST.
    digits = [{**each, "config": {**each["config"], "dataset": "digits"}} for each in results]
    assert {each.verdict for each in stated(digits, "fragility")} == {"not run"}


def test_the_complexity_gradient_compares_what_flips_cost_on_two_tasks(made):
    def runs(dataset, arch, lost):
        results = [
            made(level + 0.1 * seed * (1 if size else 2), size=size, seed=seed,
                 dataset=dataset, arch=arch)
            for size, level in ((0.0, 90.0), (0.5, 90.0 - lost))
            for seed in range(3)
        ]  # fmt: skip
        for each in results:
            each["dataset"]["shape"] = [3, 32, 32] if dataset == "cifar10" else [1, 28, 28]
        return results

    def verdict(lost):
        results = [*runs("mnist", "fc", 1.0), *runs("cifar10", "conv2", lost)]
        (claim,) = [each for each in stated(results, "fragility") if "after MNIST" in each.place]
        return claim.verdict

    alone = stated(runs("mnist", "fc", 1.0), "fragility")
    assert {each.verdict for each in alone if "gradient" in each.text} == {"not run"}
    assert verdict(9.0) == "holds"
    assert verdict(0.0) == "does not hold"
