"""The callback for Lightning: when it steps its schedules, and with which optimizers and values."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import polarity as pol
from tests.integrations.trained_by_lightning import (
    Batches,
    Counted,
    Net,
    Saving,
    SparsityCallback,
    callback,
    counted,
    mlp,
    outcome,
    pl,
    rigl,
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


def test_pruning_comes_after_validation_and_before_what_saves_at_the_end_of_an_epoch(tmp_path):
    notes = Notes()
    fitted = trainer(tmp_path, callback("rewinding"), notes)
    fitted.fit(Net(), Batches(rows), Batches(rows))
    assert notes.density["validation"] == [1.0, 0.5, 0.25]
    assert notes.density["epoch"] == [0.5, 0.25, 0.25]


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
