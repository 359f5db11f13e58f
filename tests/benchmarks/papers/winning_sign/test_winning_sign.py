"""The pipeline of "Find a Winning Sign" on digits: loops, contestants, barriers, pages."""

import json
from dataclasses import asdict, replace

import pytest
import torch

import polarity as pol
from benchmarks.harness.command_line import RunOptions
from benchmarks.harness.committed import found_result
from benchmarks.harness.json_lines import write_lines
from benchmarks.harness.place import Place
from benchmarks.harness.recipes import Recipe
from benchmarks.harness.results import result_path
from benchmarks.pages.published import transcript
from benchmarks.papers.winning_sign import loops
from benchmarks.papers.winning_sign.command import WinningSignOptions, configuration, main
from benchmarks.papers.winning_sign.config import AwsConfig
from benchmarks.papers.winning_sign.contestants import CONTESTANTS, PAIRS
from benchmarks.papers.winning_sign.grid import Chain, plan
from benchmarks.papers.winning_sign.networks import masked_network, norm_parameters
from benchmarks.papers.winning_sign.recipes import AWS, AwsRecipe, choose_recipe, small_recipe
from benchmarks.papers.winning_sign.report import accuracy_table, difference_table, write_pages
from benchmarks.papers.winning_sign.run import Pipeline
from benchmarks.papers.winning_sign.starts import start
from benchmarks.papers.winning_sign.states import State, state_path
from benchmarks.papers.winning_sign.summary import settings
from benchmarks.papers.winning_sign.sweep import sweep

CPU = RunOptions(device="cpu")
FINAL = Recipe(epochs=1, batch_size=60, lr=0.05, weight_decay=5e-4, schedule="cosine")
TINY = AwsRecipe("digits", "mixer", FINAL, warmup_epochs=1, round_epochs=1, rounds=3)


def config(**changes):
    recipe = {key: changes.pop(key) for key in list(changes) if hasattr(TINY, key)}
    return AwsConfig(replace(TINY, **recipe), seed=0, recalibrate=50, score_lr=1.0, **changes)


@pytest.fixture
def pipeline(digits, tmp_path):
    return Pipeline(digits, tmp_path)


@pytest.fixture
def network():
    model = masked_network("small_resnet", (1, 8, 8), 10, torch.Generator().manual_seed(3))
    return model


def shake(model, epochs, *, seed=0):
    """Stands for training: everything moves."""
    generator = torch.Generator().manual_seed(seed + epochs)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))


# Loops ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("loop", "warm"),
    [
        (loops.learning_rate_rewinding, True),
        (loops.find_a_winning_sign, True),
        (loops.iterative_magnitude_pruning, False),
        (loops.weight_rewinding, True),
    ],
)
def test_density_after_k_rounds_is_exact_and_masks_only_shrink(network, loop, warm):
    total = sum(mask.numel() for mask in pol.masks(network).values())
    plan_ = loops.Plan(rounds=4, warmup_epochs=5, round_epochs=2)
    trained = []

    def train(model, epochs):
        trained.append(epochs)
        shake(model, len(trained))

    previous = pol.masks(network)
    numbers = []
    for k in loop(network, train, plan_):
        numbers.append(k)
        masks = pol.masks(network)
        assert sum(int(mask.sum()) for mask in masks.values()) == round(0.8**k * total)
        assert all(bool((previous[name] | ~mask).all()) for name, mask in masks.items())
        previous = {name: mask.clone() for name, mask in masks.items()}
    assert numbers == ([0, 1, 2, 3, 4] if warm else [1, 2, 3, 4])
    assert trained == ([5] if warm else []) + [2] * 4


def test_lrr_keeps_what_was_trained_and_imp_returns_to_the_start(network):
    start_weights = pol.RewindPoint.capture(network).weights

    def distance(model):
        now = pol.RewindPoint.capture(model).weights
        return {
            name: float((now[name] - start_weights[name])[mask].abs().max())
            for name, mask in pol.masks(model).items()
        }

    for k in loops.iterative_magnitude_pruning(network, shake, loops.Plan(2, round_epochs=1)):
        assert set(distance(network).values()) == {0.0}, k
    plan_ = loops.Plan(rounds=3, warmup_epochs=1, round_epochs=1)
    rounds = loops.learning_rate_rewinding(network, shake, plan_, done=2)
    assert list(rounds) == [3]
    assert min(distance(network).values()) > 0


