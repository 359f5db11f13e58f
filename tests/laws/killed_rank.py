"""Ranks of which one is killed while they choose together, and that begin again from a file.

Run as a program by ``test_killed_rank``. It forks before anything is computed, so that no process
has to import PyTorch again.
"""

import os
import signal
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

import polarity as pol
from polarity.selection.top_k import keep_top
from tests.laws.refusals import fingerprint
from tests.models import mlp, seeded
from tests.ranks.sharded import divided, runs_fsdp, state_of, train, uneven

ROUNDS, VICTIM = 3, 1
TIMEOUT = 20.0
# Where the victim neither answers nor ends.
SHORT = 3.0

Moment = int | None  # before this exchange of a call; None for never


class Exchanges:
    """Count the exchanges of a call, and end one rank's process, or its answers, before one."""

    def __init__(self, rank: int, last: Moment, how: str = "killed") -> None:
        self.count = 0
        self._last = last if rank == VICTIM else None
        self._how = how

    def __enter__(self) -> "Exchanges":
        plain = distributed.all_reduce

        def counted(*arguments: Any, **named: Any) -> Any:
            if self.count == self._last:
                if self._how == "killed":
                    os.kill(os.getpid(), signal.SIGKILL)
                time.sleep(2 * SHORT)
                os._exit(0)
            self.count += 1
            return plain(*arguments, **named)

        self._patch = mock.patch.object(distributed, "all_reduce", counted)
        self._patch.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._patch.stop()


def outcome(call: Callable[[], object], rank: int, last: Moment, how: str = "killed") -> Any:
    """Return what a call said, how long it took, and how often the ranks exchanged something."""
    began, said = time.monotonic(), ""
    with Exchanges(rank, last, how) as exchanges:
        try:
            call()
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
    return {"said": said, "seconds": time.monotonic() - began, "exchanges": exchanges.count}


def chosen(rank: int, world: int, folder: Path, last: Moment, how: str = "killed") -> Any:
    """Choose among pieces that the ranks hold, with random ties."""
    draw = torch.Generator().manual_seed(rank)
    scores = {name: torch.randn(4, 5, generator=draw).round() for name in ("a", "b")}
    live = {name: torch.ones_like(each, dtype=torch.bool) for name, each in scores.items()}
    ties = torch.Generator().manual_seed(0)
    given = [scores, live, ties.get_state()]
    before = fingerprint(given)

    def call() -> None:
        group = distributed.group.WORLD
        keep_top(scores, 9, live, ties="random", generator=ties, group=group)

    found = outcome(call, rank, last, how)
    given[-1] = ties.get_state()
    # With no error the generator has moved on.
    return found | {"unchanged": fingerprint(given) == before}


def trained(rank: int, world: int, folder: Path, last: Moment, how: str = "killed") -> Any:
    """Train copies, prune and save them, round after round; one may end in the second pruning."""
    model: nn.Module = pol.mask_weights(seeded(mlp(6, 8, 3)).train())
    parallel = DistributedDataParallel(model)
    sgd = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    saved, done = folder / "saved.pt", 0
    if saved.exists():
        held = torch.load(saved, weights_only=True)
        model.load_state_dict(held["model"])
        sgd.load_state_dict(held["sgd"])
        done = held["done"]
    found: dict[str, Any] = {"began": done}
    for number in range(done, ROUNDS):
        for step in range(2):
            draw = torch.Generator().manual_seed(100 * number + 10 * step + rank)
            sgd.zero_grad()
            parallel(torch.randn(4, 6, generator=draw)).square().mean().backward()
            sgd.step()
        before = fingerprint([model.state_dict(), sgd.state_dict()])
        ends = last if number == 1 else None
        found |= outcome(lambda: pol.imp_prune(parallel, 0.3, optimizer=sgd), rank, ends, how)
        found["unchanged"] = fingerprint([model.state_dict(), sgd.state_dict()]) == before
        if found["said"]:
            return found
        distributed.barrier()
        if rank == 0:
            held = {"model": model.state_dict(), "sgd": sgd.state_dict(), "done": number + 1}
            torch.save(held, saved)
    return found | {"state": model.state_dict(), "density": pol.density(model)}


