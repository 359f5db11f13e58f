"""What a run of SparseTrainer leaves: models, files, logs, and the way to another run."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import polarity as pol
from tests.integrations.trained import (
    EPOCHS,
    METHODS,
    MODELS,
    STEPS,
    Saves,
    counted,
    differences,
    logits,
    made,
    masked,
    rigl,
    transformers,
)

pytestmark = pytest.mark.filterwarnings("ignore:.*matrix entries are in reach:UserWarning")


def test_merge_leaves_a_plain_model_of_equal_outputs_that_trains_again(tmp_path: Path) -> None:
    callback = METHODS["sign-in"][0]
    run = made("tied llama", tmp_path / "merged", callback | {"merge": True})
    run.train()
    other = made("tied llama", tmp_path / "other", callback)
    other.train()
    assert run.model.state_dict().keys() == MODELS["tied llama"]().state_dict().keys()
    torch.testing.assert_close(logits(run.model), logits(other.model), rtol=0, atol=1e-6)
    run.save_model(tmp_path / "merged")
    again = type(run.model).from_pretrained(tmp_path / "merged")
    assert torch.equal(logits(again), logits(run.model))
    assert not (tmp_path / "merged" / "polarity.safetensors").exists()

    before = logits(run.model)
    run.train()
    assert not torch.equal(logits(run.model), before)
    assert run.model.state_dict().keys() == MODELS["tied llama"]().state_dict().keys()


def test_save_model_takes_away_the_masks_of_an_earlier_save(tmp_path: Path) -> None:
    run = made("gpt2", tmp_path, METHODS["pruning"][0] | {"merge": True}, save_strategy="no")
    run.save_model()
    assert (tmp_path / "polarity.safetensors").exists()
    run.train()
    run.save_model()
    assert not (tmp_path / "polarity.safetensors").exists()


def test_the_best_model_is_loaded_with_the_masks_that_it_had(tmp_path: Path) -> None:
    saves = Saves()
    settings = {"eval_strategy": "epoch", "load_best_model_at_end": True, "greater_is_better": True}
    run = made("gpt2", tmp_path, METHODS["pruning"][0], saves, save_total_limit=2, **settings)
    run.model.eval()
    run.train()
    best = run.state.best_global_step
    density, outputs = saves.at[best]
    assert torch.equal(logits(run.model), outputs)
    assert pol.density(run.model) == density
    assert len(list(tmp_path.glob("checkpoint-*"))) == 2
    assert {density for density, _ in saves.at.values()} == {0.5, 0.25}


def test_the_density_is_in_the_logs_of_the_loss(tmp_path: Path) -> None:
    run = made("gpt2", tmp_path, METHODS["pruning"][0], logging_strategy="epoch")
    run.train()
    logged = [each["polarity/density"] for each in run.state.log_history if "loss" in each]
    assert logged == [0.5, 0.25, 0.25]
    told = [each.get("polarity/survivors") for each in run.state.log_history if "loss" in each]
    total = sum(mask.numel() for mask in pol.masks(run.model).values())
    assert told == [total / 2, total / 4, None]
    assert run.state.log_history[-1]["polarity/density"] == 0.25
    silent = made("gpt2", tmp_path, METHODS["pruning"][0] | {"log": False})
    silent.train()
    assert not any(key.startswith("polarity") for each in silent.state.log_history for key in each)


def test_the_density_that_is_logged_is_that_of_soft_thresholds(tmp_path: Path) -> None:
    def attach(model: nn.Module) -> None:
        pol.dense_to_sparse.threshold_weights(model, None, decay=0.0, s0=-4.0)

    run = made("gpt2", tmp_path, {"attach": attach}, save_strategy="no")
    run.train()
    logged = run.state.log_history[-1]["polarity/density"]
    assert logged == pol.dense_to_sparse.soft_density(run.model) < 1.0


def test_a_second_run_builds_its_schedules_anew_and_those_of_the_first_act_no_more(
    tmp_path: Path,
) -> None:
    built = []

    def each_step(*given: Any) -> Any:
        built.append(rigl(*given))
        return built[-1]

    run = made("gpt2", tmp_path, {"attach": masked, "each_step": each_step})
    run.train()
    first = built[0].state_dict()
    run.train()
    assert len(built) == 2
    assert differences(built[0].state_dict(), first) == []
    assert built[1].state_dict()["step"] == EPOCHS * STEPS
    assert pol.density(run.model) == 0.25


def test_a_run_after_an_interrupted_one_starts_anew(tmp_path: Path) -> None:
    class Interrupt(transformers.TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == 5:
                raise KeyboardInterrupt

    callback, steps, epochs = counted()
    run = made("gpt2", tmp_path, callback)
    run.add_callback(Interrupt)
    with pytest.raises(KeyboardInterrupt):
        run.train()
    run.remove_callback(Interrupt)
    run.train()
    assert [each.steps for each in steps] == [5, EPOCHS * STEPS]
    assert [each.steps for each in epochs] == [1, EPOCHS]