def test_weight_rewinding_returns_to_the_end_of_its_warm_up(network):
    plan_ = loops.Plan(rounds=2, warmup_epochs=7, round_epochs=1)
    rounds = loops.weight_rewinding(network, shake, plan_)
    assert next(rounds) == 0
    warm = pol.RewindPoint.capture(network).weights
    assert list(rounds) == [1, 2]
    now = pol.RewindPoint.capture(network).weights
    masks = pol.masks(network)
    for name, value in now.items():
        expected = warm[name] * masks[name] if name in masks else warm[name]
        assert torch.equal(value, expected), name


def test_aws_trains_between_trained_and_initial_norms_and_lrr_does_not(network):
    seen = []

    def train(model, epochs):
        shake(model, epochs)
        model.train()
        with torch.no_grad():
            model(torch.zeros(2, 1, 8, 8))
            drawn = model.bn1.weight.clone()
            model.eval()
            seen.append(torch.equal(drawn, model.bn1.weight))

    plan_ = loops.Plan(rounds=1, warmup_epochs=1, round_epochs=1)
    list(loops.learning_rate_rewinding(network, train, plan_))
    assert seen == [True, True]
    fresh = masked_network("small_resnet", (1, 8, 8), 10, torch.Generator().manual_seed(3))
    generator = torch.Generator().manual_seed(0)
    list(loops.find_a_winning_sign(fresh, train, plan_, generator=generator))
    assert seen[2:] == [False, False]


# Training ---------------------------------------------------------------------------------------


@pytest.fixture
def optimizers(monkeypatch):
    """Every optimizer that is made, with whether its state was empty and the rate of each step."""
    import benchmarks.harness.recipe_training as module

    made, make = [], module.make_optimizer

    def recording(*arguments, **options):
        optimizer = make(*arguments, **options)
        entry = {"fresh": not optimizer.state, "rates": []}
        optimizer.register_step_pre_hook(
            lambda opt, *_: entry["rates"].append(opt.param_groups[0]["lr"])
        )
        made.append(entry)
        return optimizer

    monkeypatch.setattr(module, "make_optimizer", recording)
    return made


@pytest.mark.parametrize("finder", ["lrr", "aws"])
def test_rounds_rebuild_the_optimizer_and_keep_its_rate(pipeline, optimizers, finder):
    base = config(round_epochs=2)
    result = pipeline.result(base.task("rounds", finder))
    assert len(optimizers) == 4  # the warm-up and three rounds
    assert all(entry["fresh"] for entry in optimizers)
    assert {rate for entry in optimizers for rate in entry["rates"]} == {0.05}
    total = result["records"][0]["total"]
    survivors = [record["survivors"] for record in result["records"]]
    assert survivors == [total, *(round(0.8**k * total) for k in (1, 2, 3))]

    optimizers.clear()
    pipeline.result(base.task("final", finder, 3))
    (final,) = optimizers
    assert final["rates"][0] == 0.05
    assert final["rates"][-1] < 0.05 / 2
    assert final["rates"] == sorted(final["rates"], reverse=True)


def test_a_longer_dense_baseline_has_the_epochs_of_a_found_network(pipeline):
    task = config(warmup_epochs=2).task("final", "dense_longer", 3)
    result = pipeline.result(task)
    assert (result["epochs"], result["density"]) == (2 + 3 * 1 + 1, 1.0)


def test_the_dense_baseline_is_not_pruned(pipeline):
    result = pipeline.result(config().task("final", "dense"))
    assert result["density"] == 1
    assert result["survivors"] == result["total"]
    trained = pipeline.trained(config().task("final", "dense"))
    assert all(bool(mask.all()) for mask in trained.masks.values())


