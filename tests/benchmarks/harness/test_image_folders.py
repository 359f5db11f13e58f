"""Folders of images: what is read, in which order, and how a network trains on it."""

from dataclasses import replace

import pytest
import torch
from PIL import Image
from torch import nn

from benchmarks.harness.data import Dataset
from benchmarks.harness.folder_training import evaluate, train
from benchmarks.harness.image_folders import load_folders
from benchmarks.harness.recipe_training import train as train_on_tensors
from benchmarks.harness.recipes import Recipe
from benchmarks.harness.training import evaluate as evaluate_tensors


@pytest.fixture
def images(image_root):
    return load_folders("imagenet", image_root, size=16)


def network():
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 8), nn.ReLU(), nn.Linear(8, 3))


def whole(images):
    """The same images as resident tensors."""
    order = torch.arange(len(images.train_index))
    ((x, y),) = images.training_batches(order, 100, seed=0, augment=False)
    ((tx, ty),) = images.test_batches(100)
    return Dataset("imagenet", 3, x, y, x[:0], y[:0], tx, ty, len(y), len(ty))


def test_facts_are_those_of_the_folders(images):
    assert images.shape == (3, 16, 16)
    facts = images.facts()
    assert (facts["classes"], facts["train"], facts["test"]) == (3, 12, 6)
    assert (facts["train_available"], facts["test_available"]) == (12, 6)
    tensors = whole(images)
    assert tensors.train_y.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert tensors.train_x.shape == (12, 3, 16, 16)


def test_the_size_is_the_data_sets_own_unless_another_is_asked_for(image_root):
    assert load_folders("imagenet", image_root).shape == (3, 224, 224)


def test_test_images_are_the_centre_normalised_as_imagenet(images, image_root):
    with Image.open(image_root / "imagenet" / "val" / "ash" / "0.png") as opened:
        # 20x24 is resized to 18 on its shorter side.
        small = opened.resize((21, 18), Image.BILINEAR)
    pixels = torch.frombuffer(bytearray(small.tobytes()), dtype=torch.uint8).view(18, 21, 3)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    # A margin of 2.5 pixels is rounded to 2.
    expected = ((pixels[1:17, 2:18] / 255 - mean) / std).permute(2, 0, 1)
    assert torch.allclose(whole(images).test_x[0], expected, atol=1e-5)


def test_subsets_are_drawn_once_and_keep_their_order(image_root):
    some = load_folders("imagenet", image_root, size=16, train_size=5, test_size=4)
    assert some.train_index.tolist() == sorted(set(some.train_index.tolist()))
    assert (len(some.train_index), len(some.test_index)) == (5, 4)
    again = load_folders("imagenet", image_root, size=16, train_size=5, test_size=3)
    assert torch.equal(some.train_index, again.train_index)


def test_crops_depend_on_the_seed_and_the_image_and_not_on_workers(images, image_root):
    order = torch.tensor([3, 0, 7, 11])

    def first(given, order=order, seed=5):
        return next(iter(given.training_batches(order, 4, seed=seed, augment=True)))[0]

    crops = first(images)
    assert torch.equal(first(images), crops)
    assert not torch.equal(first(images, seed=6), crops)
    # The same image has the same crop wherever it stands.
    assert torch.equal(first(images, order=order.flip(0)), crops.flip(0))
    with_workers = load_folders("imagenet", image_root, size=16, workers=2)
    assert torch.equal(first(with_workers), crops)


class Dice(torch.utils.data.Dataset):
    """Stands for images whose crops are numbers."""

    def __len__(self):
        return 6

    def __getitem__(self, place):
        return torch.rand(2), place


def test_every_image_has_crops_of_its_own(images):
    rolled = replace(images, augmented=Dice(), train_index=torch.arange(6))
    batches = rolled.training_batches(torch.arange(6), 6, seed=1, augment=True)
    ((numbers, _),) = batches
    assert len(set(numbers.flatten().tolist())) == 12


def test_reading_leaves_torchs_random_state_alone(images):
    before = torch.random.get_rng_state()
    list(images.training_batches(torch.arange(12), 5, seed=1, augment=True))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_training_is_that_on_tensors_up_to_the_order_of_a_batch(images):
    recipe = Recipe(epochs=3, batch_size=12, lr=0.05, schedule="cosine", label_smoothing=0.1)
    model, other = network(), network()

    def records(loop, model, data):
        return loop(model, data, recipe, generator=torch.Generator().manual_seed(0))

    ours, theirs = records(train, model, images), records(train_on_tensors, other, whole(images))
    # The two draw different orders, and a batch of all images differs in its rounding alone.
    for mine, its in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.allclose(mine, its, rtol=1e-4, atol=1e-6)
    assert [each["lr"] for each in ours] == [each["lr"] for each in theirs]
    assert ours[-1]["test_accuracy"] == theirs[-1]["test_accuracy"]
    assert ours[-1]["train_loss"] == pytest.approx(theirs[-1]["train_loss"], rel=1e-4)
    assert "test_accuracy" not in ours[0]


def test_the_same_seed_trains_the_same_network_and_augmentation_changes_it(images):
    def weights(augment, seed=0):
        model, draw = network(), torch.Generator().manual_seed(seed)
        recipe = Recipe(epochs=2, batch_size=4, lr=0.05, augment=augment)
        train(model, images, recipe, generator=draw)
        return model[1].weight.detach()

    assert torch.equal(weights(True), weights(True))
    assert not torch.equal(weights(True), weights(False))


def test_the_penalty_is_differentiated_and_not_recorded(images):
    def trained(**how):
        model, draw = network(), torch.Generator().manual_seed(0)
        recipe = Recipe(epochs=1, batch_size=12, lr=0.05)
        return model, train(model, images, recipe, generator=draw, **how)[0]["train_loss"]

    plain, loss = trained()
    pulled, same = trained(penalty=lambda model: 10 * model[1].weight.square().sum())
    assert loss == same
    assert pulled[1].weight.norm() < plain[1].weight.norm()


def test_evaluation_is_that_on_tensors_and_keeps_the_mode(images):
    model, tensors = network(), whole(images)
    loss, accuracy = evaluate(model.train(), images)
    assert model.training
    expected = evaluate_tensors(model, tensors.test_x, tensors.test_y)
    assert (loss, accuracy) == pytest.approx(expected, rel=1e-6)


def test_a_missing_folder_is_told_with_the_option_that_names_it(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"train and val.*--data-root") as caught:
        load_folders("imagenet", tmp_path)
    assert str(tmp_path / "imagenet") in str(caught.value)
    (tmp_path / "imagenet" / "train").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="for val, with one folder"):
        load_folders("imagenet", tmp_path)


def test_splits_of_other_classes_are_refused(tmp_path):
    picture = Image.new("RGB", (8, 8))
    for folder in ("train/ash", "train/birch", "val/ash"):
        path = tmp_path / "imagenet" / folder
        path.mkdir(parents=True)
        picture.save(path / "0.png")
    with pytest.raises(ValueError, match="train has 2 classes and val has 1"):
        load_folders("imagenet", tmp_path)


@pytest.mark.parametrize("which", ["train_size", "test_size"])
def test_more_images_than_there_are_are_refused(image_root, which):
    with pytest.raises(ValueError, match=f"{which}=99, but there are"):
        load_folders("imagenet", image_root, size=16, **{which: 99})


def test_an_unknown_name_is_refused(image_root):
    with pytest.raises(ValueError, match="known are imagenet, tiny_imagenet"):
        load_folders("cifar10", image_root)
