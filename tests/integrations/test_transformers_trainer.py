"""Other ways to make a SparseTrainer, and what it and SparsityCallback refuse."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import polarity as pol
from tests.integrations.trained import (
    METHODS,
    STEPS,
    WORDS,
    SparseTrainer,
    SparsityCallback,
    arguments,
    differences,
    end_of,
    examples,
    gpt2,
    logits,
    made,
    masked,
    rounds,
    transformers,
)

pytestmark = pytest.mark.filterwarnings("ignore:.*matrix entries are in reach:UserWarning")


# Other ways to make a trainer


def test_a_model_of_model_init_is_attached_to_for_every_run(tmp_path: Path) -> None:
    models = []

    def init() -> nn.Module:
        models.append(gpt2())
        return models[-1]

    run = SparseTrainer(
        model_init=init,
        args=arguments(tmp_path),
        train_dataset=examples("gpt2"),
        callbacks=[SparsityCallback(**METHODS["sign-in"][0])],
    )
    for _ in range(2):
        run.train()
        assert run.model is models[-1]
        assert pol.density(run.model) == 0.25
    assert len({id(model) for model in models}) >= 2


def test_a_callback_that_is_added_later_attaches_before_the_optimizer_is_made(
    tmp_path: Path,
) -> None:
    run = SparseTrainer(gpt2(), arguments(tmp_path), train_dataset=examples("gpt2"))
    run.add_callback(SparsityCallback(**METHODS["sign-in"][0]))
    run.train()
    assert pol.density(run.model) == 0.25
    held = {id(p) for group in run.optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for p in run.model.parameters()}


def test_a_model_that_is_attached_already_and_an_optimizer_of_ones_own_are_taken(
    tmp_path: Path,
) -> None:
    model = masked(gpt2())
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    run = SparseTrainer(
        model,
        arguments(tmp_path),
        train_dataset=examples("gpt2"),
        callbacks=[SparsityCallback(None, each_epoch=rounds("weights"), merge=True)],
        optimizers=(sgd, None),
    )
    run.train()
    assert run.optimizer.optimizer is sgd
    assert not any("parametrizations" in name for name in model.state_dict())


def test_it_combines_with_trainers_of_others(tmp_path: Path) -> None:
    class MyTrainer(SparseTrainer, transformers.Seq2SeqTrainer):
        def create_optimizer(self, model: Any = None) -> Any:
            if self.optimizer is None:
                self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1, momentum=0.9)
            return self.optimizer

    settings = transformers.Seq2SeqTrainingArguments(
        str(tmp_path), report_to=[], use_cpu=True, disable_tqdm=True, save_strategy="epoch"
    )
    callback = SparsityCallback(**METHODS["sign-in"][0], merge=True)
    run = MyTrainer(gpt2(), settings, train_dataset=examples("gpt2"), callbacks=[callback])
    run.train()
    run.train()
    again = type(run.model).from_pretrained(tmp_path / "checkpoint-12")
    assert torch.equal(logits(again), logits(run.model))


def test_without_a_callback_it_saves_and_resumes_what_is_attached(tmp_path: Path) -> None:
    class Prune(transformers.TrainerCallback):
        def on_epoch_end(self, *_: Any, model: Any, optimizer: Any, **__: Any) -> None:
            pol.imp_prune(model, 0.5, optimizer=optimizer.optimizer)

    def run(seed: int) -> Any:
        torch.manual_seed(seed)
        model = masked(gpt2())
        return SparseTrainer(
            model, arguments(tmp_path), train_dataset=examples("gpt2"), callbacks=[Prune]
        )

    whole, resumed = run(0), run(1)
    whole.train()
    resumed.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{2 * STEPS}"))
    assert differences(end_of(whole), end_of(resumed)) == []
    assert pol.density(resumed.model) == 0.125


def test_nothing_attached_is_a_trainer_as_any_other(tmp_path: Path) -> None:
    def run(kind: type) -> Any:
        torch.manual_seed(0)
        made = kind(gpt2(), arguments(tmp_path / kind.__name__), train_dataset=examples("gpt2"))
        made.train()
        return made

    plain, sparse = run(transformers.Trainer), run(SparseTrainer)
    assert differences(end_of(plain), end_of(sparse)) == []
    names = [
        sorted(path.name for path in (tmp_path / kind / "checkpoint-12").iterdir())
        for kind in ("Trainer", "SparseTrainer")
    ]
    assert names[0] == names[1]
    sparse.train(resume_from_checkpoint=True)


# What it refuses


def test_another_trainer_is_refused_before_training_with_the_remedy(tmp_path: Path) -> None:
    run = made("tied llama", tmp_path, METHODS["pruning"][0], kind=transformers.Trainer)
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    with pytest.raises(TypeError, match=r"not a SparseTrainer.*class MyTrainer\(SparseTrainer"):
        run.train()
    assert differences(before, dict(run.model.state_dict())) == []
    assert list(tmp_path.iterdir()) == []


def test_a_model_with_nothing_attached_is_refused_before_training(tmp_path: Path) -> None:
    run = made("gpt2", tmp_path, {"attach": None, "each_epoch": rounds(None)})
    with pytest.raises(ValueError, match=r"nothing is attached to the model.*attach=polarity"):
        run.train()
    assert list(tmp_path.iterdir()) == []


def test_two_callbacks_are_refused(tmp_path: Path) -> None:
    callback = METHODS["pruning"][0]
    run = made("gpt2", tmp_path, callback, SparsityCallback(**callback))
    with pytest.raises(ValueError, match="2 SparsityCallbacks, expected one"):
        run.train()


@pytest.mark.parametrize("kind", ["fsdp", "deepspeed"])
def test_sharded_parameters_are_refused(kind: str, tmp_path: Path) -> None:
    run = made("gpt2", tmp_path, METHODS["pruning"][0])
    setattr(run, f"is_{kind}_enabled", True)
    with pytest.raises(ValueError, match="whole parameters"):
        run.train()


def test_a_merged_model_in_a_wrapper_is_refused(tmp_path: Path) -> None:
    run = made("gpt2", tmp_path, METHODS["pruning"][0] | {"merge": True}, save_strategy="no")
    run.train()
    run.model_wrapped = nn.DataParallel(run.model)
    with pytest.raises(ValueError, match="make a new trainer"):
        run.train()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"attach": "weights"}, "attach='weights', expected a function"),
        ({"each_step": 3}, "each_step=3, expected a function"),
        ({"each_epoch": []}, r"each_epoch=\[\], expected a function"),
        ({"merge": 1}, "merge=1, expected True or False"),
        ({"log": None}, "log=None, expected True or False"),
    ],
)
def test_wrong_arguments_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        SparsityCallback(**wrong)


def test_words_of_the_models_fit_their_data() -> None:
    assert max(int(each["input_ids"].max()) for each in examples("bert")) < WORDS
