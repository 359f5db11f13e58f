"""Fresh networks pruned once: the smallest survivors, and what thresholds change of their signs."""

import json

import pytest
import torch

from benchmarks.__main__ import main
from benchmarks.models import build_model
from benchmarks.papers.signs import report as signs
from benchmarks.papers.signs.untrained.command import UntrainedOptions, configurations
from benchmarks.papers.signs.untrained.config import NETWORKS, UntrainedConfig
from benchmarks.papers.signs.untrained.report import describe, smallest_table
from benchmarks.papers.signs.untrained.run import measure

FC = UntrainedConfig("mnist", "fc", "glorot_normal", 0.8, "global", 0)


def magnitudes(config):
    draw = torch.Generator().manual_seed(config.stream("init"))
    model = build_model(config.arch, (1, 28, 28), 10, config.init, draw)
    return {
        f"{name}.weight": module.weight.detach()
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear)
    }


def test_the_smallest_survivor_is_the_next_after_a_fifth_of_all_weights():
    found = measure(FC)
    weights = magnitudes(FC)
    every = torch.cat([each.abs().flatten() for each in weights.values()]).sort().values
    gone = len(every) - round(0.8 * len(every))
    layers = found["layers"]
    assert min(layer["smallest"] for layer in layers) == float(every[gone])
    assert max(layer["largest_pruned"] for layer in layers) == float(every[gone - 1])
    assert sum(layer["survivors"] for layer in layers) == len(every) - gone


def test_thresholds_below_the_smallest_survivor_change_nothing_and_others_do():
    found = measure(FC)
    border = min(layer["smallest"] for layer in found["layers"])
    assert 0.001 < border < 0.1
    every = torch.cat([each.flatten() for each in magnitudes(FC).values()])
    between = ((every.abs() >= border) & (every.abs() < 0.1)).sum()
    for changed in found["changed"].values():
        small = {phi: count for phi, count in changed.items() if abs(float(phi)) <= 1e-3}
        assert len(small) == 8
        assert set(small.values()) == {0}
        # φ = 0.1 changes the positive survivors below it, φ = −0.1 the negative ones above it.
        assert changed["0.1"] + changed["-0.1"] == between
        assert min(changed["0.1"], changed["-0.1"]) > 0


def test_the_networks_are_those_that_the_experiments_train(tiny):
    config = tiny(seed=3)
    fresh = UntrainedConfig("mnist", "fc", "glorot_normal", 0.8, "global", 3)
    assert fresh.stream("init") == config.stream("init")
    configs = configurations(UntrainedOptions(seeds=(0,), scopes=("global",), torch_init=False))
    assert [(each.dataset, each.arch) for each in configs] == list(NETWORKS)
    inits = {each.arch: each.init for each in configs}
    assert (inits["fc"], inits["vgg16"]) == ("glorot_normal", "kaiming_normal")


def result(seed, smallest, changed):
    config = {
        "dataset": "mnist", "arch": "fc", "init": "glorot_normal", "prune_base": 0.8,
        "prune_scope": "global", "seed": seed, "device": "cpu", "experiment": "untrained",
    }  # fmt: skip
    layers = [
        {"name": "0.weight", "total": 10, "survivors": 8, "smallest": smallest,
         "largest_pruned": smallest / 2},
        {"name": "2.weight", "total": 4, "survivors": 0, "smallest": None, "largest_pruned": 1e-3},
    ]  # fmt: skip
    counts = {"-0.001": 0, "0.001": changed, "0.1": 5}
    return {
        "schema": 1, "experiment": "untrained", "run_id": f"untrained-{seed}", "config": config,
        "layers": layers, "changed": {"mask0": counts, "standard": counts},
        "dataset": {"name": "none"}, "versions": {"torch": "9"}, "git_commit": "0123",
        "machine": {"cpu": "abacus", "cores": 2, "threads": 1, "device": "cpu"},
        "started": "2026-01-01", "seconds": 1.0,
    }  # fmt: skip


