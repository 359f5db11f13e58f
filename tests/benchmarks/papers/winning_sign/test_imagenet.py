"""The recipes whose images lie in folders, on a folder of three classes."""

import json
from dataclasses import asdict, replace

import pytest

from benchmarks.__main__ import main
from benchmarks.harness.committed import COMMITTED
from benchmarks.harness.place import Place
from benchmarks.harness.recipes import Recipe
from benchmarks.papers.winning_sign.command import WinningSignOptions, configuration
from benchmarks.papers.winning_sign.config import AwsConfig
from benchmarks.papers.winning_sign.images import load
from benchmarks.papers.winning_sign.recipes import AWS, AwsRecipe
from benchmarks.papers.winning_sign.report import describe
from benchmarks.papers.winning_sign.run import Pipeline

FINAL = Recipe(epochs=1, batch_size=8, lr=0.05, augment=True)
RECIPE = AwsRecipe("imagenet", "small_resnet", FINAL, warmup_epochs=1, round_epochs=1, rounds=1)
BASE = AwsConfig(RECIPE, seed=0, recalibrate=6, image_size=16)
TINY = (
    *("--image-size", "16", "--rounds", "1", "--warmup-epochs", "1", "--round-epochs", "1"),
    *("--final-epochs", "1", "--batch-size", "6", "--recalibrate", "6", "--workers", "0"),
    *("--seeds", "0", "--parts", "six", "--device", "cpu", "--no-plot", "--quiet"),
)


@pytest.fixture
def pipeline(image_root, tmp_path):
    return Pipeline(load(BASE, Place(tmp_path, image_root)), tmp_path)


def test_tickets_are_found_trained_and_compared_on_images_from_folders(pipeline):
    final = pipeline.result(BASE.task("final", "init+aws_sign", 1))
    assert final["survivors"] == round(0.8 * final["total"])
    assert final["dataset"]["shape"] == [3, 16, 16]
    assert (final["dataset"]["classes"], final["dataset"]["train"]) == (3, 12)
    barrier = pipeline.result(BASE.task("barrier", "noise:init+aws_sign", 1))
    assert len(barrier["errors"]) == 11
    # Six test images: every error is a multiple of a sixth.
    assert all(abs(6 * error / 100 - round(6 * error / 100)) < 1e-6 for error in barrier["errors"])


def test_a_run_repeats_bit_for_bit(image_root, tmp_path):
    def weights(folder):
        pipe = Pipeline(load(BASE, Place(folder, image_root)), folder)
        return pipe.trained(BASE.task("final", "aws", 1)).weights

    first, again = weights(tmp_path / "a"), weights(tmp_path / "b")
    assert all(bool((first[name] == again[name]).all()) for name in first)


@pytest.mark.parametrize("recipe", [name for name in AWS if not name.startswith("cifar100")])
def test_a_recipe_without_its_folder_is_refused_and_the_option_is_named(recipe, tmp_path, capsys):
    out, nowhere = tmp_path / "runs", tmp_path / "nowhere"
    assert main(["winning-sign", "--recipe", recipe, "--data-root", str(nowhere), *_to(out)]) == 1
    told = capsys.readouterr().err
    assert told.startswith(f"error: {recipe.split('-')[0]}: looked in {nowhere}")
    assert "--data-root" in told
    assert not out.exists()


def test_without_any_folder_named_nothing_else_is_trained(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("POLARITY_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    assert main(["winning-sign", "--recipe", "imagenet-resnet50", *_to(tmp_path / "runs")]) == 1
    assert "--data-root" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        (("--dataset", "cifar10"), "trains resnet50 on imagenet, not resnet50 on cifar10"),
        (("--arch", "small_resnet"), "not small_resnet on imagenet"),
        (("--workers", "-1"), "--workers must not be negative"),
        (("--image-size", "0"), "--image-size must be at least 1"),
    ],
)
def test_a_recipe_with_something_else_is_refused(more, complaint, image_root, tmp_path, capsys):
    ask = ["winning-sign", "--recipe", "imagenet-resnet50", "--data-root", str(image_root)]
    assert main([*ask, *more, *_to(tmp_path / "runs")]) == 1
    assert complaint in capsys.readouterr().err


def test_an_image_size_belongs_to_folders(tmp_path, capsys):
    assert main(["winning-sign", "--image-size", "16", *_to(tmp_path / "runs")]) == 1
    assert "cifar10 has one size" in capsys.readouterr().err


def test_replayed_steps_are_not_offered_for_folders(pipeline):
    options = WinningSignOptions(recipe="imagenet-resnet50", graphs=True)
    with pytest.raises(ValueError, match="--graphs replays steps on images in memory"):
        configuration(options)
    pipeline.graphs = True
    with pytest.raises(ValueError, match="imagenet is in files"):
        pipeline.result(BASE.task("final", "dense"))


def test_committed_runs_are_still_found_by_their_names():
    paths = sorted((COMMITTED / "winning_sign").glob("*.json"))[:20]
    for path in paths:
        stored = json.loads(path.read_text(encoding="utf-8"))
        assert "image_size" not in stored["config"]
        assert AwsConfig.from_json(stored["config"]).run_id == stored["run_id"]
    assert replace(BASE, image_size=None).digest != BASE.digest


def test_the_caption_names_small_images_and_a_folder_that_is_not_the_whole(pipeline):
    result = pipeline.result(BASE.task("final", "dense"))
    named = json.loads(json.dumps(asdict(AWS["imagenet-resnet50"])))
    result["config"]["recipe"] = named
    text = describe([result], None).text
    assert "resolution 16x16, the paper's 224x224" in text
    whole = "the paper's 1,281,167 images of 1,000 classes"
    assert f"folder of training images 12 images of 3 classes, {whole}" in text
    whole = {**result["dataset"], "shape": [3, 224, 224], "classes": 1000}
    whole |= {"train": 1_281_167, "train_available": 1_281_167}
    text = describe([{**result, "dataset": whole}], None).text
    assert "224x224" not in text
    assert "folder of training images" not in text


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["resnet50", "mobilenet_v2", "mixer_s16"])
def test_the_papers_recipes_run_end_to_end(recipe, image_root, tmp_path, capsys):
    ask = ["winning-sign", "--recipe", f"imagenet-{recipe}", "--data-root", str(image_root)]
    assert main([*ask, *TINY, "--out", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert f"## ImageNet at 16×16, 12 training images, {recipe}" in shown
    assert "resolution 16x16, the paper's 224x224" in shown
    assert "init + AWS sign" in shown
    results = [json.loads(path.read_text()) for path in tmp_path.glob("*.json")]
    assert {result["config"]["recipe"]["arch"] for result in results} == {recipe}
    assert {result["dataset"]["name"] for result in results} == {"imagenet"}


def _to(out):
    return ("--out", str(out))
