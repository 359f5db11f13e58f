"""The runs of a sweep over perturbations, strategies and seeds."""

from __future__ import annotations

from collections.abc import Sequence

from ...harness.committed import found_result
from ...harness.place import Place
from ...harness.progress import Progress
from ...harness.results import new_result, now, result_path, write_result
from ...harness.sweep import Outcome, perform_pending
from ...models import build_model
from .checkpoints import checkpoint_path, last_round
from .config import RunConfig
from .dense import dense_path
from .run import train_rounds
from .tickets import perturbations

_FINAL = (
    *("round", "density", "val_accuracy", "test_accuracy"),
    *("val_accuracy_masked", "test_accuracy_masked"),
)


def sweep(configs: Sequence[RunConfig], place: Place) -> list[Outcome]:
    """Perform the runs whose result file is missing; interrupted ones go on at their last round.

    Args:
        configs: the runs.
        place: where and how they take place.

    Returns:
        Outcomes of the runs that were performed, the failed ones among them.

    Raises:
        ValueError: a setting that polarity or the data set refuses; nothing has been trained.
        FileNotFoundError: the data set is missing; nothing has been trained.
    """
    for perturbation in {config.perturbation for config in configs}:
        perturbations(perturbation)
    # Layers of fc are too small to share.
    threads = place.threads or (1 if configs[0].arch == "fc" else None)
    outcomes = perform_pending(
        configs,
        place,
        finished=lambda config: found_result(place.out, config) is not None,
        check=lambda first: _check(first, place),
        complete=_complete,
        threads=threads,
    )
    if not place.keep_checkpoints and not any(outcome.failure for outcome in outcomes):
        for shared in place.out.glob("checkpoints/dense-*.safetensors"):
            shared.unlink(missing_ok=True)
    return outcomes


def _check(first: RunConfig, place: Place) -> None:
    """Refuse data that is missing and networks that do not fit the images or the weights."""
    data = place.dataset(first, holdout=first.holdout)
    build_model(
        first.arch,
        data.shape,
        data.classes,
        first.init,
        weights=first.weights,
        width=first.width,
    )


def _complete(config: RunConfig, place: Place, bars: Progress | None) -> Outcome:
    """Perform a run, or what is left of it, and write its file."""
    data = place.dataset(config, holdout=config.holdout)
    checkpoint = checkpoint_path(place.out, config)
    execution = {
        "compile": place.compile,
        "graphs": place.graphs,
        "channels_last": place.channels_last,
    }
    resumed_after = last_round(checkpoint)
    started = now()
    if bars is not None:
        bars.begin(config.run_id, config.rounds, config.epochs, resumed_after)
    records = train_rounds(
        config,
        data,
        checkpoint=checkpoint,
        dense=dense_path(place.out, config, **execution),
        on_epoch=None if bars is None else bars.epoch,
        on_round=None if bars is None else bars.round,
        **execution,
    )
    last = records[-1]
    content = {
        "final": {key: last[key] for key in _FINAL if key in last},
        "rounds": records,
        "resumed_after": resumed_after,
        "execution": execution,
    }
    seconds = sum(record["seconds"] for record in records)
    result = new_result(config, data.facts(), content, started=started, seconds=seconds)
    write_result(result_path(place.out, config), result)
    if not place.keep_checkpoints:
        checkpoint.unlink(missing_ok=True)
    return Outcome(config.run_id, last["test_accuracy"], seconds)
