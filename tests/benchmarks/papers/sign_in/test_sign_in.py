"""The Sign-In experiment on digits: settings, one run of each method, sweep, tables and report."""

import json
import math
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

import polarity as pol
from benchmarks.__main__ import main
from benchmarks.harness.command_line import RunOptions
from benchmarks.harness.committed import found_result
from benchmarks.harness.json_lines import write_lines
from benchmarks.harness.results import load_results, write_result
from benchmarks.models.networks import build_network
from benchmarks.papers.sign_in.command import SignInOptions, configurations
from benchmarks.papers.sign_in.masks import prune_at_initialisation
from benchmarks.papers.sign_in.report import (
    accuracy_table,
    gain_table,
    period_table,
    write_pages,
)
from benchmarks.papers.sign_in.run import train_sparse
from benchmarks.papers.sign_in.summary import comparisons, published
from benchmarks.papers.sign_in.watch import product_penalty

ROOT = Path(__file__).parents[4]
CPU = RunOptions(device="cpu")
SMALL = SignInOptions(
    dataset="digits",
    width=8,
    epochs=3,
    batch_size=64,
    lr=0.1,
    densities=(0.2,),
    seeds=(0,),
    train_size=300,
    test_size=100,
    sharpness_images=0,
    rescale_until=3,
    where=CPU,
)
WORDS = ["--width", "8", "--epochs", "1", "--batch-size", "64", "--densities", "0.2", "--quiet"]
WORDS += ["--train-size", "200", "--test-size", "50", "--sharpness-images", "0", "--device", "cpu"]


def one(method, **changes):
    (config,) = configurations(replace(SMALL, methods=(method,), **changes))
    return config


def masked(config, data):
    generator = torch.Generator().manual_seed(config.stream("init"))
    model = build_network(config.arch, data.shape, 10, width=8, generator=generator)
    prune_at_initialisation(model, data, config)
    return model


def test_the_defaults_are_the_papers_settings():
    runs = configurations(SignInOptions(dataset="cifar10", where=CPU))
    assert len(runs) == 3 * 3 * 3
    random, sign_in, mv = runs[:3]
    assert (random.method, sign_in.method, mv.method) == ("random", "random+sign_in", "random+mv")
    assert {each.density for each in runs} == {0.2, 0.1, 0.05}
    for each in runs[:3]:
        assert (each.arch, each.lr, each.epochs, each.batch_size) == ("resnet20", 0.2, 150, 512)
        assert (each.schedule, each.optimizer, each.momentum) == ("triangular", "sgd", 0.9)
        assert (each.densities, each.augment) == ("balanced", True)
    # Table 7 overrides the weight decay of Table 6, and T2 is 75.
    assert (random.weight_decay, random.frobenius_decay, random.beta) == (1e-4, None, None)
    assert (sign_in.weight_decay, sign_in.frobenius_decay, sign_in.beta) == (0.0, 1e-4, 1.0)
    assert (sign_in.rescale_until, sign_in.rescale_period) == (75, 1)
    assert (mv.weight_decay, mv.frobenius_decay, mv.rescale_period) == (0.0, 1e-4, None)


def test_a_sweep_over_p_shares_the_runs_that_do_not_rescale():
    runs = configurations(replace(SMALL, rescale_periods=(1, 2, 5)))
    assert [(each.method, each.rescale_period) for each in runs] == [
        ("random", None),
        ("random+sign_in", 1),
        ("random+sign_in", 2),
        ("random+sign_in", 5),
        ("random+mv", None),
    ]
    assert len({each.run_id for each in runs}) == 5


def test_balanced_random_masks_have_equal_counts_and_belong_to_the_seed(digits):
    config = one("random")
    counts = [int(mask.sum()) for mask in pol.masks(masked(config, digits)).values()]
    sizes = [mask.numel() for mask in pol.masks(masked(config, digits)).values()]
    assert sum(counts) == round(0.2 * sum(sizes))
    level = max(counts)
    for count, size in zip(counts, sizes, strict=True):
        assert count == size or level - 1 <= count <= level

    def same(first, second):
        pairs = zip(pol.masks(first).values(), pol.masks(second).values(), strict=True)
        return all(torch.equal(a, b) for a, b in pairs)

    assert same(masked(config, digits), masked(one("random+sign_in"), digits))
    assert not same(masked(config, digits), masked(one("random", seeds=(1,)), digits))


