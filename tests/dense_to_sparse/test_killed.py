"""Runs that were killed (SIGKILL) at random moments end with the bits of one that was not."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import polarity
from tests.dense_to_sparse.killed import KILLS, STEPS
from tests.dense_to_sparse.test_ddp import differences

CASES = [
    (kind, form, optimizer)
    for kind in ("rigl", "set", "acdc", "gradual")
    for form in ("masked", "sign_in")
    for optimizer in ("sgd", "adam")
]

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("killed")
    root = Path(__file__).parents[2]
    source = str(Path(polarity.__file__).parents[1])
    paths = os.pathsep.join([source, str(root)])
    done = subprocess.run(
        [sys.executable, "-m", "tests.dense_to_sparse.killed", str(folder), *map("/".join, CASES)],
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        cwd=root,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.mark.parametrize("place", range(len(CASES)), ids=map("-".join, CASES))
def test_a_run_killed_at_random_moments_ends_with_the_same_bits(folder: Path, place: int) -> None:
    ends: list[Any] = []
    for what in ("whole", "broken"):
        ends.append(torch.load(folder / f"{place} {what}" / "checkpoint.pt", weights_only=True))
    moments = (folder / f"{place} broken" / "killed at").read_text().split(", ")
    assert len(moments) == KILLS
    assert ends[0]["step"] == ends[1]["step"] == STEPS
    assert differences(ends[0], ends[1]) == [], f"killed at {moments}"
