"""The table of public calls, second part: scores, densities, pruning, rewinding and signs."""

import torch

import polarity as pol
from tests.laws import wrong_mappings as maps
from tests.laws import wrong_values as kinds
from tests.laws.calls import Arg, Call, bare, just, method, the
from tests.laws.calls_that_attach import (
    DRAW,
    FLAG,
    MODEL,
    NEW_FILE,
    SELECTORS,
    WATCH,
    holder,
    old_file,
)
from tests.laws.refusals import W0, W2
from tests.laws.wrong_values import NONE, Wrong, value, values
from tests.models import square

FEW = just({W0: 0.1, W2: 0.2})
WEIGHT = Arg(kinds.TENSOR, lambda w: w.init[W0])
AMOUNT = Arg(kinds.FRACTION, just(0.2))
DENSITY = Arg(kinds.FRACTION | values(0.9), just(0.3), without=("amount",))
DENSITIES = Arg(maps.numbers(FEW, 1.5), FEW, without=("amount",))
OPEN = Arg(kinds.FRACTION | NONE, just(0.3))
SCOPE = Arg(kinds.CHOICE | NONE, just("layer"))
TIES = Arg(kinds.CHOICE | NONE, just("random"))
POINT = {
    "optimizer": Arg(kinds.OPTIMIZER, the("optimizer")),
    "scheduler": Arg(kinds.SCHEDULER, the("scheduler")),
}


def state_with(**changed: object) -> kinds.Make:
    """Return what makes the state of rounds in which some entries are others."""
    return lambda world: world.rounds.state_dict() | changed


ROUNDS_STATE = kinds.STATE | {
    "empty": value({}, "missing 'schedule'"),
    "of another schedule": Wrong(state_with(schedule="RigL"), "'RigL'"),
    "an unknown entry": Wrong(state_with(lr=1), "'lr'"),
    "a negative epoch": Wrong(state_with(epoch=-1), "'epoch'.*-1"),
    "a fractional epoch": Wrong(state_with(epoch=1.5), "'epoch'.*1.5"),
    "another period": Wrong(state_with(every=3), "'every'.*3"),
    "other rounds": Wrong(state_with(rounds=9), "'rounds'.*9"),
    "a seed that is not drawn": Wrong(state_with(seed=3), "seed.*3"),
    "no point": Wrong(state_with(point=None), "None"),
    "half a point": Wrong(state_with(point={}), "missing 'weights'"),
    "another model's point": Wrong(
        state_with(point={"weights": {}, "optimizer": None, "scheduler": None}), "'0.weight'"
    ),
}
ROUND = {
    "model": MODEL,
    "amount": AMOUNT,
    "density": DENSITY,
    "scope": SCOPE,
    "ties": TIES,
    "score": Arg(kinds.SCORE, just(pol.scores.magnitude)),
    "optimizer": holder("optimizer"),
    "scheduler": Arg(kinds.SCHEDULER, the("scheduler"), ("rewind",)),
    **SELECTORS,
    "generator": DRAW,
}
SIGNING = {
    "perturb": Arg(kinds.PERTURB, just([pol.Epsilon(0.1), pol.Phi(0.01)])),
    "scope": SCOPE,
    "mix": Arg(kinds.FRACTION | NONE, just(0.5)),
    "revived": Arg(kinds.CHOICE | NONE, just("trained")),
    "generator": DRAW,
}
INIT = Arg(maps.floating(the("weights")) | NONE | maps.OTHER_WEIGHTS, the("weights"))
LOSS = {
    "model": MODEL,
    "loss_fn": Arg(kinds.CALLABLE | NONE, just(square)),
    "batches": Arg(kinds.BATCHES | kinds.PAIRS | NONE, the("batches")),
    "mode": Arg(kinds.CHOICE | NONE, just("eval")),
}
SIGNS = Arg(kinds.SIGNS, just(torch.ones(4, dtype=torch.int8)))
ONES = Arg(maps.BOOL_MASKS, lambda w: {W0: torch.ones(2, 2) > 0})

