"""When SparsityCallback steps its schedules: gradients that accumulate, skips, ends of epochs."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import IterableDataset, SequentialSampler

import polarity as pol
from tests.integrations.trained import (
    BATCH,
    EPOCHS,
    EXAMPLES,
    METHODS,
    STEPS,
    SparseTrainer,
    arguments,
    counted,
    differences,
    end_of,
    examples,
    gpt2,
    made,
    masked,
    rounds,
    transformers,
)

pytestmark = pytest.mark.filterwarnings("ignore:.*matrix entries are in reach:UserWarning")


@pytest.mark.parametrize("accumulate", [1, 2, 3])
def test_schedules_are_stepped_once_for_each_accumulated_gradient_and_epoch(
    accumulate: int, tmp_path: Path
) -> None:
    callback, steps, epochs = counted()
    run = made("gpt2", tmp_path, callback, gradient_accumulation_steps=accumulate)
    run.train()
    assert steps[0].steps == run.state.global_step
    if STEPS % accumulate == 0:  # what a remainder is, versions of the Trainer see differently
        assert steps[0].steps == EPOCHS * STEPS // accumulate
    assert [each.steps for each in epochs] == [EPOCHS]


@pytest.mark.parametrize("optim", ["adamw_torch", "adamw_torch_fused"])
def test_a_step_that_a_grad_scaler_skips_is_none(optim: str, tmp_path: Path) -> None:
    callback, steps, epochs = counted()
    run = made("gpt2", tmp_path, callback, save_strategy="no", optim=optim)
    # Gradients overflow until the scale has been halved a few times.
    run.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127)
    changed = []

    class Watch(transformers.TrainerCallback):
        def on_pre_optimizer_step(self, *_: Any, model: Any, **__: Any) -> None:
            self.before = model.transformer.wpe.weight.detach().clone()

        def on_optimizer_step(self, *_: Any, model: Any, **__: Any) -> None:
            changed.append(not torch.equal(self.before, model.transformer.wpe.weight))

    run.add_callback(Watch)
    run.train()
    assert 0 < sum(changed) < len(changed) == EPOCHS * STEPS
    assert steps[0].steps == sum(changed)
    assert epochs[0].steps == EPOCHS


def test_an_epoch_that_is_cut_off_does_not_count_and_a_longer_run_ends_it(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"lr_scheduler_type": "constant", "save_strategy": "steps"}
    method = {"attach": masked, "each_epoch": rounds("weights")}
    whole = made("gpt2", tmp_path / "whole", method, max_steps=11, save_steps=6, **settings)
    whole.train()
    cut = made("gpt2", tmp_path / "cut", method, max_steps=6, save_steps=100, **settings)
    cut.train()
    assert pol.density(cut.model) == 0.5
    longer = made("gpt2", tmp_path / "cut", method, max_steps=11, save_steps=6, seed=1, **settings)
    longer.train(resume_from_checkpoint=True)
    assert pol.density(longer.model) == 0.25
    assert differences(end_of(whole)["model"], end_of(longer)["model"]) == []


def test_an_epoch_of_unknown_length_ends_with_its_data(tmp_path: Path) -> None:
    class Stream(IterableDataset):  # type: ignore[type-arg]
        def __iter__(self) -> Any:
            return iter(examples("gpt2"))

    callback, steps, epochs = counted()
    run = SparseTrainer(
        gpt2(), arguments(tmp_path, max_steps=10), train_dataset=Stream(), callbacks=[callback]
    )
    run.train()
    assert steps[0].steps == 10
    assert epochs[0].steps == 2  # the third was cut off after two of four steps


@pytest.mark.parametrize("method", ["rewinding", "rigl"])
def test_a_checkpoint_of_any_step_resumes_to_the_same_bits(method: str, tmp_path: Path) -> None:
    callback, _ = METHODS[method]
    settings: dict[str, Any] = {"save_strategy": "steps", "save_steps": 1}
    whole = made("gpt2", tmp_path / "whole", callback, **settings)
    whole.train()
    for step in range(1, EPOCHS * STEPS):
        resumed = made("gpt2", tmp_path / "resumed", callback, seed=step, **settings)
        resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / f"checkpoint-{step}"))
        assert differences(end_of(whole), end_of(resumed)) == []


def test_interpolated_norms_draw_one_value_for_each_accumulated_gradient(tmp_path: Path) -> None:
    values: list[float] = []

    class Watch(transformers.TrainerCallback):
        def on_substep_end(self, *_: Any, model: Any, **__: Any) -> None:
            values.extend(float(value) for value in pol.norm_alpha(model).values())

        on_pre_optimizer_step = on_substep_end

    settings: dict[str, Any] = {"gradient_accumulation_steps": 2, "save_strategy": "no"}
    run = made("gpt2", tmp_path, METHODS["norms"][0], Watch(), **settings)
    run.train()
    norms = len(pol.norm_alpha(run.model))
    steps = [set(values[start : start + 2 * norms]) for start in range(0, len(values), 2 * norms)]
    assert len(steps) == run.state.global_step
    assert [len(each) for each in steps] == [1] * len(steps)
    assert len(set().union(*steps)) == len(steps)


def test_a_run_equals_the_loop_by_hand(tmp_path: Path) -> None:
    class InOrder(SparseTrainer):
        def _get_train_sampler(self, train_dataset: Any = None) -> Any:
            return SequentialSampler(self.train_dataset)

    def build() -> nn.Module:
        torch.manual_seed(0)
        return gpt2().eval()

    method = {
        "attach": masked,
        "each_step": lambda model, optimizer, scheduler: pol.dense_to_sparse.GradualMagnitude(
            model, optimizer, density=0.5, begin=1, end=9, every=2
        ),
        "each_epoch": rounds("schedule"),
    }
    settings: dict[str, Any] = {"optim": "sgd", "max_grad_norm": 0.0, "weight_decay": 0.0}
    run = made("gpt2", tmp_path, method, kind=InOrder, **settings)
    run.model.load_state_dict(build().state_dict())
    for module in run.model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    run.train()

    model = masked(build())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    scheduler = transformers.get_linear_schedule_with_warmup(optimizer, 0, EPOCHS * STEPS)
    each_step = method["each_step"](model, optimizer, scheduler)
    each_epoch = method["each_epoch"](model, optimizer, scheduler)
    for _ in range(EPOCHS):
        for start in range(0, EXAMPLES, BATCH):
            rows = torch.stack([r["labels"] for r in examples("gpt2")[start : start + BATCH]])
            words = torch.tensor(rows.numel())  # the Trainer divides by all, the first ones too
            model(input_ids=rows, labels=rows, num_items_in_batch=words).loss.backward()
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
            each_step.step()
        each_epoch.step()
    for name, mask in pol.masks(model).items():
        assert torch.equal(mask, pol.masks(run.model)[name])
    for name, value in pol.dense_state_dict(model).items():
        torch.testing.assert_close(pol.dense_state_dict(run.model)[name], value)
    assert run.lr_scheduler.state_dict()["_step_count"] == scheduler.state_dict()["_step_count"]