# Contestants ------------------------------------------------------------------------------------


@pytest.fixture
def found(network):
    """A pruned network whose norms have moved, some of them below zero."""
    shake(network, 1)
    pol.imp_prune(network, density=0.3)
    with torch.no_grad():
        network.bn1.weight[0] = -0.5
    return network


@pytest.fixture
def fresh():
    return masked_network("small_resnet", (1, 8, 8), 10, torch.Generator().manual_seed(9))


def test_a_signed_start_has_the_tickets_signs_and_the_fresh_magnitudes(found, fresh):
    magnitudes = {name: v.abs() for name, v in pol.RewindPoint.capture(fresh).weights.items()}
    begun = start("init+lrr_sign", found, fresh)
    theirs, masks = pol.RewindPoint.capture(found).weights, pol.masks(found)
    now = pol.RewindPoint.capture(begun).weights
    for name, mask in masks.items():
        expected = torch.sign(theirs[name]) * magnitudes[name] * mask
        assert torch.equal(now[name], expected), name
        assert torch.equal(pol.masks(begun)[name], mask)
    for name in norm_parameters(begun):
        assert torch.equal(now[name].abs(), magnitudes[name])  # norms and the rest stay fresh


def test_a_masked_start_keeps_its_own_signs(found, fresh):
    before = pol.RewindPoint.capture(fresh).weights
    now = pol.RewindPoint.capture(start("init+lrr_mask", found, fresh)).weights
    for name, mask in pol.masks(found).items():
        assert torch.equal(now[name], before[name] * mask), name


def test_norms_come_along_in_figure_2_and_their_signs_in_appendix_a(found, fresh):
    theirs = {name: found.get_parameter(name).detach() for name in norm_parameters(found)}
    kept = start("init+lrr_sign+norms", found, fresh)
    assert all(torch.equal(kept.get_parameter(name), value) for name, value in theirs.items())
    signed = start("init+lrr_sign+norm_signs", found, fresh)
    for name, value in theirs.items():
        size = 0.1 if name.endswith("bias") else 1.0
        assert torch.equal(signed.get_parameter(name), size * torch.sign(value)), name
    assert float(signed.bn1.weight[0].detach()) == -1.0
    unsigned = start("init+lrr_sign+norm_bias", found, fresh)
    assert torch.equal(unsigned.bn1.bias, torch.full((16,), 0.1))
    assert torch.equal(unsigned.bn1.weight, torch.ones(16))


def test_the_official_ticket_lends_the_classifiers_signs_too(found, fresh):
    plain = fresh.fc.weight.detach().clone()
    assert torch.equal(start("init+lrr_sign", found, fresh).fc.weight, plain)
    official = start("init+lrr_sign", found, fresh, official=True)
    expected = plain.abs() * torch.sign(found.fc.weight)
    assert torch.equal(official.fc.weight, expected)


def test_a_final_training_leaves_every_pruned_weight_at_zero(pipeline):
    task = config().task("final", "init+aws_sign", 3)
    result = pipeline.result(task)
    trained = pipeline.trained(task)
    ticket = pipeline.found(config(), "aws", 3)
    for name, mask in ticket.masks.items():
        assert torch.equal(trained.masks[name], mask)
        assert not trained.weights[name][~mask].any()
    assert 0 < result["signs_kept"] <= 1


def test_contestants_of_one_seed_share_initialisation_and_order_and_differ_over_seeds():
    one, two = config(), replace(config(), seed=1)
    assert one.stream("fresh") == one.task("final", "lrr", 3).stream("fresh")
    streams = [c.stream(s) for c in (one, two) for s in ("init", "fresh", "other", "order0")]
    assert len(set(streams)) == len(streams)


# Barriers ---------------------------------------------------------------------------------------


