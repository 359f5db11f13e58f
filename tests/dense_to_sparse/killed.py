"""Train with a schedule in processes that are killed at random moments, and begin again from files.

Run as a program by ``test_killed``. It forks before anything is computed, so that no process has to
import PyTorch again.
"""

import os
import random
import signal
import sys
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy

import polarity as pol
from polarity.dense_to_sparse import ACDC, SET, GradualMagnitude, RigL
from tests.dense_to_sparse.cases import OPTIMIZERS, batches, masked, network

STEPS, KILLS = 24, 4
# A moment of a training step at which the process can be killed.
MOMENTS = ("forward", "backward", "optimizer", "schedule", "rescaling", "writing", "written")
SCHEDULES: dict[str, Callable[[nn.Module, Any], Any]] = {
    "rigl": lambda model, o: RigL(model, o, every=3, end=30, fraction=0.5, ties="random"),
    "set": lambda model, o: SET(model, o, every=3, fraction=0.3),
    "acdc": lambda model, o: ACDC(model, o, density=0.25, switches=(3, 7, 11, 15, 19)),
    "gradual": lambda model, o: GradualMagnitude(model, o, density=0.1, begin=2, end=22, every=4),
}

Moment = Callable[[str], None]


def start(kind: str, product: bool, optimizer: str, saved: Any = None) -> list[Any]:
    """Return model, optimizer and schedules, as they were saved if something was.

    One optimizer stands for one order: with SGD everything is built before anything is loaded, with
    Adam the schedules are built for a model that was loaded already.
    """
    early = saved is not None and optimizer != "sgd"
    model = pol.mask_weights(network()) if early else masked(product=product)
    if early and product:
        pol.sign_in(model)
    built = OPTIMIZERS[optimizer](model.parameters())
    run = [model, built]
    if early:
        load(run, saved[:2])
    run += [SCHEDULES[kind](model, built), torch.optim.lr_scheduler.StepLR(built, 5, 0.7)]
    if product:
        run.append(pol.RescaleSchedule(model, every=3, optimizer=built))
    if saved is not None:
        load(run[2:] if early else run, saved[2:] if early else saved)
    return run


def load(things: list[Any], states: list[Any]) -> None:
    for each, state in zip(things, states, strict=True):
        each.load_state_dict(state)


def train(folder: Path, kind: str, product: bool, optimizer: str, at: Moment) -> None:
    """Train to the end from the file in a folder, which is written after each step."""
    file, fresh = folder / "checkpoint.pt", folder / "checkpoint.part"
    saved = torch.load(file, weights_only=True) if file.exists() else None
    torch.manual_seed(0 if saved is None else os.getpid())  # of the seed that a schedule draws
    run = start(kind, product, optimizer, None if saved is None else saved["run"])
    model, built, schedule, steps = run[:4]
    begin = 0 if saved is None else saved["step"]
    for step, (x, y) in enumerate(islice(batches(), begin, STEPS), begin + 1):
        built.zero_grad()
        loss = cross_entropy(model(x), y)
        at(f"{step} forward")
        loss.backward()
        at(f"{step} backward")
        built.step()
        at(f"{step} optimizer")
        schedule.step()
        steps.step()
        at(f"{step} schedule")
        if product:
            run[4].step()
        at(f"{step} rescaling")
        torch.save({"step": step, "run": [each.state_dict() for each in run]}, fresh)
        at(f"{step} writing")
        os.replace(fresh, file)
        at(f"{step} written")


def in_a_process(*arguments: Any) -> int:
    """Train in a fork, and return the signal that ended it, 0 for none."""
    if (child := os.fork()) == 0:
        try:
            train(*arguments)
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        return os.WTERMSIG(status)
    if os.WEXITSTATUS(status):
        raise RuntimeError(f"{arguments[1:4]} failed")
    return 0


def killed_at(moment: str) -> Moment:
    def at(now: str) -> None:
        if now == moment:
            os.kill(os.getpid(), signal.SIGKILL)

    return at


def main(folder: Path, cases: list[tuple[str, bool, str]]) -> None:
    for place, case in enumerate(cases):
        whole, broken = folder / f"{place} whole", folder / f"{place} broken"
        whole.mkdir()
        broken.mkdir()
        assert in_a_process(whole, *case, lambda _: None) == 0
        draw = random.Random(place)
        steps = sorted(draw.sample(range(1, STEPS + 1), KILLS))
        moments = [f"{step} {draw.choice(MOMENTS)}" for step in steps]
        for moment in moments:
            assert in_a_process(broken, *case, killed_at(moment)) == signal.SIGKILL, moment
        assert in_a_process(broken, *case, lambda _: None) == 0
        (broken / "killed at").write_text(", ".join(moments))


if __name__ == "__main__":
    torch.set_num_threads(1)
    given = [each.split("/") for each in sys.argv[2:]]
    main(Path(sys.argv[1]), [(kind, product == "sign_in", o) for kind, product, o in given])
