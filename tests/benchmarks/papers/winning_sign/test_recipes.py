"""Recipes are those of the paper, and their names choose network and data set."""

import pytest

from benchmarks.pages.published import transcript
from benchmarks.papers.winning_sign.recipes import AWS, choose_recipe, small_recipe


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