def test_ends_of_a_path_are_the_trained_networks(pipeline):
    # Without batch norm nothing is computed anew, so the ends are exactly those networks.
    base = config()
    path = pipeline.result(base.task("barrier", "noise:init+lrr_sign", 3))
    ends = [pipeline.result(base.task("final", "init+lrr_sign", 3, order)) for order in (0, 1)]
    for error, end in zip((path["errors"][0], path["errors"][-1]), ends, strict=True):
        assert error == pytest.approx(100 - end["test_accuracy"])
    mean = sum(100 - end["test_accuracy"] for end in ends) / 2
    assert path["barrier"] == pytest.approx(max(path["errors"]) - mean)
    assert len(path["alphas"]) == 11
    first, second = (pipeline.trained(base.task("final", "init+lrr_sign", 3, o)) for o in (0, 1))
    assert not torch.equal(first.weights["embed.weight"], second.weights["embed.weight"])


def test_every_pair_names_contestants_that_exist():
    for pair, ends in PAIRS.items():
        for what, name, _ in ends:
            assert name in CONTESTANTS, pair
            assert what in ("final", "found", "initial-norms")
    # A solution is the one that the ticket came from.
    assert PAIRS["solution:init+aws_sign"][0] == ("final", "aws", 0)
    assert PAIRS["solution:init+lrr_sign+norms"][0] == ("final", "lrr", 0)
    assert [end[1] for end in PAIRS["two-inits:aws_sign"]] == ["init+aws_sign", "other+aws_sign"]
    assert [end[2] for end in PAIRS["two-inits:aws_sign"]] == [0, 1]


def test_initial_norms_replace_norms_alone(pipeline):
    base = config(arch="small_resnet")
    state = pipeline.found(base, "lrr", 3).weights
    replaced = pipeline._end(base.task("barrier", "norms:lrr", 3), "initial-norms", "lrr", 0)
    for name, value in replaced.items():
        if "bn" in name and name.endswith(("weight", "bias")):
            assert torch.equal(value, torch.full_like(value, float(name.endswith("weight"))))
        elif "downsample.1" not in name:
            assert torch.equal(value, state[name]), name


# Resuming ---------------------------------------------------------------------------------------


def _records(result):
    return [{k: v for k, v in record.items() if k != "seconds"} for record in result["records"]]


@pytest.mark.parametrize("finder", ["lrr", "aws", "imp", "wr", "gem_miner"])
def test_a_killed_finder_goes_on_as_if_it_had_not_been(digits, tmp_path, finder):
    task = config(arch="small_resnet").task("rounds", finder)
    whole = Pipeline(digits, tmp_path / "whole")
    expected = whole.result(task)
    cut = Pipeline(digits, tmp_path / "cut")
    cut.result(task)
    result_path(cut.out, task).unlink()
    for k in (2, 3):
        state_path(cut.out, task, k).unlink()
    resumed = cut.result(task)
    assert _records(resumed) == _records(expected)
    for name, value in whole.found(task, finder, 3).weights.items():
        assert torch.equal(cut.found(task, finder, 3).weights[name], value), name


def damaged(path, how):
    """Damage a state as a full disk or another program does."""
    content = path.read_bytes()
    other = b"\x02\x00\x00\x00\x00\x00\x00\x00{}"  # a sound file, of something else
    path.write_bytes({"cut": content[:-1], "text": b"no state", "other": other, "empty": b""}[how])
    return path


PLACES = [("lrr", 0), ("lrr", 1), ("lrr", 3), ("wr", 0)]
DAMAGES = ["cut", "text", "other", "empty"]


