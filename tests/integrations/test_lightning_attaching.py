"""What the callback for Lightning attaches to, refuses, and leaves after fit."""

from typing import Any

import pytest
import torch
from torch import nn

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
