"""The ImageNet command on ResNet-50 and tiny random images: every method, killed and resumed."""

import math
from pathlib import Path

import pytest
import torch
from PIL import Image

import polarity as pol
from benchmarks.models.networks import build_network
from benchmarks.papers.sign_in import imagenet, imagenet_checkpoint
from benchmarks.papers.sign_in.imagenet_options import ImageNetOptions, check
from tests.helpers import torchrun

ROOT = Path(__file__).parents[4]
TINY = ["--image-size", "32", "--classes", "3", "--batch-size", "4", "--workers", "0"]
SYNTHETIC = [*TINY, "--synthetic", "16"]
METHODS = {
    "random": ["--epochs", "2", "--density", "0.2"],
    # 20 steps, so that each phase of the calendar has one.
    "acdc": ["--method", "acdc", "--epochs", "5"],
    "acdc+sign_in": ["--method", "acdc", "--epochs", "5", "--sign-in", "--rescale-period", "1"],
    "rigl": ["--method", "rigl", "--epochs", "2", "--update-every", "3"],
    "rigl+sign_in": ["--method", "rigl", "--epochs", "2", "--update-every", "3", "--sign-in"],
    "str": ["--method", "str", "--epochs", "2", "--str-s0", "-8", "--str-decay", "0.3"],
}
# What each epoch ends with, and how many mask updates it had.
DENSITIES = {
    "random": [0.2] * 2,
    "acdc": [1.0] * 4 + [0.1],
    "acdc+sign_in": [1.0] * 4 + [0.1],
    "rigl": [0.1] * 2,
    "rigl+sign_in": [0.1] * 2,
}
# The first phase has 2 of the 20 steps, the next ones a step each, the last dense one 2.
UPDATES = {"acdc": [2, 4, 4, 4, 1], "acdc+sign_in": [2, 4, 4, 4, 1], "rigl": [1, 1]}
FAST = "rigl"


def run(words, *more):
    return imagenet.main(["imagenet-resnet50", *SYNTHETIC, *words, *map(str, more)])


def image_folder(root):
    """Write 16 random images for training and 4 for testing, in 3 classes."""
    draw = torch.Generator().manual_seed(0)
    for part, count in (("train", 16), ("val", 4)):
        for place in range(count):
            folder = root / part / f"class{place % 3}"
            folder.mkdir(parents=True, exist_ok=True)
            image = torch.randint(256, (40, 48, 3), generator=draw, dtype=torch.uint8)
            Image.fromarray(image.numpy()).save(folder / f"{place}.png")
    return root


def saved(path):
    """Return the weights of a file, after a look that they are those of a plain ResNet-50."""
    weights = torch.load(path, weights_only=True)
    build_network("resnet50", (3, 32, 32), 3).load_state_dict(weights)
    return weights


def density_of(weights):
    plain = build_network("resnet50", (3, 32, 32), 3)
    plain.load_state_dict(weights)
    found = pol.find_targets(plain).values()
    live = sum(int(each.weight.count_nonzero()) for each in found)
    return live / sum(each.shape.numel() for each in found)


@pytest.mark.parametrize(
    "method",
    [each if each == FAST else pytest.param(each, marks=pytest.mark.slow) for each in METHODS],
)
def test_a_run_that_was_stopped_ends_as_it_would_have_without(
    method, tmp_path, monkeypatch, capsys
):
    # Crops and flips of images from files are drawn too.
    data = ["--data", str(image_folder(tmp_path / "images"))]
    words = ["imagenet-resnet50", *TINY, *METHODS[method], *data]
    whole = imagenet.main([*words, "--save", str(tmp_path / "whole.pt")])
    assert capsys.readouterr().out.count("'epoch'") == len(whole)
    assert all(math.isfinite(record["train_loss"]) for record in whole)
    if method in DENSITIES:
        densities = [record["density"] for record in whole]
        assert densities == pytest.approx(DENSITIES[method], abs=1e-4)
        assert density_of(saved(tmp_path / "whole.pt")) == pytest.approx(densities[-1], abs=1e-3)
    if method in UPDATES:
        assert [record["mask_updates"] for record in whole] == UPDATES[method]

    test, tested = imagenet._test, []

    def stopped(*arguments):
        tested.append(1)
        if len(tested) == len(whole):  # the last epoch is trained, and not yet tested
            raise KeyboardInterrupt
        return test(*arguments)

    monkeypatch.setattr(imagenet, "_test", stopped)
    with pytest.raises(KeyboardInterrupt):
        imagenet.main([*words, "--checkpoint", str(tmp_path)])
    monkeypatch.undo()
    capsys.readouterr()
    torch.manual_seed(99)  # nothing depends on what the process drew before
    words += ["--checkpoint", str(tmp_path), "--save", str(tmp_path / "again.pt")]
    again = imagenet.main(words)
    assert capsys.readouterr().out.count("'epoch'") == 1  # the others were not made again
    assert again == whole
    one, other = saved(tmp_path / "whole.pt"), saved(tmp_path / "again.pt")
    assert list(one) == list(other)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_str_prints_its_table_and_saves_what_is_above_the_thresholds(tmp_path, capsys):
    words = ["--method", "str", "--epochs", "2", "--str-s0", "-3", "--str-decay", "0.001"]
    record = run(words, "--save", tmp_path / "merged.pt")[-1]
    assert 0.05 < record["density"] < 0.95
    assert density_of(saved(tmp_path / "merged.pt")) == pytest.approx(record["density"], abs=1e-3)
    assert "threshold" in capsys.readouterr().out


