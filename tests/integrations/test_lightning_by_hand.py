"""Masks and the averages that Lightning's callback swaps into a model and leaves there."""

import warnings

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import polarity as pol
from tests.helpers import leaf_and_mask

lightning = pytest.importorskip("lightning.pytorch")


class Net(lightning.LightningModule):
    """Prunes a fifth of its survivors after every epoch of training."""

    def __init__(self) -> None:
        super().__init__()
        self.net = pol.mask_weights(
            nn.Sequential(nn.Linear(12, 40), nn.BatchNorm1d(40), nn.ReLU(), nn.Linear(40, 3))
        )
        self.masks = pol.masks(self.net)

    def training_step(self, batch: list[torch.Tensor]) -> torch.Tensor:
        return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    validation_step = training_step

    def on_train_epoch_end(self) -> None:
        pol.imp_prune(self.net, 0.2, optimizer=self.optimizers().optimizer)
        self.masks = pol.masks(self.net)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)


def fit(use_buffers: bool, tmp_path) -> Net:
    data = TensorDataset(torch.randn(48, 12), torch.randint(3, (48,)))
    model = Net()
    trainer = lightning.Trainer(
        max_epochs=3,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
        callbacks=lightning.callbacks.EMAWeightAveraging(use_buffers=use_buffers, decay=0.9),
    )
    trainer.fit(model, DataLoader(data, 16), DataLoader(data, 16))
    return model


def assert_masked_by(model: Net) -> None:
    for name, mask in pol.masks(model.net).items():
        assert torch.equal(mask, model.masks[name])
    weights = [(model.net[0].weight, "0.weight"), (model.net[3].weight, "3.weight")]
    for weight, name in weights:
        assert not weight.detach()[~model.masks[name]].any()


def test_an_average_without_buffers_leaves_the_masks_of_the_last_update(tmp_path):
    model = fit(False, tmp_path)
    # The last pruning came after the last update of the average.
    pol.load_masks(model.net, model.masks)
    assert_masked_by(model)
    for stored, mask in leaf_and_mask(model):
        assert not stored.detach()[~mask].any()


def test_an_average_of_masks_is_reported_and_load_masks_restores_them(tmp_path):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = fit(True, tmp_path)
        model.net.state_dict()
    reports = [str(each.message) for each in caught if "load_masks" in str(each.message)]
    assert reports
    assert "weight" in reports[0]
    with pytest.raises(ValueError, match="values other than 0 and 1"):
        pol.density(model.net)
    pol.load_masks(model.net, model.masks)
    assert_masked_by(model)
    assert round(pol.density(model.net), 3) == 0.512