def test_the_table_has_the_least_of_all_layers_and_seeds_and_counts_small_thresholds_alone():
    table = smallest_table([result(0, 8e-3, 0), result(1, 4e-3, 3)])
    cells = [cell.strip() for cell in table.splitlines()[2].split("|")[1:-1]]
    assert cells == ["fc, mnist", "14", "4.00e-03", "6 weights in 8 networks"]


def test_networks_are_rows_and_ways_of_drawing_and_pruning_are_columns():
    other = result(0, 2e-3, 0)
    other["config"] |= {"prune_scope": "layer", "init": "torch"}
    conv = result(0, 5e-3, 0)
    conv["config"] |= {"arch": "conv2", "dataset": "cifar10"}
    head, _, *rows = smallest_table([other, conv, result(0, 8e-3, 0)]).splitlines()
    assert "| our init, global scope | PyTorch's init, layer scope |" in head
    cells = [[cell.strip() for cell in row.split("|")[1:-2]] for row in rows]
    assert cells == [
        ["fc, mnist", "14", "8.00e-03", "2.00e-03"],
        ["conv2, cifar10", "14", "5.00e-03", "—"],
    ]


def test_a_layer_without_survivors_has_no_smallest_one():
    assert "2.00e-03" in smallest_table([result(0, 2e-3, 0)])


def test_terminals_get_the_table_alone():
    results = [result(0, 2e-3, 0)]
    assert describe(results, None).text == smallest_table(results)


def test_the_section_says_how_many_printed_thresholds_fresh_survivors_rule_out():
    text = describe([result(0, 2e-3, 0)], None, details=True).text
    # All of Tables 1 to 3 but MNIST's `mask0`, whose best threshold is 0.
    assert "11 of the 12 cells that the paper prints for `mask0` and `standard`" in text


def test_another_density_is_another_table_which_says_so():
    other = result(0, 7e-3, 0)
    other["config"]["prune_base"] = 0.5
    text = describe([result(0, 2e-3, 0), other], None, details=True).text
    papers, ours = text.split("The first pruning of")[1:]
    assert "the smallest\n20 % of the weights go" in papers
    assert "Scale: as the papers give it" in papers
    assert "the smallest\n50 % of the weights go" in ours
    assert "Scale: density 0.5 after the first round, the papers' 0.8" in ours
    assert ("2.00e-03" in papers, "7.00e-03" in ours) == (True, True)


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        (("--seeds",), "at least one seed and one scope"),
        (("--prune-base", "1"), "--prune-base 1 is not between 0 and 1"),
        (("--bf16",), "nothing is trained"),
    ],
)
def test_what_cannot_be_computed_is_refused(more, complaint, tmp_path, capsys):
    assert main(["zero_crossing", "untrained", *more, "--out", str(tmp_path / "runs")]) == 1
    assert complaint in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_the_page_on_thresholds_has_the_section(tmp_path):
    runs, pages = tmp_path / "runs", tmp_path / "pages"
    runs.mkdir()
    path = runs / "untrained-mnist-fc-seed0-x.json"
    path.write_text(json.dumps(result(0, 2e-3, 0)))
    (page,) = signs.write_pages(runs, pages)
    text = page.read_text()
    assert page.name == "zero_crossing.md"
    assert text.startswith("# Beyond the Zero-Crossing")
    assert "## Fresh networks: what a small threshold could act on" in text


@pytest.mark.slow
def test_the_command_prunes_every_network_of_the_papers(tmp_path):
    ask = ["zero_crossing", "untrained", "--seeds", "0", "--no-torch-init", "--scopes", "global"]
    assert main([*ask, "--out", str(tmp_path)]) == 0
    files = list(tmp_path.glob("untrained-*.json"))
    assert len(files) == len(NETWORKS)
    assert all(json.loads(file.read_text())["final"]["density"] < 0.801 for file in files)
