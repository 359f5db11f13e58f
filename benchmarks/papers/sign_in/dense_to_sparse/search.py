"""The search for STR's weight decay of s, one whole run after the other, which can be resumed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import polarity as pol

from ....harness.data import Dataset
from ....harness.recipe_training import Record
from ....harness.results import set_aside
from .config import DenseToSparseConfig
from .run import train_trial


def find_decay(
    config: DenseToSparseConfig,
    data: Dataset,
    path: Path,
    *,
    compile: bool | str = False,
    on_trial: Callable[[Record], None] | None = None,
) -> Record:
    """Search for the decay with which STR ends at the density of the settings.

    Args:
        config: settings of the search.
        data: resident data set.
        path: JSON file of the trials so far; those that it holds are not made again.
        compile: as for `recipe_training.train`.
        on_trial: called with each trial that was made.

    Returns:
        `trials` (decay, density, accuracy), and of the nearest one `decay`, `density` and
        `accuracy`; `found` says whether it is within the tolerance.
    """
    known = {trial["decay"]: trial for trial in _read(path)}
    trials: list[Record] = []

    def density_with(decay: float) -> float:
        trial = known.get(decay)
        if trial is None:
            trial = train_trial(config, data, decay, compile=compile)
            _write(path, [*trials, trial])
            if on_trial is not None:
                on_trial(trial)
        trials.append(trial)
        density: float = trial["density"]
        return density

    search = pol.dense_to_sparse.find_decay(
        density_with,
        config.density,
        config.search_tolerance or 0.005,
        config.search_runs or 6,
        between=config.search_between or (1e-5, 1e-2),
    )
    nearest = next(trial for trial in trials if trial["decay"] == search.decay)
    return {"trials": trials, "found": search.found, **nearest}


def _read(path: Path) -> list[Record]:
    if not path.is_file():
        return []
    try:
        trials: list[Record] = json.loads(path.read_text(encoding="utf-8"))
        return [{key: each[key] for key in ("decay", "density", "accuracy")} for each in trials]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        set_aside(path, f"is no list of trials ({error})")
        return []


def _write(path: Path, trials: list[Record]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    unfinished.write_text(json.dumps(trials, indent=1) + "\n", encoding="utf-8")
    os.replace(unfinished, path)
