"""The cookbook's script for several GPUs, run by torchrun on two processes, against one process."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import distributed, nn

import polarity as pol
from tests.docs import by_hand

PAGE = (Path(__file__).parents[2] / "docs" / "cookbook.md").read_text(encoding="utf-8")


def blocks(heading: str) -> list[str]:
    """Return the visible Python blocks of a section."""
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return re.findall(r"^```python\n(.*?)^```", section, re.MULTILINE | re.DOTALL)


def torchrun(script: str, folder: Path) -> None:
    """Run a script on two processes, with polarity from where this test has it."""
    if not distributed.is_available():
        pytest.skip("this PyTorch has no torch.distributed")
    (folder / "script.py").write_text(script, encoding="utf-8")
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr=127.0.0.1"]
    source = str(Path(pol.__file__).parents[1])
    done = subprocess.run(
        [*run, "--nproc-per-node=2", "script.py"],
        env={
            **os.environ,
            "PYTHONPATH": source,
            "OMP_NUM_THREADS": "1",
            "CUDA_VISIBLE_DEVICES": "",
        },
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_two_ranks_find_the_ticket_of_one_process_with_the_whole_batch(tmp_path):
    script, statistics = blocks("Several GPUs")
    torchrun(script.replace("if rank == 0:", f"{statistics}if rank == 0:"), tmp_path)
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 4))
    x, y = torch.randn(64, 20), torch.randint(4, (64,))
    reference = by_hand.Run(
        plain, [lambda model: torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)]
    )
    for _ in range(3):
        reference.train(x, y)
        reference.prune(0.5)
        reference.rewind()
    reference.train(x, y)
    fresh = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 4))
    reference.assert_equal(pol.load(fresh, tmp_path / "ticket.safetensors"))


def test_the_recipe_of_accelerate_runs_on_two_ranks_as_it_stands(tmp_path):
    pytest.importorskip("accelerate")
    preamble = PAGE.split("\n## ")[0]
    (shared,) = re.findall(r"^```python\n(.*?)^```", preamble, re.MULTILINE | re.DOTALL)
    shared = shared.replace("Path(tempfile.mkdtemp())", "Path.cwd()")  # one for both ranks
    torchrun(shared + "\n".join(blocks("accelerate")), tmp_path)
    assert (tmp_path / "checkpoint" / "random_states_1.pkl").exists()