@pytest.mark.parametrize("mask", ["snip", "grasp", "synflow"])
def test_scored_masks_have_the_density_over_the_whole_network(mask, digits):
    config = one(mask)
    assert config.densities is None
    model = masked(config, digits)
    total = sum(each.numel() for each in pol.masks(model).values())
    assert sum(int(each.sum()) for each in pol.masks(model).values()) == round(0.2 * total)
    # They look at the network, and so do not agree with a random mask.
    layers = {name: each.float().mean().item() for name, each in pol.masks(model).items()}
    random = pol.masks(masked(one("random"), digits))
    assert any(abs(layers[n] - random[n].float().mean().item()) > 0.05 for n in layers)


@pytest.fixture(scope="module")
def outcomes():
    from benchmarks.harness.data import load_dataset

    torch.set_num_threads(1)
    data = load_dataset("digits", train_size=300, test_size=100, holdout=0)
    methods = ("random", "random+sign_in", "random+mv")
    return {method: train_sparse(one(method, sharpness_images=64), data) for method in methods}


def test_flips_add_up(outcomes):
    for outcome in outcomes.values():
        final = outcome.final
        assert len(outcome.epochs) == 3
        assert final["flips_cumulative"] == outcome.epochs[-1]["flips_cumulative"]
        assert final["init_to_end"] == pytest.approx(outcome.epochs[-1]["flips"])
        # The warm-up is the first of three epochs: nothing has flipped twice by its end.
        first = outcome.epochs[0]
        assert first["flips"] == first["flips_cumulative"] == final["init_to_warmup"] > 0
        assert final["init_to_end"] <= final["init_to_warmup"] + final["warmup_to_end"] + 1e-12
        curve = [epoch["flips_cumulative"] for epoch in outcome.epochs]
        assert curve == sorted(curve)
        survivors = sum(layer["survivors"] for layer in outcome.layers)
        flipped = sum(layer["init_to_end"] * layer["survivors"] for layer in outcome.layers)
        assert flipped / survivors == pytest.approx(final["init_to_end"])
        assert final["density"] == pytest.approx(
            survivors / sum(x["total"] for x in outcome.layers)
        )
        assert final["density"] == pytest.approx(0.2, abs=1e-3)


def test_rescaling_restores_the_inner_scaling_and_its_absence_lets_it_shrink(outcomes):
    assert outcomes["random"].final["inner_scaling"] is None
    rescaled, free = outcomes["random+sign_in"], outcomes["random+mv"]
    # Algorithm 1 with p = 1 and T2 = 3: epochs 1 and 2 begin with it, 3 does not.
    assert [epoch["rescaled"] for epoch in rescaled.epochs] == [True, True, False]
    assert not any(epoch["rescaled"] for epoch in free.epochs)
    means = [epoch["inner_scaling"]["mean"] for epoch in free.epochs]
    assert 1 > means[0] > means[1] > means[2]
    assert rescaled.final["inner_scaling"]["mean"] > free.final["inner_scaling"]["mean"]
    # At epoch 1 there is nothing to restore yet: both have trained the same network.
    for key in ("train_loss", "test_accuracy", "flips"):
        assert rescaled.epochs[0][key] == pytest.approx(free.epochs[0][key], rel=1e-5)


def test_every_method_learns_and_has_a_sharpness(outcomes):
    for outcome in outcomes.values():
        assert outcome.epochs[-1]["train_loss"] < outcome.epochs[0]["train_loss"]
        assert outcome.final["sharpness"] == outcome.epochs[-1]["sharpness"] > 0
        assert "sharpness" not in outcome.epochs[0]


def test_the_frobenius_penalty_pulls_as_weight_decay_does(digits):
    free = train_sparse(one("random+mv", weight_decay=0.0, epochs=1, lr=0.0), digits)
    decayed = train_sparse(one("random+mv", weight_decay=0.5, epochs=1, lr=0.0), digits)
    # With a rate of zero nothing moves, whatever the penalty.
    assert decayed.epochs[0]["train_loss"] == free.epochs[0]["train_loss"]
    model = masked(config := one("random+mv", weight_decay=0.5), digits)
    theta = pol.dense_state_dict(model)
    pol.sign_in(model)
    product_penalty(config.frobenius_decay)(model).backward()
    conv = model.conv1.parametrizations.weight
    m, v, mask = conv.original0, conv.original1, pol.masks(model)["conv1.weight"]
    # d/dm of λ/2 (mv)² is λθ·v.
    expected = 0.5 * theta["conv1.weight"] * v.detach() * mask
    torch.testing.assert_close(m.grad * mask, expected, rtol=1e-4, atol=1e-6)


