"""All that a public call may be given, and that a bad call must not change."""

from collections.abc import Callable
from dataclasses import fields, is_dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import polarity as pol
from polarity._shards import piece_of
from tests.laws.refusals import Run, in_the_middle, wide
from tests.models import generator


def plain_net() -> nn.Sequential:
    """Build a network of the names and shapes of :func:`in_the_middle`."""
    with torch.random.fork_rng(devices=[]):
        model = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Linear(5, 3))
    draw = generator(4)
    for parameter in model.parameters():
        nn.init.normal_(parameter, generator=draw)
    return model


class World:
    """What calls are given, each made when it is first asked for."""

    # What is not compared.
    unseen: tuple[str, ...] = ("_make_folder",)

    def __init__(self, folder: Callable[[], Path]) -> None:
        self._make_folder = folder

    @cached_property
    def run(self) -> Run:
        return in_the_middle()

    @property
    def model(self) -> nn.Sequential:
        """A masked model with an optimizer, a scheduler and a rewind point."""
        return self.run.model

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        return self.run.optimizer

    @property
    def scheduler(self) -> torch.optim.lr_scheduler.LRScheduler:
        return self.run.scheduler

    @property
    def start(self) -> pol.RewindPoint:
        return self.run.start

    @cached_property
    def now(self) -> pol.RewindPoint:
        return pol.RewindPoint.capture(self.model)

    @property
    def scores(self) -> dict[str, Tensor]:
        return self.run.scores

    @property
    def init(self) -> dict[str, Tensor]:
        return self.run.init

    @property
    def weights(self) -> dict[str, Tensor]:
        """The masked weights alone."""
        return {name: self.init[name] for name in ("0.weight", "2.weight")}

    @cached_property
    def masks(self) -> dict[str, Tensor]:
        return {"0.weight": torch.ones(5, 6), "2.weight": torch.ones(3, 5) > 0}

    @cached_property
    def plain(self) -> nn.Sequential:
        return plain_net()

    @cached_property
    def signed(self) -> nn.Sequential:
        """A Sign-In model."""
        return pol.sign_in(plain_net(), beta=0.5)

    @cached_property
    def signed_optimizer(self) -> torch.optim.Optimizer:
        """The optimizer of the Sign-In model, after a step."""
        optimizer = torch.optim.SGD(self.signed.parameters(), lr=0.1, momentum=0.9)
        self.signed(torch.randn(8, 6, generator=generator(3))).square().sum().backward()
        optimizer.step()
        return optimizer

    @cached_property
    def compact(self) -> nn.Sequential:
        """A model of compact weights."""
        model = plain_net()
        pol.imp_prune(model, density=0.5)
        pol.compact(model, break_even=1.0)
        return model

    @cached_property
    def compact_optimizer(self) -> torch.optim.Optimizer:
        """The optimizer of the compact model."""
        return torch.optim.SGD(self.compact.parameters(), lr=0.1, momentum=0.9)

    @cached_property
    def schedule(self) -> pol.RescaleSchedule:
        return pol.RescaleSchedule(self.signed, every=2, until=9)

    @cached_property
    def rounds(self) -> pol.PruneRounds:
        given = {"rewind": "weights", "optimizer": self.optimizer, "scheduler": self.scheduler}
        return pol.PruneRounds(self.model, 0.2, every=2, rounds=2, point=self.start, **given)

    @cached_property
    def rigl(self) -> pol.dense_to_sparse.RigL:
        return pol.dense_to_sparse.RigL(self.model, self.optimizer, every=3, end=9)

    @cached_property
    def acdc(self) -> pol.dense_to_sparse.ACDC:
        options = {"density": 0.3, "switches": (2, 4)}
        return pol.dense_to_sparse.ACDC(self.model, self.optimizer, **options)

    @cached_property
    def gradual(self) -> pol.dense_to_sparse.GradualMagnitude:
        options = {"density": 0.3, "begin": 0, "end": 8, "every": 2}
        return pol.dense_to_sparse.GradualMagnitude(self.model, self.optimizer, **options)

    @cached_property
    def normed(self) -> nn.Sequential:
        return pol.interpolate_norms(plain_net(), generator=generator(5))

    @cached_property
    def initial_norms(self) -> dict[str, Tensor]:
        return {"1.weight": torch.ones(5), "1.bias": torch.zeros(5)}

    @cached_property
    def enforcement(self) -> pol.StepEnforcement:
        return pol.enforce_in_step(self.model, self.optimizer)

    @cached_property
    def masked_form(self) -> pol.MaskedWeight:
        return pol.MaskedWeight(torch.ones(5, 6))

    @cached_property
    def signed_form(self) -> pol.SignInMW:
        return pol.SignInMW(torch.ones(5, 6))

    @cached_property
    def soft_form(self) -> pol.SoftThreshold:
        return pol.SoftThreshold()

    @cached_property
    def norm_form(self) -> pol.NormInterp:
        return pol.NormInterp(torch.ones(5, 6))

    @cached_property
    def other_optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(plain_net().parameters(), lr=0.1, momentum=0.9)

    @cached_property
    def other_point(self) -> pol.RewindPoint:
        return pol.RewindPoint.capture(nn.Sequential(nn.Linear(2, 2)))

    @cached_property
    def ticket(self) -> pol.SignedMask:
        return pol.signed_mask(self.model)

    @cached_property
    def tracker(self) -> pol.SignTracker:
        tracker = pol.SignTracker(self.model)
        tracker.mark("warm-up")
        tracker.step()
        return tracker

    @cached_property
    def epsilon(self) -> pol.Epsilon:
        return pol.Epsilon(0.5)

    @cached_property
    def delta(self) -> pol.Delta:
        return pol.Delta(0.5)

    @cached_property
    def phi(self) -> pol.Phi:
        return pol.Phi(0.1)

    @cached_property
    def batches(self) -> list[tuple[Tensor, Tensor]]:
        draw = generator(6)
        return [(torch.randn(4, 6, generator=draw), wide(0.5, (4, 3))) for _ in range(2)]

    @cached_property
    def compressed(self) -> dict[str, Tensor]:
        """The state of a compressed network."""
        model = plain_net().eval()
        pol.deploy.compress(model, torch.ones(2, 6), break_even=1.0, measure=lambda a, b: (2, 1))
        return model.state_dict()

    @cached_property
    def folder(self) -> Path:
        return self._make_folder()

    @cached_property
    def text_file(self) -> Path:
        path = self.folder / "notes.txt"
        path.write_text("no tensors here")
        return path

    @cached_property
    def ticket_file(self) -> str:
        self.ticket.save(self.folder / "ticket.safetensors")
        return str(self.folder / "ticket.safetensors")

    @cached_property
    def point_file(self) -> str:
        self.start.save(self.folder / "point.safetensors")
        return str(self.folder / "point.safetensors")

    @cached_property
    def model_file(self) -> str:
        pol.save(self.model, self.folder / "model.safetensors")
        return str(self.folder / "model.safetensors")

    @property
    def new_file(self) -> str:
        return str(self.folder / "new.safetensors")

    def everything(self, arguments: object) -> list[Any]:
        """Return all there is, by value: arguments, models, optimizers, files, random state."""
        made = [each for name, each in vars(self).items() if name not in self.unseen]
        made += [arguments, torch.get_rng_state()]
        return [snapshot(made, {}), self._files()]

    def _files(self) -> list[tuple[str, bytes]]:
        paths = self.folder.rglob("*") if "folder" in vars(self) else []
        return [(str(path), path.read_bytes()) for path in sorted(paths) if path.is_file()]


