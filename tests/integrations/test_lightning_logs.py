"""Densities and numbers of reports that the callback for Lightning logs."""

from typing import Any

import pytest

import polarity as pol
from tests.integrations.trained_by_lightning import (
    Batches,
    Net,
    SparsityCallback,
    callback,
    pl,
    rows,
    trainer,
)

pytestmark = pytest.mark.filterwarnings("ignore")


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
