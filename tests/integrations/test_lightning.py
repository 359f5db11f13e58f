"""The callback for Lightning: when it attaches, steps, saves, resumes, logs and merges."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import polarity as pol
from tests.integrations.trained_by_lightning import (
    METHODS,
    Batches,
    Net,
    Saving,
    SparsityCallback,
    callback,
    mlp,
    outcome,
    pl,
    rigl,
    rounds,
    rows,
    sparse,
    trainer,
)

pytestmark = pytest.mark.filterwarnings("ignore")


class Notes(pl.callbacks.Callback):
    """Notes densities, as every hook sees them."""

    def __init__(self) -> None:
        self.density: dict[str, list[float]] = {"validation": [], "epoch": [], "step": []}

    def on_validation_end(self, trainer: Any, module: Any) -> None:
        if not trainer.sanity_checking:
            self.density["validation"].append(pol.density(module))

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        self.density["epoch"].append(pol.density(module))

    def on_train_batch_end(self, trainer: Any, module: Any, *_: Any) -> None:
        self.density["step"].append(pol.density(module))


class Counted:
    """A schedule that counts its steps."""

    def __init__(self, *given: Any) -> None:
        self.given, self.count = given, 0

    def step(self) -> None:
        self.count += 1

    def state_dict(self) -> dict[str, int]:
        return {"count": self.count}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.count = state["count"]


def counted(made: list[Counted]) -> Any:
    def build(*given: Any) -> Counted:
        made.append(Counted(*given))
        return made[-1]

    return build


def test_pruning_comes_after_validation_and_before_what_saves_at_the_end_of_an_epoch(tmp_path):
    notes = Notes()
    fitted = trainer(tmp_path, callback("rewinding"), notes)
    fitted.fit(Net(), Batches(rows), Batches(rows))
    assert notes.density["validation"] == [1.0, 0.5, 0.25]
    assert notes.density["epoch"] == [0.5, 0.25, 0.25]


def test_a_model_checkpoint_without_validation_holds_the_pruned_model(tmp_path):
    saving = pl.callbacks.ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1)
    fitted = trainer(tmp_path, callback("pruning"), saving, enable_checkpointing=True)
    fitted.fit(Net(), Batches(rows))
    found = []
    for epoch in range(3):
        model = Net()
        pol.mask_weights(model)
        state = torch.load(tmp_path / f"epoch={epoch}.ckpt", weights_only=True)["state_dict"]
        model.load_state_dict(state)
        found.append(pol.density(model))
    assert found == [0.5, 0.25, 0.25]


PLACES = ("on_train_batch_end", "on_validation_end", "on_train_epoch_end")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("place", PLACES)
def test_a_run_resumed_from_any_checkpoint_equals_an_uninterrupted_one(place, method, tmp_path):
    sparsity, saving = callback(method), Saving(tmp_path, place)
    fitted = trainer(tmp_path, sparsity, saving)
    fitted.fit(Net(), Batches(rows), Batches(rows))
    expected = outcome(fitted, sparsity)
    assert len(saving.paths) == (9 if place == "on_train_batch_end" else 3)
    for path in saving.paths:
        again = callback(method)
        resumed = trainer(tmp_path, again)
        resumed.fit(Net(), Batches(rows), Batches(rows), ckpt_path=path, weights_only=True)
        assert outcome(resumed, again) == expected


def test_a_run_is_what_the_same_calls_by_hand_make_of_it(tmp_path):
    fitted = trainer(tmp_path, callback("rewinding"))
    model = Net()
    fitted.fit(model, Batches(rows))
    net = pol.mask_weights(mlp())
    sgd = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    halving = torch.optim.lr_scheduler.StepLR(sgd, 1, 0.5)
    start = pol.RewindPoint.capture(net, sgd, halving)
    for epoch in range(3):
        batches = Batches(rows)
        batches.set_epoch(epoch)
        for x, y in batches:
            sgd.zero_grad()
            nn.functional.cross_entropy(net(x), y).backward()
            sgd.step()
        halving.step()
        if epoch < 2:
            pol.imp_prune(net, 0.5, rewind=start, optimizer=sgd, scheduler=halving)
    torch.testing.assert_close(model.net.state_dict(), net.state_dict(), rtol=0, atol=0)


def test_steps_are_counted_once_for_an_accumulated_gradient(tmp_path):
    made: list[Counted] = []
    sparsity = SparsityCallback(each_step=counted(made), each_epoch=counted(made))
    fitted = trainer(tmp_path, sparsity, accumulate_grad_batches=2)
    fitted.fit(Net(), Batches(rows))
    steps, epochs = made
    assert (steps.count, epochs.count) == (6, 3)  # the last batch of an epoch makes a step


def test_an_epoch_that_max_steps_ends_early_is_not_counted(tmp_path):
    made: list[Counted] = []
    sparsity = SparsityCallback(each_step=counted(made), each_epoch=counted(made))
    fitted = trainer(tmp_path, sparsity, max_steps=5, max_epochs=-1)
    fitted.fit(Net(), Batches(rows))
    assert [each.count for each in made] == [5, 1]


def test_limited_epochs_are_counted(tmp_path):
    made: list[Counted] = []
    sparsity = SparsityCallback(each_epoch=counted(made))
    data = TensorDataset(*rows(torch.Generator().manual_seed(0)))
    fitted = trainer(tmp_path, sparsity, limit_train_batches=2)
    fitted.fit(Net(), DataLoader(data, batch_size=2))
    assert (made[0].count, fitted.global_step) == (3, 6)


def test_schedules_are_built_with_module_optimizer_and_scheduler(tmp_path):
    made: list[Counted] = []
    model = Net()
    fitted = trainer(tmp_path, SparsityCallback(each_epoch=counted(made)), max_epochs=1)
    fitted.fit(model, Batches(rows))
    scheduler = fitted.lr_scheduler_configs[0].scheduler
    assert made[0].given == (model, fitted.optimizers[0], scheduler)


class Gan(Net):
    """Two optimizers by hand, and no scheduler."""

    def __init__(self) -> None:
        super().__init__()
        self.other = nn.Linear(6, 4)
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> None:
        for optimizer, net in zip(self.optimizers(), (self.net, self.other), strict=True):
            loss = net(batch[0]).square().mean()
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.net(batch[0])

    def configure_optimizers(self) -> Any:
        return [torch.optim.Adam(net.parameters(), lr=0.01) for net in (self.net, self.other)]


@pytest.mark.parametrize("each", ["each_epoch", "each_step"])
def test_several_optimizers_are_given_as_a_list_and_all_of_them_follow(each, tmp_path):
    def build(module: Any, optimizers: Any, scheduler: Any) -> Any:
        assert len(optimizers) == 2
        assert scheduler is None
        if each == "each_step":
            return rigl(module, optimizers, None)
        given = {"rewind": "weights", "optimizer": optimizers}
        return pol.PruneRounds(module, 0.5, every=1, rounds=2, **given)

    def given() -> SparsityCallback:
        attach = pol.mask_weights if each == "each_epoch" else sparse
        return SparsityCallback(attach, **{each: build})

    sparsity, saving, model = given(), Saving(tmp_path, "on_train_epoch_end"), Gan()
    fitted = trainer(tmp_path, sparsity, saving)
    fitted.fit(model, Batches(rows))
    assert pol.density(model) == 0.25
    for name, mask in pol.masks(model).items():
        leaf = model.get_submodule(name.rpartition(".")[0]).parametrizations.weight.original
        (state,) = (o.state[leaf] for o in fitted.optimizers if leaf in o.state)
        assert not state["exp_avg"][~mask].any()
    for path in saving.paths:
        again = given()
        resumed = trainer(tmp_path, again)
        resumed.fit(Gan(), Batches(rows), ckpt_path=path)
        assert outcome(resumed, again) == outcome(fitted, sparsity)


class Late(Net):
    """Builds its network in ``configure_model``."""

    def __init__(self) -> None:
        super().__init__(build=nn.Identity)

    def configure_model(self) -> None:
        if isinstance(self.net, nn.Identity):
            self.net = mlp()


def test_a_network_built_by_configure_model_is_attached_to_and_resumed(tmp_path):
    sparsity, saving = callback("rewinding"), Saving(tmp_path, "on_train_epoch_end")
    fitted = trainer(tmp_path, sparsity, saving)
    fitted.fit(Late(), Batches(rows))
    assert pol.density(fitted.lightning_module) == 0.25
    again = callback("rewinding")
    resumed = trainer(tmp_path, again)
    resumed.fit(Late(), Batches(rows), ckpt_path=saving.paths[0])
    assert outcome(resumed, again) == outcome(fitted, sparsity)


def test_an_inner_model_and_targets_are_pruned_alone(tmp_path):
    sparsity = SparsityCallback(
        attach=lambda module: pol.mask_weights(module, targets="net.0"),
        each_epoch=lambda module, optimizer, scheduler: [
            pol.PruneRounds(module.net, 0.5, every=1, rounds=1, optimizer=optimizer)
        ],
    )
    model = Net()
    trainer(tmp_path, sparsity).fit(model, Batches(rows))
    assert list(pol.masks(model)) == ["net.0.weight"]
    assert pol.density(model) == 0.5


def test_what_setup_adds_after_attaching_is_named_in_a_warning(tmp_path):
    class Added(Net):
        def setup(self, stage: str) -> None:
            self.head = nn.Linear(3, 3)

    with pytest.warns(UserWarning, match=r"'head\.weight' was added to Added.*configure_model"):
        trainer(tmp_path, callback("pruning"), max_epochs=1).fit(Added(), Batches(rows))


def test_a_module_without_parameters_is_refused_with_the_remedy(tmp_path):
    class Empty(Net):
        def __init__(self) -> None:
            super().__init__(build=nn.Identity)

        def setup(self, stage: str) -> None:
            self.net = mlp()

    fitted = trainer(tmp_path, callback("pruning"))
    with pytest.raises(ValueError, match=r"Empty has no parameters.*__init__ or configure_model"):
        fitted.fit(Empty(), Batches(rows))
    own = SparsityCallback(attach=None, each_epoch=rounds())
    Empty.setup = lambda self, stage: setattr(self, "net", pol.mask_weights(mlp()))
    model = Empty()
    trainer(tmp_path, own).fit(model, Batches(rows))
    assert pol.density(model) == 0.25


def test_evaluating_without_fit_attaches_and_reads_checkpoints(tmp_path):
    saving = Saving(tmp_path, "on_train_epoch_end")
    fitted = trainer(tmp_path, callback("rewinding"), saving)
    fitted.fit(Net(), Batches(rows))
    for evaluate in ("validate", "test"):
        alone = trainer(tmp_path, callback("rewinding"))
        model = Net()
        getattr(alone, evaluate)(model, Batches(rows), ckpt_path=saving.paths[-1], verbose=False)
        assert pol.density(model) == 0.25
        expected = pol.dense_state_dict(fitted.lightning_module)
        torch.testing.assert_close(pol.dense_state_dict(model), expected, rtol=0, atol=0)
        plain = Net()
        getattr(trainer(tmp_path, callback("rewinding")), evaluate)(
            plain, Batches(rows), verbose=False
        )
        assert pol.density(plain) == 1.0


def test_states_read_for_an_evaluation_are_not_continued_by_a_later_fit(tmp_path):
    saving = Saving(tmp_path, "on_train_epoch_end")
    trainer(tmp_path, callback("pruning"), saving).fit(Net(), Batches(rows))
    made: list[Counted] = []
    sparsity, model = SparsityCallback(each_epoch=counted(made)), Net()
    both = trainer(tmp_path, sparsity)
    both.test(model, Batches(rows), ckpt_path=saving.paths[0], verbose=False)
    both.fit(model, Batches(rows))
    assert [each.count for each in made] == [3]


@pytest.mark.parametrize("method", METHODS)
def test_merge_makes_the_model_plain_after_fit_and_evaluation(method, tmp_path):
    saving = pl.callbacks.ModelCheckpoint(tmp_path, "best")
    sparsity, model = callback(method, merge=True), Net()
    fitted = trainer(tmp_path, sparsity, saving, enable_checkpointing=True)
    fitted.fit(model, Batches(rows))
    assert list(model.state_dict()) == list(Net().state_dict())
    density = pol.density(model)
    assert density == (0.5 if method == "Sign-In" else 0.25)
    held = {name: value.clone() for name, value in model.state_dict().items()}
    fitted.test(model, Batches(rows), verbose=False)
    torch.testing.assert_close(model.state_dict(), held, rtol=0, atol=0)
    fitted.test(model, Batches(rows), ckpt_path="best", verbose=False)
    assert list(model.state_dict()) == list(held)
    torch.testing.assert_close(model.state_dict(), held, rtol=0, atol=0)


def test_a_second_fit_of_the_same_trainer_continues_its_schedules(tmp_path):
    made: list[Counted] = []
    sparsity = SparsityCallback(each_step=counted(made), each_epoch=counted(made))
    fitted, model = trainer(tmp_path, sparsity, max_epochs=2), Net()
    fitted.fit(model, Batches(rows))
    fitted.fit_loop.max_epochs = 3
    fitted.fit(model, Batches(rows))
    assert [each.count for each in made[2:]] == [9, 3]
    trainer(tmp_path, sparsity, max_epochs=1).fit(model, Batches(rows))  # another begins afresh
    assert [each.count for each in made[4:]] == [3, 1]


@pytest.mark.parametrize("schedule", ["RigL", "ACDC"])
def test_no_hook_of_a_schedule_is_left_after_fit(schedule, tmp_path):
    def acdc(module: Any, optimizer: Any, scheduler: Any) -> Any:
        given = {"density": 0.5, "switches": (1, 3, 5, 20)}
        return pol.dense_to_sparse.ACDC(module, optimizer, **given)

    build, model = (rigl if schedule == "RigL" else acdc), Net()
    sparsity = SparsityCallback(attach=sparse, each_step=build)
    fitted = trainer(tmp_path, sparsity)
    for epochs in (3, 5):
        fitted.fit_loop.max_epochs = epochs
        fitted.fit(model, Batches(rows))
        (optimizer,) = fitted.optimizers
        assert not optimizer._optimizer_step_pre_hooks
        assert not optimizer._optimizer_step_post_hooks
        assert not model._forward_pre_hooks


def test_the_masks_of_a_schedule_that_is_about_to_update_are_applied_after_fit(tmp_path):
    model = Net()
    sparsity = SparsityCallback(
        attach=sparse,
        each_step=lambda m, o, s: pol.dense_to_sparse.RigL(m, o, every=10, begin=10, end=50),
    )
    trainer(tmp_path, sparsity).fit(model, Batches(rows))
    forms = [each for each in model.modules() if isinstance(each, pol.MaskedWeight)]
    assert all(each.enforce for each in forms)
    assert pol.density(model) == 0.25


class Logged(pl.loggers.Logger):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[int, dict[str, float]]] = []

    name, version = "logged", "0"

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.found.append((step or 0, metrics))

    def log_hyperparams(self, *_: Any, **__: Any) -> None:
        pass

    def values(self, name: str) -> list[float]:
        return [metrics[name] for _, metrics in self.found if name in metrics]


def test_densities_and_numbers_of_reports_are_logged(tmp_path):
    logged = Logged()
    fitted = trainer(tmp_path, callback("pruning"), logger=logged, log_every_n_steps=1)
    fitted.fit(Net(), Batches(rows))
    assert logged.values("polarity/density") == [0.5, 0.25, 0.25]
    assert logged.values("polarity/survivors") == [54, 27]
    assert float(fitted.callback_metrics["polarity/density"]) == 0.25
    logged = Logged()
    fitted = trainer(tmp_path, callback("RigL"), logger=logged, log_every_n_steps=1)
    fitted.fit(Net(), Batches(rows))
    assert logged.values("polarity/dropped")[0] == 10  # 7 of 18 and 3 of 9
    assert logged.values("polarity/grown") == logged.values("polarity/dropped")
    assert set(logged.values("polarity/density")) == {0.25}


def test_no_density_is_logged_of_a_model_without_masks(tmp_path):
    logged = Logged()
    sparsity = SparsityCallback(attach=pol.interpolate_norms)
    trainer(tmp_path, sparsity, logger=logged).fit(Net(), Batches(rows))
    assert logged.values("polarity/density") == []


def test_log_false_logs_nothing(tmp_path):
    logged = Logged()
    fitted = trainer(tmp_path, callback("pruning", log=False), logger=logged, log_every_n_steps=1)
    fitted.fit(Net(), Batches(rows))
    assert not any(name.startswith("polarity") for _, each in logged.found for name in each)


def test_a_density_that_can_be_monitored_is_that_of_forward_in_dense_phases(tmp_path):
    def acdc(module: Any, optimizer: Any, scheduler: Any) -> Any:
        return pol.dense_to_sparse.ACDC(module, optimizer, density=0.5, switches=(2, 5, 8))

    logged = Logged()
    sparsity = SparsityCallback(each_step=acdc)
    trainer(tmp_path, sparsity, logger=logged).fit(Net(), Batches(rows))
    assert logged.values("polarity/density")[-3:] == [0.5, 1.0, 0.5]


class Alphas(Net):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = super().training_step(batch, batch_idx)
        self.drawn.append(float(pol.norm_alpha(self)["net.1"]))
        return loss

    drawn: list[float]


@pytest.mark.parametrize("every", [1, 2])
def test_interpolated_norms_keep_one_value_for_the_micro_batches_of_a_step(every, tmp_path):
    def attach(module: nn.Module) -> nn.Module:
        return pol.interpolate_norms(module, generator=torch.Generator().manual_seed(1))

    model, other = Alphas(), attach(mlp())
    model.drawn = []
    sparsity = SparsityCallback(attach=attach)
    fitted = trainer(tmp_path, sparsity, accumulate_grad_batches=every, max_epochs=2)
    fitted.fit(model, Batches(rows, 4))
    expected = []
    for _ in range(8 // every):
        other(torch.ones(2, 6))  # draws as a loop of one's own would
        expected += every * [float(pol.norm_alpha(other)["1"])]
    assert model.drawn == expected
    form = next(each for each in model.modules() if isinstance(each, pol.NormInterp))
    assert form.shared.redraw


def test_interpolated_norms_resume_their_stream_with_accumulation(tmp_path):
    def given() -> SparsityCallback:
        return SparsityCallback(
            attach=lambda m: pol.interpolate_norms(m, generator=torch.Generator().manual_seed(1))
        )

    sparsity, saving = given(), Saving(tmp_path, "on_train_epoch_end")
    fitted = trainer(tmp_path, sparsity, saving, accumulate_grad_batches=2)
    fitted.fit(Net(), Batches(rows))
    for path in saving.paths:
        again = given()
        resumed = trainer(tmp_path, again, accumulate_grad_batches=2)
        resumed.fit(Net(), Batches(rows), ckpt_path=path)
        assert outcome(resumed, again) == outcome(fitted, sparsity)


def test_a_checkpoint_with_more_schedules_than_are_built_is_refused(tmp_path):
    saving = Saving(tmp_path, "on_train_epoch_end")
    trainer(tmp_path, callback("pruning"), saving).fit(Net(), Batches(rows))
    other = trainer(tmp_path, SparsityCallback())
    with pytest.raises(ValueError, match="holds 1 schedules of each_epoch=, and this run builds 0"):
        other.fit(Net(), Batches(rows), ckpt_path=saving.paths[0])


def test_a_checkpoint_of_a_run_without_the_callback_begins_its_schedules(tmp_path):
    saving = Saving(tmp_path, "on_train_epoch_end")

    class Masked(Net):
        def __init__(self) -> None:
            super().__init__()
            pol.mask_weights(self)

    trainer(tmp_path, saving).fit(Masked(), Batches(rows))
    made: list[Counted] = []
    sparsity = SparsityCallback(attach=None, each_step=counted(made), each_epoch=counted(made))
    resumed = trainer(tmp_path, sparsity, accumulate_grad_batches=2)
    resumed.fit(Masked(), Batches(rows), ckpt_path=saving.paths[0])
    assert [each.count for each in made] == [4, 2]


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"attach": 3}, "attach=3, expected a function of the model"),
        ({"attach": nn.ReLU()}, r"attach=ReLU\(\), expected a function of the model"),
        ({"each_step": "RigL"}, "each_step='RigL', expected a function"),
        ({"each_epoch": [1]}, r"each_epoch=\[1\], expected a function"),
        ({"merge": 1}, "merge=1, expected True or False"),
        ({"log": None}, "log=None, expected True or False"),
    ],
)
def test_what_is_of_another_type_is_refused(given, text):
    with pytest.raises(TypeError, match=text):
        SparsityCallback(**given)


def test_what_is_no_schedule_is_refused_when_training_starts(tmp_path):
    fitted = trainer(tmp_path, SparsityCallback(each_step=lambda *given: [nn.ReLU()]))
    with pytest.raises(TypeError, match=r"each_step returned a ReLU without step\(\)"):
        fitted.fit(Net(), Batches(rows))


def test_the_former_name_of_lightning_works_as_well(tmp_path):
    former = pytest.importorskip("pytorch_lightning")

    class Old(former.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = mlp()

        training_step = Net.training_step
        configure_optimizers = Net.configure_optimizers
        loss = staticmethod(lambda net, x, y: nn.functional.cross_entropy(net(x), y))
        losses: list[float] = []  # noqa: RUF012

    model = Old()
    former.Trainer(
        max_epochs=3,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[callback("rewinding")],
    ).fit(model, Batches(rows))
    assert pol.density(model) == 0.25
