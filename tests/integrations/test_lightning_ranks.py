"""Two ranks of ``DistributedDataParallel`` under Lightning, each started as a script."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("lightning.pytorch")

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["rewinding", "Sign-In", "RigL"])
def test_two_ranks_hold_the_same_masks_and_weights_and_resume(method, tmp_path):
    paths = [str(ROOT / "src"), str(ROOT), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, "-m", "tests.integrations.ranks_of_lightning", method, str(tmp_path)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    one, other = (torch.load(tmp_path / f"rank{rank}.pt") for rank in range(2))
    torch.testing.assert_close(one["masks"], other["masks"])
    torch.testing.assert_close(one["weights"], other["weights"], rtol=0, atol=0)
    assert one["density"] == one["logged"] == (0.5 if method == "Sign-In" else 0.25)
    assert one["resumed"]
    assert other["resumed"]