def pieces(model: nn.Module, sgd: torch.optim.Optimizer) -> Any:
    """Return what this rank holds of a sharded model and of its optimizer's state."""
    held = [*model.parameters(), *model.buffers()]
    held += [value for state in sgd.state.values() for value in state.values()]
    return fingerprint([getattr(each, "_local_tensor", each) for each in held])


def sharded(rank: int, world: int, folder: Path, last: Moment, how: str = "killed") -> Any:
    """Train a sharded model, prune and save it, as :func:`trained` does copies."""
    from torch.distributed import checkpoint
    from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

    model = divided(pol.mask_weights(uneven()), True)
    sgd = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    pol.enforce_in_step(model, sgd)
    ended, done = folder / "done", 0
    if ended.exists():
        done = int(ended.read_text())
        # The state to load into has the keys of an optimizer that took a step.
        train(model, sgd, 1)
        parts = dict(zip(("model", "sgd"), get_state_dict(model, sgd), strict=True))
        checkpoint.load(parts, checkpoint_id=folder / f"saved{done}")
        set_state_dict(model, sgd, model_state_dict=parts["model"], optim_state_dict=parts["sgd"])
    found: dict[str, Any] = {"began": done}
    for number in range(done, ROUNDS):
        train(model, sgd, 2, start=10 * number)
        before, ends = pieces(model, sgd), last if number == 1 else None
        found |= outcome(lambda: pol.imp_prune(model, 0.3, optimizer=sgd), rank, ends, how)
        found["unchanged"] = pieces(model, sgd) == before
        if found["said"]:
            return found
        parts = dict(zip(("model", "sgd"), get_state_dict(model, sgd), strict=True))
        checkpoint.save(parts, checkpoint_id=folder / f"saved{number + 1}")
        ended.write_text(str(number + 1))
        distributed.barrier()
    density = pol.density(model)
    return found | {"state": state_of(model), "density": density}


CASES: dict[str, Callable[..., Any]] = {"keep_top": chosen, "imp_prune of copies": trained}
# These take longer.
SLOW: dict[str, Callable[..., Any]] = {"imp_prune of a sharded model": sharded}


def run(name: str, world: int, folder: Path, last: Moment, how: str = "killed") -> dict[int, Any]:
    """Run a case on some ranks, and return what each that lives on has found."""
    folder.mkdir(parents=True, exist_ok=True)
    meeting = folder / f"meeting {time.monotonic()}"
    children = {}
    for rank in range(world):
        child = os.fork()
        if child == 0:
            limit = timedelta(seconds=TIMEOUT if how == "killed" else SHORT)
            distributed.init_process_group(
                "gloo", init_method=f"file://{meeting}", rank=rank, world_size=world, timeout=limit
            )
            found = (CASES | SLOW)[name](rank, world, folder, last, how)
            torch.save(found, folder / f"rank{rank}.pt")
            os._exit(0)
        children[child] = rank
    for child in children:
        os.waitpid(child, 0)
    found = {}
    for rank in range(world):
        file = folder / f"rank{rank}.pt"
        if file.exists():
            found[rank] = torch.load(file, weights_only=True)
            file.unlink()
    return found


def runs(name: str, world: int, folder: Path, every: bool) -> dict[str, Any]:
    """Run a case to its end, and with a rank that ends before each exchange, or the last."""
    whole = run(name, world, folder / "whole", None)
    count = whole[0]["exchanges"]
    moments = range(count) if every else [count - 1]
    killed, resumed = {}, {}
    for last in moments:
        killed[last] = run(name, world, folder / str(last), last)
        resumed[last] = run(name, world, folder / str(last), None)
    silent = run(name, world, folder / "silent", count - 1, "silent") if every else {}
    return {"whole": whole, "killed": killed, "resumed": resumed, "silent": silent}


if __name__ == "__main__":
    torch.set_num_threads(1)
    at, which, worlds = Path(sys.argv[1]), sys.argv[2], [int(each) for each in sys.argv[3:]]
    found = {
        f"{name}, {world}": runs(name, world, at / name / str(world), which == "every")
        for name in [*CASES, *(SLOW if which == "every" and runs_fsdp else ())]
        for world in worlds
    }
    torch.save(found, at / "found.pt")
