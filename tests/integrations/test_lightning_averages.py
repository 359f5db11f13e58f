"""Averages that Lightning's callbacks keep and copy into the model: their masks stay exact."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

import polarity as pol
from tests.integrations.trained_by_lightning import (
    METHODS,
    Batches,
    Net,
    Saving,
    SparsityCallback,
    callback,
    outcome,
    pl,
    rigl,
    rounds,
    rows,
    sparse,
    trainer,
)

pytestmark = pytest.mark.filterwarnings("ignore")

ema = pytest.importorskip("lightning.pytorch.callbacks").EMAWeightAveraging

AVERAGES: dict[str, Any] = {
    "EMA": lambda: ema(decay=0.8),
    "EMA without buffers": lambda: ema(decay=0.8, use_buffers=False),
    "EMA now and then": lambda: ema(decay=0.8, update_every_n_steps=2),
    "SWA": lambda: pl.callbacks.StochasticWeightAveraging(0.05, swa_epoch_start=1),
}
# Rewinding an optimizer gives it back groups that know nothing of SWA's learning rate.
PAIRS = [
    (average, method)
    for average in AVERAGES
    for method in METHODS
    if not (average == "SWA" and "rewinding" in method)
]
each_pair = pytest.mark.parametrize(("average", "method"), PAIRS)


def assert_exact(model: nn.Module, masks: dict[str, torch.Tensor]) -> None:
    """Raise unless a model has these masks, and stores zeros outside them."""
    assert not any(torch.is_inference(each) for each in model.parameters())
    torch.testing.assert_close(pol.masks(model), masks)
    for name, mask in masks.items():
        form = model.get_submodule(name.rpartition(".")[0]).parametrizations.weight
        for leaf in form.parameters():
            assert not leaf.detach()[~mask].any()


class Watch(pl.callbacks.Callback):
    """Looks at the model when it is validated, whatever weights it then has."""

    def __init__(self) -> None:
        self.masks: dict[str, torch.Tensor] = {}
        self.seen: list[float] = []

    def on_train_batch_end(self, trainer: Any, module: Any, *_: Any) -> None:
        self.masks = pol.masks(module)

    on_train_epoch_end = on_train_batch_end

    def on_validation_batch_start(self, trainer: Any, module: Any, *_: Any) -> None:
        if not trainer.sanity_checking:
            assert_exact(module, self.masks)
            self.seen.append(pol.density(module))


@each_pair
def test_masks_are_exact_at_every_validation_and_after_fit(average, method, tmp_path):
    model, watch = Net(), Watch()
    other = AVERAGES[average]()
    fitted = trainer(tmp_path, callback(method), other, watch)
    fitted.fit(model, Batches(rows), Batches(rows))
    assert len(watch.seen) >= 6
    assert_exact(model, watch.masks)
    assert pol.density(model) == (0.5 if method == "Sign-In" else 0.25)
    fitted.validate(model, Batches(rows), verbose=False)
    assert_exact(model, watch.masks)


def test_weights_are_the_average_of_torch_inside_the_masks(tmp_path):
    class Twin(pl.callbacks.Callback):
        """Averages what is left of the weights, by torch's own class."""

        def on_train_start(self, trainer: Any, module: Any) -> None:
            average = torch.optim.swa_utils.get_ema_avg_fn(0.8)
            self.average = AveragedModel(module, avg_fn=average)

        def on_train_batch_end(self, trainer: Any, module: Any, *_: Any) -> None:
            self.average.update_parameters(module)

    model, twin = Net(), Twin()
    trainer(tmp_path, callback("pruning"), ema(decay=0.8, use_buffers=False), twin).fit(
        model, Batches(rows)
    )
    pol.load_masks(twin.average, pol.masks(model))
    expected = pol.dense_state_dict(twin.average.module)
    for name, value in pol.dense_state_dict(model).items():
        if "running" not in name and "num_batches" not in name:
            torch.testing.assert_close(value, expected[name])
    start = Net().net[0].weight
    assert not torch.equal(model.net[0].weight, start)


@each_pair
def test_averages_in_checkpoints_have_the_masks_and_runs_resume(average, method, tmp_path):
    sparsity, saving = callback(method), Saving(tmp_path, "on_train_epoch_end")
    fitted = trainer(tmp_path, sparsity, AVERAGES[average](), saving)
    fitted.fit(Net(), Batches(rows), Batches(rows))
    # Of the last one Lightning makes the end of a run without copying the average.
    for path in saving.paths[:-1]:
        saved = torch.load(path, weights_only=True)
        states = [saved["state_dict"], saved.get("current_model_state", {})]
        masks = [{n: v for n, v in each.items() if n.endswith("mask")} for each in states]
        for name, mask in masks[0].items():
            assert ((mask == 0) | (mask == 1)).all()
            if average != "SWA":
                assert torch.equal(mask, masks[1][name])
        again = callback(method)
        resumed = trainer(tmp_path, again, AVERAGES[average]())
        resumed.fit(Net(), Batches(rows), Batches(rows), ckpt_path=path)
        found, expected = outcome(resumed, again), outcome(fitted, sparsity)
        if average == "SWA":  # its last epoch lets optimizers step by what gradients are left
            found, expected = found[0], expected[0]
        assert found == expected