def test_sweep_resumes_reports_and_prints(tmp_path, capsys):
    out = tmp_path / "runs"
    words = [*WORDS, "--seeds", "0", "--dataset", "digits", "--out", str(out)]
    assert main(["sign_in", *words, "--methods", "random", "random+mv"]) == 0
    shown = capsys.readouterr().out
    assert "| Random + m⊙v" in shown
    plots = [line.split()[1] for line in shown.splitlines() if line.startswith("plot:")]
    assert len(plots) == 5
    assert all(Path(plot).stat().st_size > 5000 for plot in plots)
    stamps = {path.name: path.stat().st_mtime_ns for path in out.glob("*.json")}
    assert len(stamps) == 2

    # One result is lost, two runs are new: three are performed, one is not.
    lost = next(name for name in stamps if "mv" in name)
    before = json.loads((out / lost).read_text())
    (out / lost).unlink()
    methods = ["--methods", "random", "random+sign_in", "random+mv"]
    assert main(["sign_in", *words, *methods, "--rescale-periods", "1", "2", "--no-plot"]) == 0
    assert len(list(out.glob("*.json"))) == 4
    kept = next(name for name in stamps if name != lost)
    assert (out / kept).stat().st_mtime_ns == stamps[kept]
    again = json.loads((out / lost).read_text())
    for key in ("config", "layers", "final"):
        assert again[key] == before[key]

    assert main(["report", "--results", str(out), "--out", str(tmp_path / "pages")]) == 0
    page = (tmp_path / "pages" / "sign_in.md").read_text()
    assert page.startswith("# Sign-In to the Lottery")
    assert "Rescale period p: Random + Sign-In at density 0.2" in page
    for line in page.splitlines():
        if line.startswith("!["):
            assert (tmp_path / "pages" / line.split("(")[-1].rstrip(")")).is_file()


def test_runs_that_a_committed_file_holds_are_not_performed_again(tmp_path, monkeypatch, capsys):
    words = [*WORDS, "--seeds", "0", "--dataset", "digits", "--methods", "random", "--no-plot"]
    assert main(["sign_in", *words, "--out", str(tmp_path / "first")]) == 0
    (path,) = (tmp_path / "first").glob("*.json")
    write_lines(tmp_path / "sign_in.jsonl", [json.loads(path.read_text())])
    monkeypatch.setattr(found_result, "__defaults__", (tmp_path,))
    assert main(["sign_in", *words, "--out", str(tmp_path / "second")]) == 0
    assert list((tmp_path / "second").glob("*.json")) == []
    assert "| Random" in capsys.readouterr().out


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


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--densities", "0"), "--densities"),
        (("--rescale-periods", "0"), "at least 1"),
        (("--beta", "0"), "--beta"),
        (("--arch", "resnet18", "--width", "8"), "one width"),
        (("--dataset", "mnist", "--data-root", "nowhere"), "--data-root"),
    ],
)
def test_mistakes_are_told_in_one_line(words, message, tmp_path, capsys):
    out = tmp_path / "runs"
    assert main(["sign_in", *words, "--out", str(out)]) == 1
    told = capsys.readouterr().err
    assert told.startswith("error: ")
    assert message in told
    assert told.count("\n") == 1
    assert not out.exists()


def test_the_theory_section_is_a_part_of_its_paper(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["sign_in", "theory", "--help"])
    assert stopped.value.code == 0
    assert "theory section" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stopped:
        main(["sign_in", "--help"])
    assert stopped.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    for option in ("methods", "rescale-periods", "rescale-until", "recipe", "bf16", "sharpness"):
        assert f"--{option}" in shown
    assert "The paper never gives p" in shown


@pytest.mark.parametrize(
    ("name", "dataset", "arch"),
    [("cifar10-resnet20", "cifar10", "resnet20"), ("cifar100-resnet18", "cifar100", "resnet18")],
)
def test_a_recipes_name_stands_for_its_data_set_and_network(name, dataset, arch):
    runs = configurations(SignInOptions(recipe=name, where=CPU))
    assert {(run.dataset, run.arch) for run in runs} == {(dataset, arch)}


@pytest.mark.parametrize("more", [("--dataset", "cifar10"), ("--arch", "resnet8")])
def test_a_recipe_with_another_data_set_or_network_is_refused(more, tmp_path, capsys):
    ask = ["sign-in", "--recipe", "cifar100-resnet18", *more, "--out", str(tmp_path / "runs")]
    assert main(ask) == 1
    said = capsys.readouterr().err
    assert "--recipe cifar100-resnet18 trains resnet18 on cifar100, not" in said
    assert "leave --dataset and --arch out" in said
    assert not (tmp_path / "runs").exists()