@pytest.mark.parametrize(
    ("how", "finder", "k"),
    [
        # Every damage and every place once; all pairs of them take long.
        pytest.param(how, *where, marks=() if number == place else pytest.mark.slow)
        for number, how in enumerate(DAMAGES)
        for place, where in enumerate(PLACES)
    ],
)
def test_a_damaged_round_is_named_and_set_aside_and_found_again(
    digits, tmp_path, capsys, finder, k, how
):
    pipeline, task = Pipeline(digits, tmp_path), config().task("rounds", finder)
    expected = pipeline.result(task)
    wanted = pipeline.found(task, finder, 3).weights
    path = damaged(state_path(tmp_path, task, k), how)
    result_path(tmp_path, task).unlink()
    assert _records(pipeline.result(task)) == _records(expected)
    told = capsys.readouterr().err
    assert told.startswith(f"{path} cannot be resumed from")
    assert path.with_name(f"{path.name}.damaged").is_file()
    found = pipeline.found(task, finder, 3).weights
    assert all(torch.equal(found[name], value) for name, value in wanted.items())


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_network_is_named_and_set_aside_and_trained_again(digits, tmp_path, capsys, how):
    pipeline, task = Pipeline(digits, tmp_path), config().task("final", "lrr", 2)
    wanted = pipeline.trained(task).weights
    for path in (state_path(tmp_path, task), state_path(tmp_path, task.task("rounds", "lrr"), 2)):
        damaged(path, how)
    trained = pipeline.trained(task).weights
    assert all(torch.equal(trained[name], value) for name, value in wanted.items())
    assert capsys.readouterr().err.count("cannot be resumed from") == 2


def test_results_stay_valid_when_their_networks_are_deleted(pipeline, tmp_path):
    base = config()
    first = pipeline.result(base.task("final", "lrr", 2))
    for path in (tmp_path / "states").iterdir():
        path.unlink()
    written = result_path(tmp_path, base.task("rounds", "lrr")).stat().st_mtime_ns
    assert pipeline.result(base.task("final", "lrr", 2)) == first
    assert not list((tmp_path / "states").iterdir())
    # What is needed again is found again, and nothing is written twice.
    pipeline.result(base.task("final", "init+lrr_sign", 2))
    assert result_path(tmp_path, base.task("rounds", "lrr")).stat().st_mtime_ns == written


def test_results_that_a_committed_file_holds_are_not_computed_again(
    pipeline, tmp_path, monkeypatch
):
    task = config().task("final", "dense")
    committed = tmp_path / "committed"
    write_lines(committed / "winning_sign.jsonl", [pipeline.result(task) | {"test_accuracy": -1.0}])
    result_path(tmp_path, task).unlink()
    monkeypatch.setattr(found_result, "__defaults__", (committed,))
    assert pipeline.result(task)["test_accuracy"] == -1.0
    assert not result_path(tmp_path, task).exists()
    # A sweep has nothing to do, and asks for no data.
    assert sweep([Chain((task,))], Place(tmp_path / "empty", data_root=tmp_path / "none")) == []


