"""Loops that find tickets: densities, what each returns to, and how its rounds are trained."""

import pytest
import torch

import polarity as pol
from benchmarks.papers.winning_sign import loops
from benchmarks.papers.winning_sign.networks import masked_network
from benchmarks.papers.winning_sign.states import State
from tests.benchmarks.papers.winning_sign.tiny import config, shake

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


def test_state_of_a_network_under_interpolation_holds_the_trained_norms(network):
    pol.interpolate_norms(network, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        network.bn1.weight = torch.full((16,), 3.0)
    network.train()
    network(torch.zeros(2, 1, 8, 8))
    state = State.of(network)
    assert state.weights["bn1.weight"].tolist() == [3.0] * 16
    assert network.training
