"""Lives of models: seeded lists of operations, played, replayed, and shortened when they fail."""

import random
import traceback
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch

import polarity as pol
from tests.machine import (
    attaching,
    moving,
    pruning,
    reading,
    reference,
    refused,
    survivors,
    training,
    writing,
)
from tests.machine.kinds import MACHINES, SETTINGS, WIDE, Machine, Setting
from tests.machine.run import Run

OPERATIONS = {
    name: operation
    for part in (pruning, attaching, training, moving, writing, reading, refused, survivors)
    for name, operation in part.OPERATIONS.items()
    if name not in ("reset", "reinitialize") or hasattr(pol, "reinitialize")
}
reference.GRADIENTS_ZEROED = hasattr(pol, "reinitialize")
# How often an operation is drawn, where that is not once.
OFTEN = {"train": 4, "imp_prune": 2, "prune": 2, "reinit_signs": 3, "mask_weights": 2, "rescale": 2,
         "compact": 3}  # fmt: skip
KINDS = {kind.name: kind for kind in (*MACHINES, WIDE)}
OPTIMIZERS = {setting.name: setting for setting in SETTINGS}

Drawn = tuple[str, int]  # the name of an operation, and the seed of its arguments


@dataclass
class Failure:
    """What went wrong: the operations that were performed, the last of them in vain."""

    error: Exception
    told: list[str]
    performed: list[Drawn]
    where: str


def drawn(seed: int, count: int) -> list[Drawn]:
    """Draw a life: names of operations, each with a seed of its own."""
    draw = random.Random(seed)
    names = [name for name in OPERATIONS for _ in range(OFTEN.get(name, 1))]
    return [(draw.choice(names), draw.getrandbits(32)) for _ in range(count)]


def play(
    kind: Machine,
    setting: Setting,
    seed: int,
    life: Sequence[Drawn],
    counts: Counter[str] | None = None,
) -> Failure | None:
    """Perform operations one after another; those that do not apply are left out."""
    told, performed = [], []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run = Run(kind, setting, seed)
        for name, its_seed in life:
            torch.manual_seed(its_seed % 2**31)
            run.batches.manual_seed(its_seed)
            what = name
            try:
                step = OPERATIONS[name](run, random.Random(its_seed))
                if step is None:
                    continue
                what = step.what
                run.perform(step)
            except Exception as error:
                done = [*performed, (name, its_seed)]
                return Failure(error, [*told, what], done, traceback.format_exc(limit=-4))
            told.append(what)
            performed.append((name, its_seed))
            if counts is not None:
                counts[name] += 1
    return None


def shortened(kind: Machine, setting: Setting, seed: int, failure: Failure) -> Failure:
    """Leave out every operation without which the last one fails all the same."""
    size = len(failure.performed) // 2
    while size:
        start = 0
        while start < len(failure.performed) - 1:
            life = failure.performed
            fewer = [*life[:start], *life[min(start + size, len(life) - 1) :]]
            again = play(kind, setting, seed, fewer)
            if again and _alike(again, failure):
                failure = again
            else:
                start += size
        size //= 2
    return failure


def _alike(one: Failure, other: Failure) -> bool:
    same_call = one.performed[-1] == other.performed[-1]
    return same_call and type(one.error) is type(other.error)


def live(kind: str, setting: str, seed: int, count: int) -> None:
    """Play a life, and fail with the shortest list of operations that leads to the failure."""
    failure = play(KINDS[kind], OPTIMIZERS[setting], seed, drawn(seed, count))
    if failure is None:
        return
    failure = shortened(KINDS[kind], OPTIMIZERS[setting], seed, failure)
    listed = "\n".join(f"  {what}" for what in failure.told)
    raise AssertionError(
        f"{failure.error}\n\nafter these operations:\n{listed}\n\nto replay:\n"
        f"  play(KINDS[{kind!r}], OPTIMIZERS[{setting!r}], {seed}, {failure.performed})\n\n"
        f"{failure.where}"
    )
