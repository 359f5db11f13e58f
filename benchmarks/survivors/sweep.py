"""The runs of several seeds, one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..harness.place import Place
from ..harness.progress import Progress
from ..harness.results import new_result, now, result_path, stored_result, write_result
from ..harness.sweep import Outcome, perform_pending
from ..pages.section import subset
from .config import RunConfig
from .run import FORMS, SURVIVORS, train_rounds


def sweep(configs: Sequence[RunConfig], place: Place) -> list[Outcome]:
    """Perform the runs whose result file is missing; interrupted ones go on at their last round.

    Raises:
        FileNotFoundError: the data set is missing; nothing has been trained.
    """
    return perform_pending(
        configs,
        place,
        finished=lambda config: stored_result(result_path(place.out, config)) is not None,
        check=place.dataset,
        complete=_complete,
        threads=place.threads or 1,
    )


def checkpoint_path(out: Path, config: RunConfig) -> Path:
    """Return the path of an unfinished run's state."""
    return out / "checkpoints" / f"{config.run_id}.safetensors"


def _complete(config: RunConfig, place: Place, bars: Progress | None) -> Outcome:
    """Perform a run, or what is left of it, and write its file."""
    data = place.dataset(config)
    checkpoint, started = checkpoint_path(place.out, config), now()
    if bars is not None:
        bars.begin(config.run_id, config.rounds, config.epochs, None)
    records = train_rounds(
        config,
        data,
        checkpoint=checkpoint,
        on_epoch=None if bars is None else bars.epoch,
        on_round=None if bars is None else bars.round,
    )
    facts = data.facts()
    notes = [
        f"{config.epochs} epochs per round where the Fragility experiment has 10, to density "
        f"{config.prune_base**config.rounds:.3g} where it ends at 0.107, batches of "
        f"{config.batch_size} where it has 60",
        *subset(facts["train"], facts["train_available"], "training images"),
        *subset(facts["test"], facts["test_available"], "test images"),
    ]
    last = records[-1]
    content = {
        "caption": "; ".join(notes),
        "final": {"round": last["round"], **{form: last[form] for form in FORMS}},
        "rounds": records,
    }
    seconds = sum(record[form]["seconds"] for record in records for form in FORMS)
    result = new_result(config, facts, content, started=started, seconds=seconds)
    write_result(result_path(place.out, config), result)
    checkpoint.unlink(missing_ok=True)
    return Outcome(config.run_id, last[SURVIVORS]["test_accuracy"], seconds)
