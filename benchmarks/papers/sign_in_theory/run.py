"""One part of the theory section: computed, and stored with its provenance."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from time import process_time

from ...harness.results import now, provenance, write_result
from .records import Record

SCHEMA = "theory-1"


def perform_part(out: Path, name: str, make: Callable[[], Record]) -> Path:
    """Compute one part of the section and write its result file.

    Args:
        out: folder of the result files.
        name: of the part and of its file.
        make: computes `{"settings": …, …}`.

    Returns:
        The file.
    """
    started, begun = now(), process_time()
    body = make()
    found = provenance("cpu")
    found["versions"]["scipy"] = version("scipy")
    path = out / f"{name}.json"
    write_result(
        path,
        {
            "schema": SCHEMA,
            "part": name,
            **body,
            "started": started.isoformat(timespec="seconds"),
            "cpu_seconds": round(process_time() - begun, 1),
            **found,
        },
    )
    return path
