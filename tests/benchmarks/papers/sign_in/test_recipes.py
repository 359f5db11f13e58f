"""Named recipes against the paper's tables."""

from dataclasses import replace

import pytest

from benchmarks.pages.published import transcript
from benchmarks.papers.sign_in.recipes import SIGN_IN

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