def snapshot(thing: Any, seen: dict[int, Any]) -> Any:
    """Return a thing by value: tensors by their bytes, modules and optimizers by all they hold."""
    if isinstance(thing, Tensor):
        kept = piece_of(thing).detach().contiguous()
        return thing.requires_grad, str(thing.dtype), tuple(thing.shape), _bytes(kept)
    if isinstance(thing, (int, float, str, bytes, type(None), type, Path)):
        return repr(thing)
    if id(thing) in seen:
        return "seen"
    seen[id(thing)] = thing  # kept, so that its id stays its own
    if isinstance(thing, dict):
        return [(repr(key), snapshot(value, seen)) for key, value in thing.items()]
    if isinstance(thing, (list, tuple)):
        return [snapshot(each, seen) for each in thing]
    if isinstance(thing, torch.Generator):
        return snapshot(thing.get_state(), seen)
    if isinstance(thing, nn.Module):
        modules = [(name, type(m), m.training) for name, m in thing.named_modules()]
        hooks = [len(m._forward_pre_hooks) for m in thing.modules()]
        tensors = dict(thing.named_parameters()) | dict(thing.named_buffers())
        gradients = [snapshot(each.grad, seen) for each in thing.parameters()]
        extra = [(m.enforce, m.in_step) for m in thing.modules() if isinstance(m, pol.MaskedWeight)]
        leaves = [id(each) for each in thing.parameters()]
        return [modules, hooks, leaves, snapshot(tensors, seen), gradients, repr(extra)]
    if isinstance(thing, torch.optim.Optimizer):
        return [snapshot(thing.param_groups, seen), snapshot(dict(thing.state), seen)]
    if hasattr(thing, "state_dict"):
        return snapshot(thing.state_dict(), seen)
    if is_dataclass(thing):
        return [snapshot(getattr(thing, each.name), seen) for each in fields(thing)]
    return id(thing)


def _bytes(values: Tensor) -> bytes:
    return values.reshape(-1).view(torch.uint8).numpy().tobytes() if values.numel() else b""
