"""The table of calls of dense_to_sparse that attach, read and end soft thresholds."""

from typing import Any

from torch import nn, optim

from polarity import dense_to_sparse as d2s
from tests.laws import wrong_values as kinds
from tests.laws.calls import Arg, Call, bare, just
from tests.laws.calls_that_attach import MODEL, NO, SELECTORS, WATCH, model
from tests.laws.wrong_values import NONE, Kind, value, values

NOT_NEGATIVE = kinds.NUMBER | values(-1.0)
SOFT = Arg(kinds.MODEL, lambda world: thresholded(world))


def thresholded(world: Any) -> nn.Module:
    """Return the masked model of a world with soft thresholds."""
    if len(world.model[0].parametrizations.weight) == 1:
        d2s.threshold_weights(world.model, None, decay=0.1)
    return world.model


def holder(also: dict[str, kinds.Wrong]) -> Kind:
    wrong = {k: each for k, each in kinds.OPTIMIZER.wrong.items() if k != "None"}
    return Kind(wrong | kinds.OF_ANOTHER_MODEL | also)


THRESHOLD: dict[str, Call] = {
    "dense_to_sparse.threshold_weights": bare(
        d2s.threshold_weights,
        model=model("plain"),
        optimizer=Arg(
            holder({"Adam": kinds.Wrong(lambda w: optim.Adam(w.plain.parameters()), "Adam")}),
            lambda w: optim.SGD(w.plain.parameters(), 0.1),
        ),
        decay=Arg(NOT_NEGATIVE | NONE, just(0.1)),
        lr=Arg(NOT_NEGATIVE, just(0.1)),
        s0=Arg(kinds.NUMBER | NONE, just(-4.0)),
        steps=Arg(NOT_NEGATIVE, just(100)),
        **SELECTORS,
        first_layer=NO,
        last_layer=NO,
    ),
    "dense_to_sparse.soft_mask": bare(d2s.soft_mask, model=MODEL),
    "dense_to_sparse.soft_density": bare(d2s.soft_density, model=MODEL),
    "dense_to_sparse.threshold_report": bare(d2s.threshold_report, model=MODEL),
    "dense_to_sparse.weights_before_threshold": bare(d2s.weights_before_threshold, model=MODEL),
    "dense_to_sparse.extract_soft_mask": bare(
        d2s.extract_soft_mask,
        model=SOFT,
        optimizer=Arg(holder({}), lambda w: optim.SGD(thresholded(w).parameters(), 0.1)),
    ),
    "dense_to_sparse.find_decay": bare(
        d2s.find_decay,
        train=Arg(kinds.CALLABLE | NONE, just(lambda decay: 0.5)),
        density=Arg(kinds.FRACTION | NONE, just(0.5)),
        tolerance=Arg(kinds.TOLERANCE | NONE, just(0.1)),
        runs=Arg(kinds.COUNT | NONE, just(2)),
        between=Arg(
            Kind(values(3, "x", (1.0,), (0.0, 1.0), (2.0, 1.0), None))
            | {"of text": value(("a", "b"), "'a'")},
            just((0.1, 1.0)),
        ),
        progress=WATCH,
    ),
}
