"""Named recipes against the paper's tables."""

import math
from dataclasses import replace

import pytest
import torch

from benchmarks.harness.schedules import make_schedule
from benchmarks.pages.published import transcript
from benchmarks.papers.sign_in.imagenet_methods import published_decay
from benchmarks.papers.sign_in.recipes import ACDC, RIGL, SIGN_IN, STR
from polarity.dense_to_sparse import acdc_switches

STEPS = 1251  # an epoch of ImageNet in batches of 1024

PUBLISHED = {
    "cifar10-resnet20": "cifar10",
    "cifar100-resnet18": "cifar100",
    "imagenet-resnet50": "imagenet_resnet50",
    "imagenet-deit-small": "imagenet_deit_small",
}


@pytest.mark.parametrize("name", list(SIGN_IN))
def test_recipes_are_those_of_tables_6_and_7(name):
    paper = transcript("sign_in_to_the_lottery")["setup"][PUBLISHED[name]]
    named = SIGN_IN[name]
    plain, part = named.plain, named.part
    assert (plain.lr, plain.weight_decay) == (paper["lr"], paper["wd"])
    assert (plain.epochs, plain.batch_size) == (paper["epochs"], paper["batch"])
    assert (part.beta, part.until) == (paper["beta"], paper["T2"])
    assert part.frobenius_decay == paper["frobenius_decay"]
    assert named.converted == replace(plain, weight_decay=paper["signin_wd"])
    # Table 6, columns Optim and LR Schedule; the loss of ImageNet from appendix D.
    adamw = name == "imagenet-deit-small"
    assert plain.optimizer == ("adamw" if adamw else "sgd")
    assert plain.momentum == 0.9
    assert plain.schedule == "triangular"
    assert plain.label_smoothing == (0.1 if name.startswith("imagenet") else 0.0)


def test_a_shorter_recipe_keeps_the_fraction_of_its_rescaling():
    short = SIGN_IN["imagenet-deit-small"].scaled(12)
    assert (short.plain.epochs, short.part.until) == (12, 9)
    assert SIGN_IN["cifar10-resnet20"].scaled(1).part.until == 1


def test_dense_to_sparse_settings_are_those_of_the_methods_own_sources():
    # The calendar of IST-DASLab/ACDC; google-research/rigl; RAIVNLab/STR, resnet50-str.yaml.
    assert (ACDC.calendar, ACDC.momentum) == ("imagenet", "dense")
    assert (RIGL.every, RIGL.until, RIGL.fraction, RIGL.replace_step) == (100, 0.75, 0.3, True)
    assert (STR.s0, STR.density) == (-3200.0, 0.1)
    switches = acdc_switches(ACDC.calendar, 100 * STEPS)
    assert [step / STEPS for step in switches] == [*range(10, 80, 5), 85]


def test_the_decay_of_str_adds_up_to_what_the_published_one_does():
    # 256 images a step; five epochs of warm-up, then half a cosine, both by the epoch.
    warm = [(epoch + 1) / 5 for epoch in range(5)]
    falling = [(1 + math.cos(math.pi * epoch / 95)) / 2 for epoch in range(95)]
    rates = 0.256 * 5005 * (sum(warm) + sum(falling))
    assert rates * 0.00002251757813 / (1 - 0.875) == pytest.approx(STR.pull, abs=0.005)

    # A run of Table 6: 1251 steps an epoch, a triangle of mean 0.52.
    recipe = SIGN_IN["imagenet-resnet50"].plain
    factor = make_schedule(recipe.schedule, 100 * STEPS)
    total = sum(factor(step) for step in range(100 * STEPS))
    assert total == pytest.approx(0.52 * 125100, rel=1e-4)
    decay = published_decay(recipe, total)
    assert decay == pytest.approx(7.237e-5, rel=1e-3)
    # With the published number itself s would hardly move.
    end = STR.s0 * math.exp(-total * recipe.lr * 2.25e-5 / (1 - recipe.momentum))
    assert end == pytest.approx(-82, abs=1)


def test_s_comes_as_far_by_sgd_as_its_decay_adds_up_to_or_the_run_is_refused():
    recipe = SIGN_IN["imagenet-resnet50"].plain
    factor = make_schedule(recipe.schedule, 2000)
    decay = published_decay(recipe, sum(factor(step) for step in range(2000)))
    s = torch.full((1,), STR.s0, dtype=torch.float64, requires_grad=True)
    sgd = torch.optim.SGD([s], lr=recipe.lr, momentum=recipe.momentum, weight_decay=decay)
    schedule = torch.optim.lr_scheduler.LambdaLR(sgd, factor)
    for _ in range(2000):
        s.grad = torch.zeros_like(s)
        sgd.step()
        schedule.step()
    assert -0.1 < s.item() < 0
    with pytest.raises(SystemExit, match="the run is too short for s to come from -3200"):
        published_decay(recipe, 0.52 * 800)
