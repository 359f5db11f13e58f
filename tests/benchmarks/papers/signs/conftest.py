"""Made-up results of the sign papers, with every field that their pages read."""

from dataclasses import asdict

import pytest

FACTS = {
    **{"name": "mnist", "train": 54_000, "held_out": 6_000, "test": 10_000},
    **{"shape": [1, 28, 28], "train_available": 60_000, "test_available": 10_000},
}


@pytest.fixture
def made_run(tiny):
    """Makes the result of one run at the papers' scale, unless settings or facts differ."""

    def make(strategy, epsilon, seed, accuracy, *, facts=None, **settings):
        whole = {"dataset": "mnist", "rounds": 10, "epochs": 10, **settings}
        whole.setdefault("perturbation", (("epsilon", epsilon),) if epsilon else ())
        config = tiny(strategy=strategy, seed=seed, **whole)
        final = {"round": 10, "density": 0.107, "val_accuracy": accuracy}
        return {
            "schema": 1,
            "experiment": config.experiment,
            # The name of a run with weights needs their file.
            "run_id": config.run_id if config.weights is None else "weights",
            "config": asdict(config),
            "dataset": {**FACTS, "name": config.dataset, **(facts or {})},
            "final": {**final, "test_accuracy": accuracy},
            "rounds": [{"round": 10, "density": 0.107, "test_accuracy": accuracy, "signs": None}],
            "seconds": 3.0,
            "started": "2025-01-01T00:00:00+00:00",
            "command": "python -m benchmarks fragility",
            "versions": {"polarity": "0", "draws": "2"},
            "machine": {"device": "cpu", "cpu": "abacus", "cores": 2, "threads": 1},
            "git_commit": "0123",
        }

    return make