PRUNE: dict[str, Call] = {
    "scores.magnitude": bare(
        pol.scores.magnitude, name=Arg(kinds.ANYTHING, just(W0)), weight=WEIGHT
    ),
    "scores.random": bare(
        pol.scores.random, name=Arg(kinds.NAME, just(W0)), weight=WEIGHT, generator=DRAW
    ),
    **{
        f"scores.{score.__name__}": bare(score, init=Arg(maps.REFERENCE | NONE, the("weights")))
        for score in (
            pol.scores.large_final_diff_sign,
            pol.scores.large_final_same_sign,
            pol.scores.magnitude_increase,
        )
    },
    "scores.snip": bare(pol.scores.snip, **LOSS, **SELECTORS, generator=DRAW),
    "scores.grasp": bare(
        pol.scores.grasp,
        **LOSS,
        temperature=Arg(kinds.POSITIVE | NONE, just(2.0)),
        **SELECTORS,
        generator=DRAW,
    ),
    "scores.synflow": bare(
        pol.scores.synflow,
        always=("steps",),
        model=MODEL,
        example_inputs=Arg(kinds.INPUTS | NONE, just(torch.ones(2, 6))),
        density=Arg(kinds.FRACTION | NONE | values(0, 0.9), just(0.3)),
        steps=Arg(kinds.COUNT | NONE, just(2)),
        dtype=Arg(kinds.DTYPE, just(torch.float64)),
        **SELECTORS,
        ties=TIES,
        generator=DRAW,
        progress=WATCH,
    ),
    "densities.uniform": bare(
        pol.densities.uniform, model=MODEL, density=OPEN, dense_first=FLAG, **SELECTORS
    ),
    "densities.erk": bare(
        pol.densities.erk,
        model=MODEL,
        density=OPEN,
        power=Arg(kinds.NUMBER | NONE, just(0.5)),
        **SELECTORS,
    ),
    "densities.balanced": bare(pol.densities.balanced, model=MODEL, density=OPEN, **SELECTORS),
    "prune": bare(
        pol.prune,
        always=("amount",),
        model=MODEL,
        scores=Arg(maps.SCORES, the("scores"), named="scores?"),
        amount=AMOUNT,
        density=DENSITY,
        densities=DENSITIES,
        scope=SCOPE,
        ties=TIES,
        optimizer=holder("optimizer"),
        **SELECTORS,
        generator=DRAW,
    ),
    "imp_prune": bare(pol.imp_prune, **ROUND, rewind=Arg(kinds.REWIND, the("start"))),
    "lrr_step": bare(pol.lrr_step, **ROUND, rewind=Arg(kinds.REWIND_TYPES | NONE, the("start"))),
    "PruneRounds": bare(
        pol.PruneRounds,
        **{name: each for name, each in ROUND.items() if name not in ("amount", "density")},
        amount=Arg(kinds.FRACTION | NONE, just(0.2)),
        every=Arg(kinds.COUNT | NONE, just(2)),
        rounds=Arg(kinds.COUNT | NONE, just(3)),
        rewind=Arg(kinds.CHOICE, just("weights")),
        point=Arg(kinds.REWIND, the("start"), ("rewind",)),
    ),
    "PruneRounds.step": method("rounds.step"),
    "PruneRounds.state_dict": method("rounds.state_dict"),
    "PruneRounds.load_state_dict": method(
        "rounds.load_state_dict", state=Arg(ROUNDS_STATE, lambda w: w.rounds.state_dict())
    ),
    "RewindPoint": bare(
        pol.RewindPoint,
        weights=Arg(maps.POINT_WEIGHTS, the("init")),
        optimizer=Arg(maps.POINT_STATE, lambda w: w.optimizer.state_dict()),
        scheduler=Arg(maps.POINT_STATE, lambda w: w.scheduler.state_dict()),
    ),
    "RewindPoint.save": method("start.save", path=NEW_FILE),
    "RewindPoint.load": bare(pol.RewindPoint.load, path=old_file("point_file")),
    "RewindPoint.capture": bare(pol.RewindPoint.capture, model=MODEL, **POINT),
    "RewindPoint.restore_weights": method(
        "start.restore_weights", model=MODEL, only=Arg(kinds.CHOICE | NONE, just("masked"))
    ),
    "RewindPoint.restore_schedule": method("start.restore_schedule", **POINT),
    "RewindPoint.check_schedule": method(
        "start.check_schedule", **POINT, names=Arg(kinds.ANYTHING, just({}))
    ),
    "RewindPoint.check": method("start.check", model=MODEL),
    "reinit_signs": bare(
        pol.reinit_signs,
        model=MODEL,
        strategy=Arg(kinds.CHOICE | NONE, just("standard"), ("trained",)),
        init=INIT,
        trained=Arg(
            maps.floating(the("now.weights")) | maps.OTHER_WEIGHTS, the("now"), ("strategy",)
        ),
        **SIGNING,
    ),
    "signed_constants": bare(
        pol.signed_constants,
        trained=Arg(maps.floating(the("weights")) | NONE, the("weights")),
        init=Arg(maps.floating(the("weights")) | NONE, the("weights")),
        masks=Arg(
            maps.zeros_and_ones(the("masks"), whole=False) | NONE, the("masks"), named="masks?"
        ),
        strategy=Arg(kinds.CHOICE | NONE, just("mask0")),
        **SIGNING,
    ),
    "Epsilon": bare(pol.Epsilon, fraction=Arg(kinds.FRACTION | NONE, just(0.5), named="epsilon")),
    "Epsilon.__call__": method(
        "epsilon.__call__",
        signs=SIGNS,
        magnitudes=Arg(kinds.ANYTHING, just(torch.ones(4))),
        generator=DRAW,
        masks=ONES,
    ),
    "Epsilon.count": method("epsilon.count", n=Arg(kinds.INTEGER | NONE, just(4))),
    "Delta": bare(
        pol.Delta, fraction=Arg(kinds.FRACTION | NONE, just(0.5), named="delta"), ties=TIES
    ),
    "Delta.__call__": method(
        "delta.__call__",
        signs=SIGNS,
        magnitudes=Arg(kinds.MAGNITUDES, just(torch.ones(4))),
        generator=DRAW,
        masks=ONES,
    ),
    "Delta.count": method("delta.count", n=Arg(kinds.INTEGER | NONE, just(4))),
    "Phi": bare(pol.Phi, center=Arg(kinds.NUMBER | NONE, just(0.5), named="phi")),
    "Phi.polarity": method("phi.polarity", reference=WEIGHT),
}
