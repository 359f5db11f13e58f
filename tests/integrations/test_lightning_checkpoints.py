"""Checkpoints of runs with the callback for Lightning: what they hold, and what reads them."""

import pytest
import torch

import polarity as pol
from tests.integrations.trained_by_lightning import (
    METHODS,
    Batches,
    Counted,
    Net,
    Saving,
    SparsityCallback,
    callback,
    counted,
    outcome,
    pl,
    rows,
    trainer,
)

pytestmark = pytest.mark.filterwarnings("ignore")


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
