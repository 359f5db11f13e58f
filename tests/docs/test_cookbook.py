"""The cookbook's script for several GPUs, run by torchrun on two processes, against one process."""

import re
from pathlib import Path

import pytest
import torch
from torch import nn

import polarity as pol
from tests.docs import by_hand
from tests.helpers import torchrun

PAGE = (Path(__file__).parents[2] / "docs" / "cookbook.md").read_text(encoding="utf-8")


def blocks(heading: str) -> list[str]:
    """Return the visible Python blocks of a section."""
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return re.findall(r"^```python\n(.*?)^```", section, re.MULTILINE | re.DOTALL)


def run_on_two(script: str, folder: Path) -> None:
    (folder / "script.py").write_text(script, encoding="utf-8")
    torchrun(["script.py"], folder)


def test_two_ranks_find_the_ticket_of_one_process_with_the_whole_batch(tmp_path):
    script, statistics = blocks("Several GPUs")
    run_on_two(script.replace("if rank == 0:", f"{statistics}if rank == 0:"), tmp_path)
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
    run_on_two(shared + "\n".join(blocks("accelerate")), tmp_path)
    assert (tmp_path / "checkpoint" / "random_states_1.pkl").exists()
