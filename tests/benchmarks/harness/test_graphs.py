"""Steps replayed as CUDA graphs: the numbers of steps taken one kernel at a time."""

from dataclasses import fields, replace

import pytest
import torch

import polarity as pol
from benchmarks.harness.command_line import RunOptions, no_graphs
from benchmarks.harness.data import Dataset
from benchmarks.harness.execution import repeatable
from benchmarks.harness.recipe_training import recipe_optimizer, train
from benchmarks.harness.recipes import Recipe
from benchmarks.harness.training import make_optimizer, train_epochs
from benchmarks.models import build_model
from benchmarks.models.resnet import cifar_resnet
from benchmarks.papers.signs.run import train_rounds


def on_gpu(data: Dataset) -> Dataset:
    moved = {
        field.name: value.cuda()
        if isinstance(value := getattr(data, field.name), torch.Tensor)
        else value
        for field in fields(data)
    }
    return Dataset(**moved)


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["adam", "sgd"])
@pytest.mark.parametrize("arch", ["fc", "conv2"])
def test_a_replayed_epoch_has_the_bits_of_an_epoch(digits, arch, name):
    data, trained = on_gpu(digits), []
    for graphs in (False, True):
        draw = torch.Generator().manual_seed(0)
        model = build_model(arch, data.shape, data.classes, None, draw).cuda()
        pol.prune(pol.mask_weights(model), pol.scores.random, density=0.5, generator=draw)
        optimizer = make_optimizer(name, model, 1e-3, graphs=graphs)
        # 60 does not divide the images: the last batch of an epoch is smaller.
        losses = [train_epochs(model, data, optimizer, 2, 60, draw, graphs=graphs) for _ in "ab"]
        trained.append((losses, pol.dense_state_dict(model)))
    (plain_losses, plain), (replayed_losses, replayed) = trained
    assert replayed_losses == plain_losses
    assert all(torch.equal(replayed[key], plain[key]) for key in plain)


@pytest.mark.gpu
def test_a_run_with_graphs_has_the_records_of_a_run(digits, tiny):
    config, data = replace(tiny(), device="cuda"), on_gpu(digits)
    plain = train_rounds(config, data)
    replayed = train_rounds(config, data, graphs=True)
    for a, b in zip(plain, replayed, strict=True):
        assert {**a, "seconds": 0} == {**b, "seconds": 0}


@pytest.mark.gpu
def test_a_replayed_sign_in_follows_its_schedule_and_is_rescaled(digits):
    data = on_gpu(digits)
    recipe = Recipe(epochs=3, batch_size=60, lr=0.05, schedule="triangular", augment=False)
    trained = []
    for graphs in (False, True):
        draw = torch.Generator().manual_seed(0)
        model = cifar_resnet(
            8, data.classes, width=4, channels=data.shape[0], generator=draw
        ).cuda()
        pol.prune(pol.mask_weights(model), pol.scores.random, density=0.5, generator=draw)
        model = pol.sign_in(model)
        optimizer = recipe_optimizer(recipe, model, graphs=graphs)
        rescaling = pol.RescaleSchedule(model, every=1, until=3, optimizer=optimizer)
        records = train(
            model, data, recipe, generator=draw, optimizer=optimizer, graphs=graphs,
            before_epoch=lambda epoch: rescaling.step(),  # noqa: B023
            penalty=lambda model: 1e-4 * pol.frobenius_decay(model),
        )  # fmt: skip
        trained.append((records, pol.inner_scaling(model)))
    (plain, plain_scaling), (replayed, scaling) = trained
    assert [each["lr"] for each in replayed] == [each["lr"] for each in plain]
    for a, b in zip(plain, replayed, strict=True):
        # The replayed rate is a float32 tensor.
        assert b["train_loss"] == pytest.approx(a["train_loss"], rel=1e-2)
    for key, value in plain_scaling.items():
        torch.testing.assert_close(scaling[key].mean(), value.mean(), rtol=0.05, atol=0.02)


@pytest.mark.gpu
def test_a_replayed_step_draws_the_alphas_of_steps(digits):
    data, drawn = on_gpu(digits), []
    recipe = Recipe(epochs=2, batch_size=60, lr=0.05)
    for graphs in (False, True):
        draw = torch.Generator().manual_seed(0)
        model = cifar_resnet(8, data.classes, width=4, channels=data.shape[0], generator=draw)
        pol.interpolate_norms(model.cuda(), generator=draw)
        train(model, data, recipe, generator=draw, graphs=graphs)
        drawn.append((pol.norm_alpha(model), pol.norm_alpha_state(model)))
    for plain, replayed in zip(*drawn, strict=True):
        assert all(torch.equal(plain[key], replayed[key]) for key in plain)


@pytest.mark.parametrize(
    ("where", "said"),
    [
        (RunOptions(device="cpu"), "--graphs needs a GPU"),
        (RunOptions(device="cpu", compile=True), "give one of the two"),
    ],
)
def test_graphs_are_refused_without_a_gpu_and_with_compile(where, said):
    assert said in no_graphs(where, True)[0]
    assert no_graphs(where, False) == []


def test_repeatable_puts_the_setting_back():
    before = torch.backends.cudnn.deterministic
    with repeatable():
        assert torch.backends.cudnn.deterministic
    assert torch.backends.cudnn.deterministic == before
