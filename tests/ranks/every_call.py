"""Every public call on models that FSDP2 has divided: what it does, on each rank."""

import io
import re
import tempfile
from collections.abc import Mapping
from contextlib import redirect_stdout
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn

import polarity as pol
from tests.laws.calls import Call, public_calls
from tests.laws.refusals import Run
from tests.laws.world import World, plain_net
from tests.models import generator
from tests.ranks.sharded import divided

# What was found, the call by its name, and what to do instead.
_FOUND = re.compile(r"sharded \(DTensor\)|fully_shard")
_REMEDY = re.compile(r"\b(call|give|pass|build|load)\b", re.IGNORECASE)


class ShardedWorld(World):
    """What calls are given, where every model is divided."""

    # The state of a tracker is that of a whole model.
    unseen = ("_make_folder", "tracker")

    @cached_property
    def run(self) -> Run:
        model = divided(pol.mask_weights(plain_net()).eval(), True)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01, weight_decay=0.1)
        self._handle = pol.enforce_in_step(model, optimizer)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
        start = pol.RewindPoint.capture(model, optimizer, scheduler)
        run = Run(model, optimizer, scheduler, start)
        run.train()
        pol.imp_prune(model, density=0.6, optimizer=optimizer)
        run.train()
        pol.density(model)
        return run

    @cached_property
    def plain(self) -> nn.Sequential:
        return divided(plain_net(), True)

    @cached_property
    def signed(self) -> nn.Sequential:
        return divided(pol.sign_in(plain_net(), beta=0.5), True)

    @cached_property
    def signed_optimizer(self) -> torch.optim.Optimizer:
        optimizer = torch.optim.SGD(self.signed.parameters(), lr=0.1, momentum=0.9)
        pol.enforce_in_step(self.signed, optimizer)
        self.signed(torch.randn(8, 6, generator=generator(3))).square().sum().backward()
        optimizer.step()
        return optimizer

    @cached_property
    def init(self) -> dict[str, Tensor]:
        """Whole tensors, for the calls that take tensors and no model."""
        return {n: p.detach() for n, p in plain_net().named_parameters()}

    @cached_property
    def ticket(self) -> pol.SignedMask:
        model = plain_net()
        pol.imp_prune(model, density=0.5)
        return pol.signed_mask(model)

    @cached_property
    def point_file(self) -> str:
        path = self.folder / "point.safetensors"
        pol.RewindPoint.capture(plain_net()).save(path)
        return str(path)

    @cached_property
    def model_file(self) -> str:
        path = self.folder / "model.safetensors"
        pol.save(plain_net(), path)  # the forms of `plain`
        return str(path)

    @cached_property
    def enforcement(self) -> pol.StepEnforcement:
        _ = self.run
        return self._handle

    @cached_property
    def compact(self) -> nn.Sequential:
        model = plain_net()
        pol.imp_prune(model, density=0.5)
        pol.compact(model, break_even=1.0)
        return divided(model, True)

    @cached_property
    def normed(self) -> nn.Sequential:
        return divided(pol.interpolate_norms(plain_net(), generator=generator(5)), True)


class ThresholdedWorld(ShardedWorld):
    """The same with soft thresholds, which were attached before the model was divided."""

    @cached_property
    def run(self) -> Run:
        model = plain_net().eval()
        pol.dense_to_sparse.threshold_weights(model, None, decay=0.1)
        divided(model, True)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
        return Run(model, optimizer, scheduler, pol.RewindPoint({}, None, None))


def outcome(call: Call, argument: str, world: World) -> dict[str, Any]:
    """Make a call with one of its arguments besides those it needs, and say what became of it.

    Returns:
        ``error``: None if it returned; ``unchanged``: whether all that it was given is as it was.
    """
    torch.manual_seed(0)
    try:
        given = call.given(world, argument) if argument else {}
        function = call.function(world)
    except (TypeError, ValueError) as error:  # what it is a method of could not be made
        return {"error": f"{type(error).__name__}: {error}", "unchanged": True}
    before = world.everything(given)
    text = None
    try:
        with redirect_stdout(io.StringIO()):
            function(**given)
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
    return {"error": text, "unchanged": world.everything(given) == before}


def is_refusal(name: str, error: str) -> bool:
    """Return whether an error names the call and says what was found and what to do."""
    kind, _, text = error.partition(": ")
    right = kind in ("TypeError", "ValueError")
    named = any(part in text for part in name.split("."))
    return bool(right and named and _FOUND.search(text) and _REMEDY.search(text))


def outcomes(table: Mapping[str, Call], *, all_arguments: bool) -> dict[str, Any]:
    """Make every public call on this rank while the others make it too, until one gets stuck.

    A world is used again for as long as calls leave it as it is.
    """
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        world: World = ShardedWorld(lambda: Path(folder))
        for name in public_calls():
            if name == "dense_to_sparse.extract_soft_mask":
                world = ThresholdedWorld(lambda: Path(folder))
            found[name] = {}
            if name not in table:
                found[name][""] = {"error": "no entry in the tables of laws", "unchanged": True}
                continue
            arguments = [*table[name].args] or [""]
            if name == "enforce_in_step":  # what builds a world
                continue
            for argument in arguments if all_arguments else arguments[:1]:
                found[name][argument] = here = outcome(table[name], argument, world)
                everywhere = [False] * distributed.get_world_size()
                try:  # in the group's timeout, if another rank waits elsewhere
                    distributed.all_gather_object(everywhere, here["unchanged"])
                except RuntimeError as stuck:
                    here["error"] = f"stuck: {here['error']} {stuck}"
                    return found
                if not all(everywhere) or isinstance(world, ThresholdedWorld):
                    world = ShardedWorld(lambda: Path(folder))
    return found