def test_state_of_a_network_under_interpolation_holds_the_trained_norms(network):
    pol.interpolate_norms(network, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        network.bn1.weight = torch.full((16,), 3.0)
    network.train()
    network(torch.zeros(2, 1, 8, 8))
    state = State.of(network)
    assert state.weights["bn1.weight"].tolist() == [3.0] * 16
    assert network.training


# Recipes, options and pages -------------------------------------------------------------------


def test_recipes_are_those_of_the_paper():
    printed = transcript("find_a_winning_sign")["setup"]
    small, large = printed["cifar100_tinyimagenet"], printed["imagenet"]
    for name, recipe in AWS.items():
        expected = large if recipe.dataset == "imagenet" else small
        assert recipe.warmup_epochs == expected["warmup_epochs"], name
        assert recipe.round_epochs == expected["epochs_per_round"], name
        assert recipe.amount == printed["prune_per_round"]
        assert name == f"{recipe.dataset}-{recipe.arch}"
        assert recipe.inside.schedule == "constant"
        if recipe.dataset == "imagenet":
            arch = {"mixer_s16": "mlp_mixer"}.get(recipe.arch, recipe.arch)
            assert recipe.final.epochs == expected["final_epochs"][arch]
        else:
            assert recipe.final.epochs == expected["final_epochs"]
            assert recipe.final.batch_size == 128
            assert recipe.final.lr == (0.05 if recipe.arch == "mobilenet_v2" else 0.1)
    # Section 4.1, "Optimization".
    for arch, expected in {
        "resnet50": ("adam", 1e-3, 1e-5, 256),
        "mixer_s16": ("adam", 1e-3, 5e-5, 512),
        "mobilenet_v2": ("sgd", 0.05, 5e-5, 256),
    }.items():
        final = AWS[f"imagenet-{arch}"].final
        assert (final.optimizer, final.lr, final.weight_decay, final.batch_size) == expected
        assert final.schedule == "cosine"
    for dataset in ("cifar100", "tiny_imagenet"):
        for arch in ("resnet50", "mobilenet_v2", "shufflenet_v2", "efficientnet_b0"):
            assert f"{dataset}-{arch}" in AWS


def test_small_recipes_reach_below_a_density_of_nine_percent():
    for arch, optimizer in (("small_resnet", "sgd"), ("mixer", "adam")):
        recipe = small_recipe("cifar10", arch)
        assert 0.8**recipe.rounds < 0.09
        assert recipe.final.optimizer == optimizer
    assert not small_recipe("mnist", "mixer").final.augment


def test_a_recipes_name_stands_for_its_network_and_its_data_set():
    for name, recipe in AWS.items():
        assert choose_recipe(name, None, None) == recipe
        assert choose_recipe(name, recipe.dataset, recipe.arch) == recipe
    assert choose_recipe("paper", "cifar100", "resnet50") == AWS["cifar100-resnet50"]
    small = choose_recipe("small", None, None)
    assert (small.dataset, small.arch) == ("cifar10", "small_resnet")


@pytest.mark.parametrize(
    ("asked", "complaint"),
    [
        (("cifar100-resnet50", "cifar10", None), "trains resnet50 on cifar100, not resnet50 on"),
        (("imagenet-resnet50", None, "small_resnet"), "not small_resnet on imagenet"),
        (("paper", "mnist", "mixer"), "mnist-mixer"),
        (("paper", None, "resnet50"), "--recipe paper needs --dataset and --arch"),
        (("imagenet-vgg", None, None), "unknown recipe 'imagenet-vgg'"),
    ],
)
def test_a_recipes_name_never_trains_another_pair(asked, complaint):
    with pytest.raises(ValueError, match=complaint):
        choose_recipe(*asked)


def test_options_become_a_setting():
    base, at, barrier_at = configuration(WinningSignOptions(seeds=(4,), where=CPU))
    assert (at, barrier_at, base.seed) == ((5, 8, 11, 14), 11, 4)
    assert 0.8**barrier_at == pytest.approx(0.0859, abs=1e-4)
    _, at, barrier_at = configuration(WinningSignOptions(rounds=6, where=CPU))
    assert (at, barrier_at) == ((5, 6), 6)
    with pytest.raises(ValueError, match="round 9"):
        configuration(WinningSignOptions(rounds=6, at=(9,), where=CPU))


def test_a_plan_holds_each_run_once_and_everything_the_six_way_table_needs():
    runs = plan(config(), ("six", "norms", "gem_miner"), (1, 3), 3).runs
    assert len({run.run_id for run in runs}) == len(runs)
    finals = {(run.subject, run.round) for run in runs if run.kind == "final"}
    six = ("lrr", "aws", "init+lrr_sign", "init+aws_sign", "init+lrr_mask")
    assert ("dense", 0) in finals
    assert {(name, k) for name in six for k in (1, 3)} <= finals
    assert {run.round for run in runs if run.kind == "barrier"} == {3}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dataset": "cifar100"}, "cifar100"),
        ({"recipe": "paper"}, "digits-mixer"),
        ({"rounds": 0}, "--rounds"),
        ({"seeds": ()}, "seed"),
        ({"arch": "mobilenet_v2"}, "three channels"),
    ],
)
def test_mistakes_are_told_in_one_line(changes, message, tmp_path, capsys):
    out = tmp_path / "runs"
    where = RunOptions(out=out, data_root=tmp_path / "nowhere")
    options = replace(WinningSignOptions(dataset="digits", arch="mixer", where=where), **changes)
    assert main(options) == 1
    told = capsys.readouterr().err
    assert told.startswith("error: ")
    assert message in told
    assert told.count("\n") == 1
    assert not out.exists()


