"""Small models and runs of Lightning for the tests of its callback."""

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import polarity as pol
from polarity.dense_to_sparse import RigL
from tests.laws.world import snapshot
from tests.models import seeded

pl = pytest.importorskip("lightning.pytorch")

from polarity.integrations.lightning import SparsityCallback  # noqa: E402

Batch = tuple[Tensor, Tensor]
BATCHES = 3


class Batches:
    """Batches that continue where a checkpoint was made; those of each epoch differ."""

    batch_sampler = None

    def __init__(self, make: Callable[[torch.Generator], Batch], length: int = BATCHES) -> None:
        self.make, self.length, self.epoch, self.at = make, length, 0, 0
        self.sampler = self  # whom Lightning tells the epoch

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[Batch]:
        if self.at == self.length:  # the loop takes as many as there are, and asks for no more
            self.at = 0
        while self.at < self.length:
            self.at += 1
            yield self.make(torch.Generator().manual_seed(100 * self.epoch + self.at))

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def state_dict(self) -> dict[str, int]:
        return {"at": self.at}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.at = state["at"]


def rows(draw: torch.Generator) -> Batch:
    return torch.randn(8, 6, generator=draw), torch.randint(3, (8,), generator=draw)


def mlp() -> nn.Sequential:
    layers = [nn.Linear(6, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 3)]
    return seeded(nn.Sequential(*layers), 0)


class Net(pl.LightningModule):
    """A network and its loss, trained by SGD with a decaying rate."""

    def __init__(
        self, build: Callable[[], nn.Module] = mlp, loss: Callable[..., Tensor] | None = None
    ) -> None:
        super().__init__()
        self.net = build()
        self.loss = loss or (lambda net, x, y: nn.functional.cross_entropy(net(x), y))
        self.losses: list[float] = []

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        loss = self.loss(self.net, *batch)
        self.losses.append(float(loss.detach()))
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.log("loss", self.loss(self.net, *batch))

    test_step = validation_step

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)]


def rounds(**more: Any) -> Callable[..., pol.PruneRounds]:
    """Return what builds rounds that prune a half after each of two epochs."""

    def build(module: Any, optimizer: Any, scheduler: Any) -> pol.PruneRounds:
        given = {"every": 1, "rounds": 2, **more}
        if given.get("rewind"):
            given |= {"scheduler": scheduler}
        return pol.PruneRounds(module, 0.5, optimizer=optimizer, **given)

    return build


def rigl(module: Any, optimizer: Any, scheduler: Any) -> RigL:
    return RigL(module, optimizer, every=2, end=8, fraction=0.5)


def sparse(module: nn.Module) -> None:
    pol.prune(pol.mask_weights(module), pol.scores.magnitude, density=0.25)


def signed(module: nn.Module) -> None:
    pol.imp_prune(module, density=0.5)
    pol.sign_in(module)


def rescaling(module: Any, optimizer: Any, scheduler: Any) -> pol.RescaleSchedule:
    return pol.RescaleSchedule(module, every=1, optimizer=optimizer, momentum="zero")


METHODS: dict[str, dict[str, Any]] = {
    "pruning": {"each_epoch": rounds()},
    "rewinding": {"each_epoch": rounds(rewind="weights")},
    "learning-rate rewinding": {"each_epoch": rounds(rewind="schedule")},
    "Sign-In": {"attach": signed, "each_epoch": rescaling},
    "RigL": {"attach": sparse, "each_step": rigl},
}


def callback(method: str, **more: Any) -> SparsityCallback:
    return SparsityCallback(**METHODS[method], **more)


class Saving(pl.callbacks.Callback):
    """Saves a checkpoint at a place in the loop."""

    def __init__(self, folder: Path, when: str) -> None:
        self.folder, self.paths = folder, []
        setattr(self, when, self._save)

    def _save(self, trainer: pl.Trainer, module: pl.LightningModule, *_: Any) -> None:
        if not trainer.sanity_checking:
            self.paths.append(self.folder / f"{len(self.paths)}.ckpt")
            trainer.save_checkpoint(self.paths[-1])


def trainer(folder: Path, *callbacks: Any, **more: Any) -> pl.Trainer:
    given = {"max_epochs": 3, "enable_checkpointing": False, "logger": False, **more}
    return pl.Trainer(
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        callbacks=list(callbacks),
        **given,
    )


def outcome(fitted: pl.Trainer, sparsity: SparsityCallback) -> Any:
    """Return all that a run leaves, by value."""
    held = {
        "model": fitted.lightning_module.state_dict(),
        "optimizers": [each.state_dict() for each in fitted.optimizers],
        "schedulers": [each.scheduler.state_dict() for each in fitted.lr_scheduler_configs],
        "callback": sparsity.state_dict(),
        "step": (fitted.global_step, fitted.current_epoch),
    }
    return snapshot(copy.deepcopy(held), {})


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
