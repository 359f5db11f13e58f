"""Readers on files made here, the split, and the real data sets where they are."""

import gzip

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.harness.data import load_dataset, read_idx, read_mosaics

COUNTS = {"train": 23, "t10k": 9}


def write_idx(path, array, zipped):
    head = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, dtype=">u4").tobytes()
    raw = head + array.tobytes()
    if zipped:
        path.with_name(path.name + ".gz").write_bytes(gzip.compress(raw))
    else:
        path.write_bytes(raw)


@pytest.fixture(params=[True, False], ids=["gz", "unpacked"])
def mnist_root(tmp_path, request):
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for split, count in COUNTS.items():
        images = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = np.arange(count, dtype=np.uint8) % 10
        write_idx(folder / f"{split}-images-idx3-ubyte", images, request.param)
        write_idx(folder / f"{split}-labels-idx1-ubyte", labels, request.param)
    return tmp_path


@pytest.fixture
def packed(tmp_path):
    """Images of known content in lossless mosaics of 2x3 tiles, the last one partly empty."""
    folder = tmp_path / "cifar10"
    folder.mkdir()
    rng = np.random.default_rng(1)
    images, labels = {}, {}
    for split, count in (("train", 14), ("test", 6)):
        images[split] = rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
        labels[split] = np.arange(count) % 10
        for number, start in enumerate(range(0, count, 6)):
            mosaic = np.zeros((64, 96, 3), dtype=np.uint8)
            for place, image in enumerate(images[split][start : start + 6]):
                top, left = 32 * (place // 3), 32 * (place % 3)
                mosaic[top : top + 32, left : left + 32] = image
            Image.fromarray(mosaic).save(folder / f"{split}-{number:03d}.webp", lossless=True)
    np.savez(folder / "labels.npz", classes=np.array([f"c{i}" for i in range(10)]), **labels)
    return folder, images, labels


def test_idx_files_are_read_with_their_shape(mnist_root):
    path = next((mnist_root / "MNIST" / "raw").glob("train-images*"))
    assert read_idx(path).shape == (COUNTS["train"], 28, 28)


def test_other_files_are_not_taken_for_idx(tmp_path):
    path = tmp_path / "picture"
    path.write_bytes(b"\x89PNG....")
    with pytest.raises(ValueError, match="not an idx file"):
        read_idx(path)


def test_mnist_from_idx(mnist_root):
    data = load_dataset("mnist", mnist_root, holdout=3)
    assert data.shape == (1, 28, 28)
    assert (len(data.train_y), len(data.val_y), len(data.test_y)) == (20, 3, 9)
    assert data.classes == 10
    assert data.train_x.dtype == torch.float32
    torch.testing.assert_close(data.train_x.mean(), torch.tensor(0.0), atol=1e-5, rtol=0)
    torch.testing.assert_close(data.train_x.std(), torch.tensor(1.0), atol=1e-5, rtol=0)


def test_mosaics_give_back_every_image_in_order(packed):
    folder, images, labels = packed
    for split in ("train", "test"):
        got, target = read_mosaics(folder, split)
        np.testing.assert_array_equal(got, images[split])
        np.testing.assert_array_equal(target, labels[split])


def test_mosaics_with_too_few_images_are_refused(packed):
    folder, _, _ = packed
    (folder / "train-002.webp").unlink()
    with pytest.raises(ValueError, match="14 labels but only 12 images"):
        read_mosaics(folder, "train")


def test_colour_images_are_normalised_per_channel(packed):
    folder, _, _ = packed
    data = load_dataset("cifar10", folder.parent, holdout=0)
    assert data.shape == (3, 32, 32)
    torch.testing.assert_close(data.train_x.mean(dim=(0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(data.train_x.std(dim=(0, 2, 3)), torch.ones(3), atol=1e-5, rtol=0)


def test_test_images_use_the_statistics_of_the_training_images(packed):
    folder, images, _ = packed
    data = load_dataset("cifar10", folder.parent, holdout=0)
    train = torch.from_numpy(images["train"]).permute(0, 3, 1, 2).float() / 255
    test = torch.from_numpy(images["test"]).permute(0, 3, 1, 2).float() / 255
    mean, std = train.mean(dim=(0, 2, 3), keepdim=True), train.std(dim=(0, 2, 3), keepdim=True)
    torch.testing.assert_close(data.test_x, (test - mean) / std, atol=1e-5, rtol=1e-5)


def test_a_resolution_averages_squares_of_pixels_before_normalisation(packed):
    folder, images, _ = packed
    data = load_dataset("cifar10", folder.parent, holdout=0, resolution=8)
    assert data.shape == (3, 8, 8)
    assert data.facts()["pooled_from"] == 32

    def averaged(split):
        pixels = images[split].astype(np.float64) / 255
        squares = pixels.reshape(len(pixels), 8, 4, 8, 4, 3).mean(axis=(2, 4))
        return torch.from_numpy(squares).permute(0, 3, 1, 2)

    train = averaged("train")
    mean, std = train.mean(dim=(0, 2, 3), keepdim=True), train.std(dim=(0, 2, 3), keepdim=True)
    for split, got in (("train", data.train_x), ("test", data.test_x)):
        expected = ((averaged(split) - mean) / std).float()
        torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)


def test_without_a_resolution_or_with_their_own_images_stay_as_they_are(packed):
    folder, _, _ = packed
    whole = load_dataset("cifar10", folder.parent, holdout=0)
    same = load_dataset("cifar10", folder.parent, holdout=0, resolution=32)
    assert torch.equal(whole.train_x, same.train_x)
    assert whole.facts()["pooled_from"] is same.facts()["pooled_from"] is None


@pytest.mark.parametrize("resolution", [0, 3, 16])
def test_a_resolution_divides_that_of_the_images(resolution):
    with pytest.raises(ValueError, match=rf"resolution={resolution}, but the images are 8x8"):
        load_dataset("digits", resolution=resolution)


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "cifar10", "cifar100"])
def test_missing_data_says_where_it_was_looked_for(name, tmp_path):
    with pytest.raises(FileNotFoundError, match="--data-root") as caught:
        load_dataset(name, tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "--download" in str(caught.value)


def test_digits_are_split_the_same_way_every_time():
    first, second = load_dataset("digits"), load_dataset("digits")
    assert (len(first.train_y), len(first.val_y), len(first.test_y)) == (1293, 144, 360)
    assert torch.equal(first.train_x, second.train_x)
    # Stratified: every class has its share of the test images.
    assert first.test_y.bincount().tolist() == pytest.approx([36] * 10, abs=2)


def test_held_out_images_are_not_trained_on():
    data = load_dataset("digits", holdout=200)
    together = torch.cat([data.train_x, data.val_x]).flatten(1)
    assert len(data.val_y) == 200
    assert len(together.unique(dim=0)) == len(together)


def test_subsets_are_random_and_stated():
    data = load_dataset("digits", train_size=300, test_size=50)
    facts = data.facts()
    assert (facts["train"], facts["held_out"], facts["test"]) == (270, 30, 50)
    assert (facts["train_available"], facts["test_available"]) == (1437, 360)
    assert len(data.train_y.unique()) == 10


@pytest.mark.parametrize("sizes", [{"train_size": 5000}, {"test_size": 0}, {"holdout": 1437}])
def test_impossible_sizes_are_refused(sizes):
    with pytest.raises(ValueError, match="images"):
        load_dataset("digits", **sizes)


def test_real_mnist(real_data):
    data = load_dataset("mnist", real_data, holdout=0)
    assert (len(data.train_y), len(data.test_y)) == (60_000, 10_000)
    assert data.train_y.bincount().tolist() == [
        5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949,
    ]  # fmt: skip
    # A black pixel is (0 - 0.1307) / 0.3081 in the published statistics.
    assert float(data.train_x.min()) == pytest.approx(-0.1307 / 0.3081, abs=1e-3)


def test_real_cifar10_test_images(real_data):
    if not (real_data / "cifar10").is_dir():
        pytest.skip("no CIFAR-10")
    images, labels = read_mosaics(real_data / "cifar10", "test")
    assert images.shape == (10_000, 32, 32, 3)
    assert np.bincount(labels).tolist() == [1000] * 10


def test_real_cifar100_test_images(real_data):
    if not (real_data / "cifar100").is_dir():
        pytest.skip("no CIFAR-100")
    images, labels = read_mosaics(real_data / "cifar100", "test")
    assert images.shape == (10_000, 32, 32, 3)
    assert np.bincount(labels).tolist() == [100] * 100


@pytest.mark.slow
def test_real_cifar100_is_loaded_whole(real_data):
    if not (real_data / "cifar100").is_dir():
        pytest.skip("no CIFAR-100")
    data = load_dataset("cifar100", real_data, holdout=0)
    assert (data.classes, data.shape) == (100, (3, 32, 32))
    assert data.train_y.bincount().tolist() == [500] * 100
    assert data.test_y.bincount().tolist() == [100] * 100