def test_the_command_prints_the_table_resumes_and_its_page_is_made_from_files(tmp_path, capsys):
    out = tmp_path / "runs"
    options = WinningSignOptions(
        dataset="digits",
        arch="mixer",
        rounds=2,
        at=(2,),
        warmup_epochs=1,
        final_epochs=1,
        train_size=200,
        test_size=100,
        recalibrate=50,
        seeds=(0, 1),
        parts=("six",),
        where=RunOptions(device="cpu", out=out, plot=False),
    )
    assert main(options) == 0
    shown = capsys.readouterr()
    for label in ("dense network", "LRR", "init + AWS sign", "init + LRR mask", "±"):
        assert label in shown.out
    assert "Error barriers" in shown.out
    written = {path: path.stat().st_mtime_ns for path in out.glob("*.json")}
    assert len(written) == shown.err.count(" s)")
    assert main(options) == 0
    assert capsys.readouterr().err == ""
    assert {path: path.stat().st_mtime_ns for path in out.glob("*.json")} == written

    (page,) = write_pages(out, tmp_path / "docs")
    text = page.read_text(encoding="utf-8")
    assert "dataset digits, the paper's imagenet; network mixer, the paper's mixer_s16" in text
    assert text.index("### Verdicts") < text.index("### Test accuracy")
    for figure in ("figure3", "paths"):
        (png,) = (tmp_path / "docs").glob(f"*-{figure}.png")
        assert png.name in text
        assert png.read_bytes()[:4] == b"\x89PNG"
    assert write_pages(tmp_path / "nothing", tmp_path / "docs") == []


def test_tables_of_made_up_results(tmp_path):
    accuracies = {
        ("dense", 0): (90.0, 92.0),
        ("aws", 3): (88.0, 90.0),
        ("init+aws_sign", 3): (87.0, 88.0),
        ("init+lrr_sign", 3): (80.0, 85.0),
    }
    results = []
    for (name, k), values in accuracies.items():
        for seed, value in enumerate(values):
            task = replace(config(), seed=seed).task("final", name, k)
            stored = json.loads(json.dumps(asdict(task)))
            assert AwsConfig.from_json(stored) == task
            density = 1.0 if k == 0 else 0.512
            results.append({"config": stored, "test_accuracy": value, "density": density})
    (outcomes,) = settings(results)
    table = accuracy_table(outcomes)
    assert "| dense network   | -              | -                   | 91.00 ± 1.41 | 1" in table
    assert "87.50 ± 0.71" in table
    # Seed by seed 7 and 3: mean 5. The three sparse rows gain 2, 1 and 5 from seed 0 to 1; what is
    # left of the six runs after the means of rows and seeds has a sum of squares of 13/3 and two
    # degrees of freedom: the half interval is 4.303 · √(2 · 13/6) / √2.
    row = next(line for line in difference_table(outcomes).splitlines() if "+5.00" in line)
    assert "(init + AWS sign) − (init + LRR sign)" in row
    assert "+5.00 [-1.33, +11.33]" in row


@pytest.mark.slow
def test_paper_scale_networks_go_through_the_pipeline(tmp_path):
    """MobileNetV2 by its CIFAR-100 recipe, shortened to a step each, on random images."""
    from benchmarks.harness.data import Dataset

    generator = torch.Generator().manual_seed(0)
    images = torch.randn(8, 3, 32, 32, generator=generator)
    labels = torch.arange(8) % 4
    data = Dataset("cifar100", 4, images, labels, images[:0], labels[:0], images, labels, 8, 8)
    recipe = AWS["cifar100-mobilenet_v2"]
    final = recipe.final.scaled(1)
    recipe = replace(recipe, warmup_epochs=1, round_epochs=1, rounds=1, final=final)
    base = AwsConfig(recipe, seed=0, recalibrate=8)
    result = Pipeline(data, tmp_path).result(base.task("final", "init+aws_sign", 1))
    assert result["survivors"] == round(0.8 * result["total"])
    assert isinstance(result["test_accuracy"], float)
