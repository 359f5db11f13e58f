"""What SparsityCallback and SparseTrainer promise: when they act, and what they refuse."""

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
    MODELS,
    STEPS,
    WORDS,
    Saves,
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
    rigl,
    rounds,
    transformers,
)

pytestmark = pytest.mark.filterwarnings("ignore:.*matrix entries are in reach:UserWarning")


class Counter:
    """A schedule that only counts."""

    def __init__(self) -> None:
        self.steps = 0

    def step(self) -> None:
        self.steps += 1

    def state_dict(self) -> dict[str, int]:
        return {"steps": self.steps}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.steps = state["steps"]


def counted(**more: Any) -> tuple[SparsityCallback, list[Counter], list[Counter]]:
    """Return a callback that counts, and the counters that it builds."""
    steps: list[Counter] = []
    epochs: list[Counter] = []

    def build(into: list[Counter]) -> Any:
        def built(*_: Any) -> Counter:
            into.append(Counter())
            return into[-1]

        return built

    callback = SparsityCallback(masked, each_step=build(steps), each_epoch=build(epochs), **more)
    return callback, steps, epochs


# When it acts


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


# What it leaves


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
