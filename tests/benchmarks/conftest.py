"""One tiny configuration and one data set, shared by the tests of the benchmarks."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from benchmarks.harness.data import Dataset, load_dataset
from benchmarks.papers.signs.config import RunConfig

TINY = RunConfig(
    experiment="fragility",
    dataset="digits",
    arch="fc",
    strategy="gradual",
    perturbation=(("epsilon", 0.3), ("delta", 0.5)),
    seed=0,
    rounds=3,
    prune_base=0.8,
    epochs=1,
    optimizer="adam",
    lr=1.2e-3,
    momentum=0.9,
    weight_decay=0.0,
    batch_size=60,
    prune_scope="global",
    sign_scope="layer",
    mix=0.7,
    init="glorot_normal",
    keep_rest=False,
    holdout=0.1,
    train_size=300,
    test_size=100,
)


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch):
    # Sums depend on the number of threads in their last bits. The variable speaks to joblib.
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "1")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def tiny():
    """Makes a configuration that runs in a fraction of a second."""

    def make(**changes) -> RunConfig:
        return replace(TINY, **changes)

    return make


@pytest.fixture(scope="session")
def digits() -> Dataset:
    return load_dataset("digits", train_size=300, test_size=100)


@pytest.fixture(scope="session")
def image_root(tmp_path_factory) -> Path:
    """ImageNet's layout with three classes: four training images each, and two for testing."""
    root = tmp_path_factory.mktemp("images")
    draw = torch.Generator().manual_seed(0)
    for split, count in (("train", 4), ("val", 2)):
        for name in ("ash", "birch", "cedar"):
            folder = root / "imagenet" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = torch.randint(256, (20, 24, 3), generator=draw, dtype=torch.uint8)
                Image.fromarray(pixels.numpy()).save(folder / f"{number}.png")
    return root


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder with the real MNIST, where this machine has one."""
    for root in (os.environ.get("POLARITY_DATA"), "/work/shared/data"):
        if root and (Path(root) / "MNIST" / "raw").is_dir():
            return Path(root)
    pytest.skip("no MNIST: set POLARITY_DATA")


@pytest.fixture
def refused(tmp_path, capsys) -> Callable[[Callable[[Path], int], str], None]:
    """Checks that a command, given its folder, tells a mistake in one line and leaves nothing."""

    def check(command: Callable[[Path], int], message: str) -> None:
        out = tmp_path / "runs"
        assert command(out) == 1
        told = capsys.readouterr().err
        assert told.startswith("error: ")
        assert message in told
        assert told.count("\n") == 1
        assert not out.exists()

    return check
