"""The parts of the theory section, computed one after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from .config import Part
from .dependence import dependence, step_size
from .equation4 import equation4
from .line import obstruction, portrait
from .records import Record
from .run import perform_part
from .single_neuron import failure, figure7, table2, table8
from .speed import speed
from .students import students

PARTS: dict[Part, Callable[[bool], Record]] = {
    "portrait": portrait,
    "table2": table2,
    "table8": table8,
    "dependence": dependence,
    "step_size": step_size,
    "students": students,
    "figure7": figure7,
    "failure": failure,
    "obstruction": obstruction,
    "equation4": equation4,
    "speed": speed,
}


def sweep(parts: Sequence[Part], results: Path, *, quick: bool = False) -> None:
    """Compute parts and write their files, telling which is under way.

    Args:
        parts: which ones, in their order.
        results: folder of the result files.
        quick: few runs and few steps: the numbers mean nothing.
    """
    for part in parts:
        print(f"{part} …", flush=True)
        print(f"  {perform_part(results, part, partial(PARTS[part], quick))}", flush=True)
