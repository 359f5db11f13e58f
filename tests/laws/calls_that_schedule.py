"""The table of public calls, last part: schedules that change masks during training."""

from typing import Any

import torch

from polarity import dense_to_sparse
from tests.laws import wrong_mappings as maps
from tests.laws import wrong_values as kinds
from tests.laws.calls import Arg, Call, bare, just, method, the
from tests.laws.calls_that_attach import DRAW, FLAG, MODEL
from tests.laws.calls_that_prune import FEW, SCOPE, TIES
from tests.laws.refusals import W0, W2
from tests.laws.wrong_values import NONE, Kind, value, values

WHEN = {
    "model": MODEL,
    "optimizer": Arg(kinds.OPTIMIZER | NONE | kinds.OF_ANOTHER_MODEL, the("optimizer")),
    "every": Arg(kinds.COUNT | NONE, just(2)),
    "end": Arg(kinds.COUNT, just(20)),
    "begin": Arg(kinds.INTEGER | NONE | values(21), just(2), ("end",)),
}
EXCHANGE = {
    **WHEN,
    "fraction": Arg(kinds.FRACTION | NONE, just(0.3)),
    "densities": Arg(maps.numbers(FEW, 1.5), FEW),
    "ties": TIES,
    "second_moment": Arg(kinds.CHOICE | NONE, just("keep_mean")),
    "generator": DRAW,
}
PHASES = {
    "scope": SCOPE,
    "ties": TIES,
    "generator": DRAW,
}
SWITCHES = Kind(values(3, "imagenet", (), [3, 3], [-1, 2], [1.5, 2], [True, 2]) | NONE)
HALF = {W0: torch.ones(5, 6) > 0, W2: torch.ones(3, 5) > 0}


def states(right: dict[str, Any]) -> Kind:
    """Return the wrong states of a schedule with this right one."""
    return kinds.STATE | {
        "empty": value({}, "schedule"),
        "of another schedule": value({**right, "schedule": "RescaleSchedule"}, "RescaleSchedule"),
        "an unknown entry": value({**right, "lr": 1}, "'lr'"),
        "a negative step": value({**right, "step": -1}, "-1"),
        "a fractional step": value({**right, "step": 1.5}, "1.5"),
        "a seed that is not drawn": value({**right, "seed": 3}, "seed.*3"),
    }


EXPLORED = {"schedule": "RigL", "step": 1, "seed": None, "explored": HALF}
PHASE = {"schedule": "ACDC", "step": 1, "sparse": False, "seed": None}
PLACE = {"schedule": "GradualMagnitude", "step": 1, "seed": None}
NOT_A_PHASE = {"a phase in words": value({**PHASE, "sparse": "dense"}, "'dense'")}
NOT_BOOLS = {
    "nothing explored": value({**EXPLORED, "explored": {}}, W0),
    "floats explored": value({**EXPLORED, "explored": {**HALF, W0: torch.ones(5, 6)}}, "float32"),
}

WEIGHT = torch.arange(30.0).view(5, 6)
SCHEDULE: dict[str, Call] = {
    "dense_to_sparse.RigL": bare(
        dense_to_sparse.RigL,
        **(EXCHANGE | {"end": Arg(kinds.COUNT | NONE, just(20))}),
        replace_step=FLAG,
    ),
    "dense_to_sparse.SET": bare(dense_to_sparse.SET, **EXCHANGE),
    "dense_to_sparse.ACDC": bare(
        dense_to_sparse.ACDC,
        model=MODEL,
        optimizer=WHEN["optimizer"],
        density=Arg(kinds.FRACTION | NONE, just(0.3)),
        switches=Arg(SWITCHES, just((2, 4))),
        momentum=Arg(kinds.CHOICE | NONE, just("both")),
        **PHASES,
    ),
    "dense_to_sparse.ACDC.step": method("acdc.step"),
    "dense_to_sparse.ACDC.switch": method("acdc.switch"),
    "dense_to_sparse.ACDC.density": method("acdc.density"),
    "dense_to_sparse.ACDC.state_dict": method("acdc.state_dict"),
    "dense_to_sparse.ACDC.load_state_dict": method(
        "acdc.load_state_dict", state=Arg(states(PHASE) | NOT_A_PHASE, just(PHASE))
    ),
    "dense_to_sparse.ACDC.remove": method("acdc.remove"),
    "dense_to_sparse.acdc_switches": bare(
        dense_to_sparse.acdc_switches,
        name=Arg(kinds.CHOICE | NONE, just("cifar10")),
        steps=Arg(kinds.COUNT | NONE | values(3), just(400)),
    ),
    "dense_to_sparse.GradualMagnitude": bare(
        dense_to_sparse.GradualMagnitude,
        **(WHEN | {"end": Arg(kinds.COUNT | NONE | values(2), just(20))}),
        density=Arg(kinds.FRACTION | NONE, just(0.3)),
        initial=Arg(kinds.FRACTION | NONE | values(0.1), just(0.9)),
        power=Arg(kinds.POSITIVE | NONE, just(2.0)),
        **PHASES,
    ),
    "dense_to_sparse.GradualMagnitude.density_at": method(
        "gradual.density_at", step=Arg(kinds.INTEGER | NONE, just(3))
    ),
    "dense_to_sparse.GradualMagnitude.step": method("gradual.step"),
    "dense_to_sparse.GradualMagnitude.density": method("gradual.density"),
    "dense_to_sparse.GradualMagnitude.state_dict": method("gradual.state_dict"),
    "dense_to_sparse.GradualMagnitude.load_state_dict": method(
        "gradual.load_state_dict", state=Arg(states(PLACE), just(PLACE))
    ),
    "dense_to_sparse.GradualMagnitude.remove": method("gradual.remove"),
    "dense_to_sparse.drop_and_grow": bare(
        dense_to_sparse.drop_and_grow,
        weight=Arg(kinds.FLOATING, just(WEIGHT)),
        mask=Arg(kinds.MASK, just(WEIGHT > 10)),
        growth=Arg(kinds.FLOATING, just(WEIGHT)),
        n=Arg(kinds.INTEGER | NONE | values(20), just(1)),
        ties=TIES,
        generator=DRAW,
    ),
}
