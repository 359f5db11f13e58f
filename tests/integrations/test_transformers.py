"""Runs of the Trainer on tiny models: densities, checkpoints, resuming, and a loop by hand."""

from pathlib import Path
from typing import Any

import pytest
import torch

import polarity as pol
from tests.integrations.trained import (
    METHODS,
    MODELS,
    OTHER_METHODS,
    STEPS,
    Saves,
    differences,
    end_of,
    logits,
    made,
    thresholded,
)

pytestmark = pytest.mark.filterwarnings("ignore:.*matrix entries are in reach:UserWarning")

every_run = pytest.mark.parametrize(
    ("name", "method"), [(name, method) for name in MODELS for method in METHODS]
)


@every_run
def test_every_checkpoint_has_the_exact_density_and_resumes_to_the_same_bits(
    name: str, method: str, tmp_path: Path
) -> None:
    callback, densities = METHODS[method]
    saves = resumed_from_every_checkpoint(name, callback, tmp_path)
    assert [density for density, _ in saves.values()] == densities


@pytest.mark.parametrize("method", OTHER_METHODS)
def test_every_schedule_and_form_resumes_to_the_same_bits(method: str, tmp_path: Path) -> None:
    resumed_from_every_checkpoint("gpt2", OTHER_METHODS[method], tmp_path)


def resumed_from_every_checkpoint(
    name: str, callback: dict[str, Any], tmp_path: Path
) -> dict[int, tuple[float, torch.Tensor]]:
    """Train, compare every checkpoint and every run from it; return what the checkpoints were."""
    saves = Saves()
    whole = made(name, tmp_path / "whole", callback, saves)
    whole.train()
    assert list(saves.at) == [STEPS, 2 * STEPS, 3 * STEPS]
    for step, (density, outputs) in saves.at.items():
        folder = tmp_path / "whole" / f"checkpoint-{step}"
        kind = type(whole.model)
        again, found = kind.from_pretrained(folder, output_loading_info=True)
        assert torch.equal(logits(again), outputs)
        assert not found["missing_keys"]
        assert not found["unexpected_keys"]
        if callback["attach"] is not thresholded:
            ticket = pol.load(kind.from_pretrained(folder), folder / "polarity.safetensors")
            assert torch.equal(logits(ticket), outputs)
            assert pol.density(ticket) == density
        resumed = made(name, tmp_path / "resumed", callback, seed=step)
        resumed.train(resume_from_checkpoint=str(folder))
        assert differences(end_of(whole), end_of(resumed)) == []
    return saves.at
