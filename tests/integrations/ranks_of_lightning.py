"""A script that Lightning starts for each rank: train, prune, resume, and write what is left."""

import sys
from pathlib import Path

import torch
from torch.utils.data import DataLoader, TensorDataset

import polarity as pol
from tests.integrations.trained_by_lightning import Net, Saving, callback, outcome, pl, rows


def main(method: str, folder: Path) -> None:
    torch.set_num_threads(1)
    x, y = rows(torch.Generator().manual_seed(1))
    data = DataLoader(TensorDataset(x, y), batch_size=2)

    def fit(path: Path | None) -> tuple[pl.Trainer, object, Saving]:
        sparsity, saving = callback(method), Saving(folder, "on_train_epoch_end")
        trainer = pl.Trainer(
            max_epochs=3,
            accelerator="cpu",
            devices=2,
            strategy="ddp",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[sparsity, saving],
        )
        trainer.fit(Net(), data, ckpt_path=path)
        return trainer, outcome(trainer, sparsity), saving

    trainer, left, saving = fit(None)
    rank, model = trainer.global_rank, trainer.lightning_module
    _, again, _ = fit(saving.paths[0])
    held = {
        "masks": pol.masks(model),
        "weights": {name: value.detach() for name, value in model.named_parameters()},
        "density": pol.density(model),
        "logged": float(trainer.callback_metrics["polarity/density"]),
        "resumed": again == left,
    }
    torch.save(held, folder / f"rank{rank}.pt")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