class ToAndFro:
    """A schedule that prunes the first half of a weight and the second in turn."""

    def __init__(self, module: Any, *_: Any) -> None:
        self.module, self.count = module, 0

    def step(self) -> str:
        self.count += 1
        mask = torch.arange(12).view(12, 1).expand(12, 6) < 6
        pol.load_masks(self.module, {"net.0.weight": mask if self.count % 2 else ~mask})
        return "changed"

    def state_dict(self) -> dict[str, int]:
        return {"count": self.count}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.count = state["count"]


def test_saving_a_checkpoint_leaves_the_average_as_it_would_have_been(tmp_path):
    models = []
    for others in ([], [Saving(tmp_path, "on_train_batch_end")]):
        models.append(Net())
        sparsity = SparsityCallback(each_step=ToAndFro)
        fitted = trainer(tmp_path, sparsity, ema(decay=0.8), *others, max_epochs=1)
        fitted.fit(models[-1], Batches(rows))
    first, second = (model.state_dict() for model in models)
    torch.testing.assert_close(first, second, rtol=0, atol=0)


@pytest.mark.parametrize("average", AVERAGES)
def test_merging_comes_after_the_average_was_copied_into_the_model(average, tmp_path):
    models = []
    for merge in (False, True):
        models.append(Net())
        sparsity = callback("pruning", merge=merge)
        fitted = trainer(tmp_path, sparsity, AVERAGES[average]())
        fitted.fit(models[-1], Batches(rows), Batches(rows))
        fitted.validate(models[-1], Batches(rows), verbose=False)
    expected = pol.dense_state_dict(models[0])
    assert list(models[1].state_dict()) == list(Net().state_dict())
    torch.testing.assert_close(models[1].state_dict(), expected, rtol=0, atol=0)


def test_dense_phases_keep_their_average_and_sparse_ones_its_zeros(tmp_path):
    def acdc(switches: tuple[int, ...]) -> Any:
        given = {"density": 0.5, "switches": switches}
        return lambda module, optimizer, scheduler: pol.dense_to_sparse.ACDC(
            module, optimizer, **given
        )

    for switches, zeros in (((1, 4), 0), ((2, 4, 6), 54)):
        model, saving = Net(), Saving(tmp_path, "on_train_epoch_end")
        sparsity = SparsityCallback(each_step=acdc(switches))
        fitted = trainer(tmp_path, sparsity, ema(decay=0.8), saving)
        fitted.fit(model, Batches(rows), Batches(rows))
        for path in saving.paths:  # a dense phase is one of the average too
            state = torch.load(path, weights_only=True)
            for name, value in state["current_model_state"].items():
                if name.endswith("_extra_state"):
                    assert torch.equal(state["state_dict"][name], value)
        found = pol.find_targets(model).values()
        assert sum(int((each.weight == 0).sum()) for each in found) == zeros


def test_the_epoch_in_which_swa_runs_statistics_is_no_epoch_of_training(tmp_path):
    sparsity = SparsityCallback(each_epoch=rounds(rounds=9))
    model = Net()
    fitted = trainer(tmp_path, sparsity, AVERAGES["SWA"]())
    fitted.fit(model, Batches(rows))
    assert fitted.current_epoch == 4
    assert sparsity.state_dict()["schedules"]["each_epoch"][0]["epoch"] == 3


def test_an_average_of_somebody_elses_is_masked_after_fit(tmp_path):
    class Copied(pl.callbacks.Callback):
        """Copies other weights and masks into the model when training ends."""

        def on_train_end(self, trainer: Any, module: Any) -> None:
            for tensor in (*module.parameters(), *module.buffers()):
                tensor.data.fill_(1)

    model = Net()
    sparsity = SparsityCallback(attach=sparse, each_step=rigl)
    trainer(tmp_path, sparsity, Copied()).fit(model, Batches(rows))
    assert pol.density(model) == 0.25
    assert_exact(model, pol.masks(model))


@pytest.mark.parametrize("average", ["EMA", "SWA"])
def test_an_average_that_is_listed_first_is_refused(average, tmp_path):
    fitted = trainer(tmp_path, AVERAGES[average](), callback("pruning"))
    with pytest.raises(ValueError, match=r"before SparsityCallback, expected it after"):
        fitted.fit(Net(), Batches(rows))