@pytest.mark.parametrize("recipe", ["imagenet-resnet50", "imagenet-deit-small"])
def test_imagenet_recipes_run_in_one_process(recipe, capsys):
    words = [recipe, "--synthetic", "8", "--image-size", "32", "--classes", "3", "--epochs", "1"]
    words += ["--batch-size", "4", "--workers", "0"]
    (record,) = imagenet.main([*words, "--sign-in", "--rescale-period", "1"])
    assert record["density"] == pytest.approx(0.1, abs=1e-3)
    assert math.isfinite(record["train_loss"])
    assert "'epoch': 1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--data", "x"], "exactly one of --data and --synthetic"),
        (["--rescale-period", "1"], "--rescale-period is for --sign-in"),
        (["--update-every", "10"], "--update-every is for --method rigl"),
        (["--method", "acdc", "--str-s0", "-8"], "--str-s0 are for --method str"),
        (["--method", "acdc", "--epochs", "4"], "a phase of the calendar 'imagenet' would have no"),
        (["--method", "rigl"], "no update within 300 of 400 steps"),
        (["--method", "str", "--density", "0.2"], "no decay is published but for density 0.1"),
        (["--method", "str", "--str-s0", "-8"], "give it as --str-decay"),
        (["--method", "str"], "the run is too short for s to come from -3200"),
        (["--batch-size", "32"], "fewer training images than a batch"),
    ],
)
def test_options_that_do_not_go_together_stop_the_command(words, said):
    every = ["--update-every", "301"] if "rigl" in words else []
    with pytest.raises(SystemExit, match=said):
        run([*words, *every])


def test_dense_to_sparse_methods_are_refused_with_another_network():
    with pytest.raises(SystemExit, match="trains it on imagenet-resnet50 alone"):
        imagenet.main(["imagenet-deit-small", "--synthetic", "8", "--method", "rigl"])


def test_a_batch_is_divided_evenly_among_processes():
    with pytest.raises(SystemExit, match="--batch-size 4 over 3 processes, expected a multiple"):
        check(ImageNetOptions(synthetic=16, batch_size=4), ranks=3)


def test_a_checkpoint_of_another_run_is_refused_by_the_options_that_differ(tmp_path):
    layer = torch.nn.Linear(2, 2)
    imagenet_checkpoint.write(tmp_path, {"seed": 0, "epochs": 3}, {"model": layer}, [{"epoch": 1}])
    kept = layer.weight.detach().clone()
    torch.nn.init.zeros_(layer.weight)
    with pytest.raises(SystemExit, match=r"another run: seed 0 there, 1 here$"):
        imagenet_checkpoint.resume(tmp_path, {"seed": 1, "epochs": 3}, {"model": layer})
    assert not layer.weight.any()
    done = imagenet_checkpoint.resume(tmp_path, {"seed": 0, "epochs": 3}, {"model": layer})
    assert done == [{"epoch": 1}]
    assert torch.equal(layer.weight, kept)
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]


def test_a_write_that_fails_leaves_the_checkpoint_before_it(tmp_path, monkeypatch):
    imagenet_checkpoint.write(tmp_path, {}, {}, [{"epoch": 1}])

    def full(content, path):
        path.write_bytes(b"half")
        raise OSError("no space")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="no space"):
        imagenet_checkpoint.write(tmp_path, {}, {}, [{"epoch": 1}, {"epoch": 2}])
    monkeypatch.undo()
    assert imagenet_checkpoint.resume(tmp_path, {}, {}) == [{"epoch": 1}]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["acdc+sign_in", "rigl", "str"])
def test_the_command_runs_and_resumes_under_torchrun(method, tmp_path):
    merged, words = tmp_path / "merged.pt", METHODS[method]
    if method == "acdc+sign_in":
        # Two images are too few for batch normalisation on a rank.
        source = ["--synthetic", "33"]
    else:
        source = ["--data", str(image_folder(tmp_path / "images"))]
    files = ["--checkpoint", str(tmp_path), "--save", str(merged)]
    words = [*TINY, *words, *source, *files, "--batch-size", "8"]
    command = ["-m", "benchmarks.papers.sign_in.imagenet", "imagenet-resnet50", *words]
    for printed in (5 if method == "acdc+sign_in" else 2, 0):  # the second call finds nothing to do
        assert torchrun(command, ROOT).count("'epoch'") == printed
        if method == "str":
            assert 0 < density_of(saved(merged)) < 1
        else:
            assert density_of(saved(merged)) == pytest.approx(0.1, abs=1e-4)
