"""What users do with a model between calls of polarity: train, run, switch modes, freeze."""

import random
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tests.machine.kinds import Setting
from tests.machine.run import Run, Step, nearly, same


def loss_of(call: Callable[..., Tensor], inputs: Sequence[Tensor]) -> Tensor:
    return (call(*inputs).float() - 1).square().mean()


def one_step(
    setting: Setting,
    call: Callable[..., Tensor],
    leaves: Sequence[nn.Parameter],
    optimizers: Sequence[torch.optim.Optimizer],
    batches: Sequence[tuple[Tensor, ...]],
) -> Tensor:
    """Take the training step of a setting: accumulation, scaling, clipping, closures."""

    def backward() -> Tensor:
        total = torch.zeros(())
        for inputs in batches:
            loss = loss_of(call, inputs) / len(batches)
            (loss * setting.scale).backward()
            total = total + loss.detach()
        for leaf in leaves:
            if leaf.grad is not None and setting.scale != 1:
                leaf.grad.div_(setting.scale)
        if setting.clip is not None:
            torch.nn.utils.clip_grad_norm_(leaves, setting.clip)
        return total

    if setting.closure:

        def closure() -> Tensor:
            optimizers[0].zero_grad()
            return backward()

        optimizers[0].step(closure)
        return torch.zeros(())
    loss = backward()
    for optimizer in optimizers:
        optimizer.step()
    return loss


def train(run: Run, draw: random.Random) -> Step | None:
    """Take one step; the gradients of an earlier ``backward`` may still be there."""
    reference, setting = run.reference, run.setting
    if not any(leaf.requires_grad for _, leaf in reference.leaves()):
        return None
    clear = draw.random() < 0.7
    batches = [run.batch() for _ in range(setting.micro_batches)]

    def act() -> Any:
        for optimizer in run.optimizers if clear else ():
            optimizer.zero_grad()
        leaves = [leaf for _, leaf in run.named_leaves()]
        loss = one_step(setting, run.model, leaves, run.optimizers, batches)
        for schedule in run.schedules:
            schedule.step()
        return loss

    def expect(loss: Tensor) -> None:
        for optimizer in reference.optimizers if clear else ():
            optimizer.zero_grad()
        leaves = [leaf for _, leaf in reference.leaves()]
        mine = one_step(setting, reference, leaves, reference.optimizers, batches)
        for schedule in reference.schedules:
            schedule.step()
        agree(run, mine, loss, "loss")
        after_backward(run, everywhere=setting.clip is not None or setting.closure)
        put_zeros_back(run)

    return Step(f"train(zero_grad={clear})", act, expect)


def agree(run: Run, mine: Tensor, theirs: Tensor, what: str) -> None:
    (nearly if run.compact_weights() else same)(mine, theirs, what)


def after_backward(run: Run, *, everywhere: bool = False) -> None:
    """Allow for another order of the sum over uses of a product, which a copy adds up first."""
    weights = run.reference.weights.values()
    several = any(len(weight.names) > 1 and weight.form == "sign_in" for weight in weights)
    for weight in weights:
        mine = len(weight.names) > 1 and weight.form == "sign_in"
        weight.rounded = weight.rounded or mine or (several and everywhere)


@torch.no_grad()
def put_zeros_back(run: Run) -> None:
    for weight in run.reference.masked().values():
        if weight.in_step and weight.enforce:
            for leaf in weight.leaves:
                leaf[weight.mask == 0] = 0


def backward(run: Run, draw: random.Random) -> Step | None:
    """Leave gradients pending, for whatever comes before the step."""
    if not any(leaf.requires_grad for _, leaf in run.reference.leaves()):
        return None
    inputs = run.batch()

    def expect(_: Any) -> None:
        loss_of(run.reference, inputs).backward()
        after_backward(run)

    return Step("backward", lambda: loss_of(run.model, inputs).backward(), expect)


def zero_grad(run: Run, draw: random.Random) -> Step:
    to_none = draw.random() < 0.5

    def clear(optimizers: list[torch.optim.Optimizer]) -> None:
        for each in optimizers:
            each.zero_grad(set_to_none=to_none)

    return Step(
        f"zero_grad(set_to_none={to_none})",
        lambda: clear(run.optimizers),
        lambda _: clear(run.reference.optimizers),
    )


def forward(run: Run, draw: random.Random) -> Step:
    inputs = run.batch()

    def expect(output: Tensor) -> None:
        agree(run, run.reference(*inputs).detach(), output, "output")

    return Step("forward", lambda: run.model(*inputs).detach(), expect)


def functional(run: Run, draw: random.Random) -> Step | None:
    """Call the model with copies of its own tensors in place of themselves.

    Not where a module has two names: torch puts back the copies.
    """
    several = any(len(weight.names) > 1 for weight in run.reference.weights.values())
    if several or run.reference.norms():
        return None
    inputs = run.batch()

    def act() -> Tensor:
        tensors = {**dict(run.model.named_parameters()), **dict(run.model.named_buffers())}
        given = {name: each.detach().clone().requires_grad_(each.requires_grad)
                 for name, each in tensors.items()}  # fmt: skip
        return torch.func.functional_call(run.model, given, inputs)

    def expect(output: Tensor) -> None:
        reference = run.reference
        before = {name: each.clone() for name, each in reference.twin.named_buffers()}
        agree(run, reference(*inputs).detach(), output.detach(), "output")
        with torch.no_grad():
            for name, each in reference.twin.named_buffers():
                each.copy_(before[name])

    return Step("functional_call", act, expect)


def switch_mode(run: Run, draw: random.Random) -> Step:
    mode = draw.random() < 0.7
    return Step(
        f"train({mode})",
        lambda: run.model.train(mode),
        lambda _: run.reference.twin.train(mode),
    )


def freeze_or_thaw(run: Run, draw: random.Random) -> Step | None:
    """Freeze one parameter, or thaw it."""
    weight = draw.choice(list(run.reference.weights.values()))
    on = not weight.leaves[0].requires_grad
    others = [w for w in run.reference.weights.values() if w is not weight]
    if not on and not any(w.leaves[0].requires_grad for w in others):
        return None

    def act() -> None:
        for leaf in run.stored(weight):
            leaf.requires_grad_(on)

    def expect(_: Any) -> None:
        for leaf in weight.leaves:
            leaf.requires_grad_(on)

    return Step(f"requires_grad_({weight.name!r}, {on})", act, expect)


OPERATIONS = {
    "train": train, "backward": backward, "zero_grad": zero_grad, "forward": forward,
    "functional": functional, "switch_mode": switch_mode, "freeze_or_thaw": freeze_or_thaw,
}  # fmt: skip
