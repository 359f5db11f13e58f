"""The masks of several seeds, one result file each."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from ....harness.committed import found_result
from ....harness.place import Place
from ....harness.progress import Progress
from ....harness.results import new_result, now, result_path, write_result
from ....harness.sweep import Outcome, perform_pending
from .config import LayerwiseConfig
from .run import layer_counts


def sweep(configs: Sequence[LayerwiseConfig], place: Place) -> list[Outcome]:
    """Compute the masks whose result is missing.

    Args:
        configs: the masks.
        place: where and how they are computed.

    Returns:
        Outcomes of those that were computed, the failed ones among them.
    """
    return perform_pending(
        configs,
        # A line per mask takes the place of the bars, which show accuracies.
        replace(place, quiet=True),
        finished=lambda config: found_result(place.out, config) is not None,
        check=lambda first: None,
        complete=partial(_complete, quiet=place.quiet),
        threads=place.threads or 1,
    )


def _complete(
    config: LayerwiseConfig, place: Place, bars: Progress | None, *, quiet: bool
) -> Outcome:
    """Compute a mask and write its file."""
    started = now()
    layers = layer_counts(config)
    kept, total = (sum(layer[key] for layer in layers) for key in ("survivors", "total"))
    seconds = (now() - started).total_seconds()
    content = {"layers": layers, "final": {"density": kept / total, "survivors": kept}}
    # No mask looks at a data set.
    result = new_result(config, {"name": "none"}, content, started=started, seconds=seconds)
    write_result(result_path(place.out, config), result)
    if not quiet:
        print(f"{config.run_id} ({seconds:.0f} s)", file=sys.stderr, flush=True)
    return Outcome(config.run_id, seconds=seconds)
