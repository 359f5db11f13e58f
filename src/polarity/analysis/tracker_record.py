"""What a sign tracker has recorded, and the state that it is saved as."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from polarity._checks import (
    check_flag,
    check_integer,
    check_mapping,
    check_names,
    check_shape,
    check_type,
)
from polarity.analysis.flip_report import FlipReport, LayerFlips
from polarity.tickets.packing import unpack_signs

__all__ = ["START", "Record", "Signs", "checked_record"]

START = "init"
# Packed signs by plain name.
Signs = dict[str, Tensor]
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Record:
    """The signs of a model at moments of its training.

    Attributes:
        keep_steps: whether the signs of every step are kept, or each step was counted once.
        marks: the signs at each marked moment, ``"init"`` among them.
        latest: the last sign that every entry had.
        kept: the signs of every step; empty where they are not kept.
        counted: the flips of every step; empty where the signs are kept.
    """

    keep_steps: bool
    marks: dict[str, Signs]
    latest: Signs
    kept: list[Signs]
    counted: list[FlipReport]

    def state(self, shapes: Shapes) -> dict[str, Any]:
        """Return it with the shapes of the weights, as tensors, strings and numbers."""
        return {
            "shapes": {name: list(shape) for name, shape in shapes.items()},
            "keep_steps": self.keep_steps,
            "marks": dict(self.marks),
            "latest": dict(self.latest),
            "kept": list(self.kept),
            "counted": [
                [[each.name, each.flipped, each.counted, each.survivors] for each in report]
                for report in self.counted
            ],
        }


def checked_record(state: Mapping[str, Any], expected: Mapping[str, Any], shapes: Shapes) -> Record:
    """Return the record that a state describes, of weights of these names and shapes.

    Raises:
        ValueError: if an entry is missing or unknown, or its weights have other names or shapes.
        TypeError: if the state is not a mapping, or an entry is of another type.
    """
    check_mapping("state", state, "what SignTracker.state_dict returns")
    check_names("state", state, expected, what="an entry of a tracker's state")
    check_flag("state['keep_steps']", state["keep_steps"])
    for entry in ("shapes", "marks", "latest"):
        check_mapping(f"state[{entry!r}]", state[entry], "a mapping of names")
    for entry in ("kept", "counted"):
        check_type(f"state[{entry!r}]", state[entry], (list, tuple), "a list")
    check_names("state['shapes']", state["shapes"], shapes, what="tracked")
    for name, shape in state["shapes"].items():
        check_type(f"state['shapes'][{name!r}]", shape, (list, tuple), "a shape")
        check_shape("state", name, shape, shapes[name], "tracked weight")
    for moment, signs in state["marks"].items():
        _check_packed(f"state['marks'][{moment!r}]", signs, shapes)
    check_names("state['marks']", state["marks"], state["marks"], needed=(START,))
    _check_packed("state['latest']", state["latest"], shapes)
    for step, signs in enumerate(state["kept"]):
        _check_packed(f"state['kept'][{step}]", signs, shapes)
    return Record(
        keep_steps=bool(state["keep_steps"]),
        marks=dict(state["marks"]),
        latest=dict(state["latest"]),
        kept=list(state["kept"]),
        counted=[_report(step, rows) for step, rows in enumerate(state["counted"])],
    )


def _check_packed(entry: str, signs: object, shapes: Shapes) -> None:
    """Raise unless an entry of a state holds packed signs of every tracked weight."""
    check_mapping(entry, signs, "packed signs by name")
    check_names(entry, signs, shapes, what="tracked")  # type: ignore[arg-type]
    for name, packed in signs.items():  # type: ignore[attr-defined]
        check_type(f"{entry}[{name!r}]", packed, Tensor, "a uint8 tensor of packed signs")
        try:
            unpack_signs(packed, shapes[name])
        except (TypeError, ValueError) as error:
            raise type(error)(f"{entry}[{name!r}]: {error}") from None


def _report(step: int, rows: Any) -> FlipReport:
    """Return the report of a counted step from its rows in a state."""
    entry = f"state['counted'][{step}]"
    check_type(entry, rows, (list, tuple), "rows of [name, flipped, counted, survivors]")
    for row in rows:
        check_type(f"a row of {entry}", row, (list, tuple), "[name, flipped, counted, survivors]")
        if len(row) != 4:
            raise ValueError(f"{entry} holds {row!r}, expected [name, flipped, counted, survivors]")
        for number in row[1:]:
            check_integer(entry, number, at_least=0)
    return FlipReport(tuple(LayerFlips(*row) for row in rows))
