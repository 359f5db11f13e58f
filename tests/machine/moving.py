"""Copies, dtypes and checkpoints: the model goes on as another object, with equal contents."""

import copy
import random
import tempfile
from typing import Any

import torch
from torch import nn

import polarity as pol
from tests.machine.run import Run, Step, recompact


def convert(run: Run, draw: random.Random) -> Step:
    """To float64 and back, which is exact, or to bfloat16 and back, which rounds."""
    own = run.reference.weights[run.kind.weights[0]].leaves[0].dtype
    other = draw.choice([torch.float64, torch.bfloat16])
    swap = draw.random() < 0.3 and run.handle is None

    def act() -> None:
        torch.__future__.set_swap_module_params_on_conversion(swap)
        try:
            run.model.to(other).to(own)
        finally:
            torch.__future__.set_swap_module_params_on_conversion(False)

    @torch.no_grad()
    def expect(_: Any) -> None:
        run.reference.twin.to(other).to(own)
        if run.reference.stream is not None:
            value = torch.tensor(run.reference.stream.alpha).to(other).to(own)
            run.reference.stream.alpha = float(value)
        for weight in run.reference.weights.values():
            initial = weight.initial
            for each in (*weight.leaves, *(leaf.grad for leaf in weight.leaves),
                         *([initial] if initial is not None else [])):  # fmt: skip
                if each is not None:
                    each.copy_(each.to(other).to(own))

    return Step(f"to({other}) and back, swap={swap}", act, expect)


def deepcopy(run: Run, draw: random.Random) -> Step:
    """Continue with a deepcopy; its optimizers take over what the old ones remember."""
    old = run.model

    def act() -> None:
        new = copy.deepcopy(run.model)
        run.move_to(new)
        for module in old.modules():  # what is left behind must have no part in the copy
            for parameter in module.parameters(recurse=False):
                parameter.data.fill_(7.0)

    return Step("deepcopy(model)", act)


def load_optimizers(run: Run, draw: random.Random) -> Step:
    def reload(optimizers: list[torch.optim.Optimizer]) -> None:
        for each in optimizers:
            each.load_state_dict(copy.deepcopy(each.state_dict()))

    return Step(
        "optimizer.load_state_dict(its own)",
        lambda: reload(run.optimizers),
        lambda _: reload(run.reference.optimizers),
    )


def twin_of(run: Run) -> nn.Module:
    """Return a fresh model with the same things attached as the run's, but other values."""
    fresh = run.kind.fresh(seed=99)
    fresh.train(run.model.training)
    masked = run.reference.masked()
    if masked:
        for name, weight in masked.items():
            leaf = fresh.get_parameter(name).requires_grad_()
            assert leaf.shape == weight.mask.shape
        pol.mask_weights(fresh, targets=tuple(masked))
    if products := [name for name, weight in masked.items() if weight.form == "sign_in"]:
        pol.sign_in(fresh, targets=tuple(products))
    if compact := run.compact_weights():
        recompact(fresh, None, compact)
    if norms := tuple(run.reference.norms()):
        pol.interpolate_norms(fresh, targets=norms, generator=torch.Generator().manual_seed(1))
    return fresh


def like(run: Run, model: nn.Module) -> nn.Module:
    """Give a model what a ``state_dict`` does not hold: modes, requires_grad, a stream at rest."""
    modes = {name: module.training for name, module in run.model.named_modules()}
    for name, module in model.named_modules():
        module.training = modes[name]
    frozen = {key: p.requires_grad for key, p in run.model.named_parameters()}
    for key, parameter in model.named_parameters():
        parameter.requires_grad_(frozen[key])
    if run.reference.stream is not None and not run.reference.stream.redraw:
        alpha = next(iter(pol.norm_alpha(model).values()))
        pol.set_norm_alpha(model, float(alpha))
    return model


def state_dict_round_trip(run: Run, draw: random.Random) -> Step:
    """Load into a fresh model with the same attachments, and continue with it."""
    tied = any(len(weight.names) > 1 for weight in run.reference.weights.values())
    assign = draw.random() < 0.3 and not tied  # torch's assign takes ties apart

    def act() -> None:
        state = copy.deepcopy(run.model.state_dict())
        fresh = twin_of(run)
        missing = fresh.load_state_dict(state, strict=True, assign=assign)
        assert not missing.missing_keys
        assert not missing.unexpected_keys
        run.move_to(like(run, fresh))

    return Step(f"load_state_dict(assign={assign})", act)


def save_and_load(run: Run, draw: random.Random) -> Step:
    """Write the model to a file, read it into a fresh one, and continue with that."""

    def act() -> None:
        with tempfile.TemporaryDirectory() as folder:
            pol.save(run.model, f"{folder}/model.safetensors")
            fresh = run.kind.fresh(seed=99).train(run.model.training)
            pol.load(fresh, f"{folder}/model.safetensors")
        if compact := run.compact_weights():
            recompact(fresh, None, compact)
        run.move_to(like(run, fresh))

    return Step("save, load into a fresh model", act)


OPERATIONS = {
    "convert": convert, "deepcopy": deepcopy, "load_optimizers": load_optimizers,
    "state_dict_round_trip": state_dict_round_trip, "save_and_load": save_and_load,
}  # fmt: skip
