"""Writes to weights by others: through ``.data``, by checkpoints, by assignment, by resets."""

import copy
import random
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

import polarity as pol
from tests.machine.run import Run, Step
from tests.machine.training import put_zeros_back


def write_data(run: Run, draw: random.Random) -> Step:
    """Write through ``.data`` to what is stored, pruned entries included."""
    weight = draw.choice(list(run.reference.weights.values()))
    noise = torch.randn(weight.leaves[0].shape, generator=run.batches).to(weight.leaves[0].dtype)

    def add(leaves: Sequence[Tensor]) -> None:
        for leaf in leaves:
            leaf.data.add_(noise, alpha=0.1)

    def act() -> None:
        if weight.compact:
            for leaf in run.stored(weight):
                leaf.data.add_(noise[weight.mask.bool()], alpha=0.1)
        else:
            add(run.stored(weight))
        if run.handle is not None:
            run.handle.project()

    def expect(_: Any) -> None:
        add(weight.leaves)
        if weight.compact:
            run.reference.clear(weight)
        put_zeros_back(run)

    return Step(f"{weight.name}.data.add_(noise)", act, expect)


def dense_checkpoint(run: Run, draw: random.Random) -> Step:
    """Load a checkpoint of the plain model, whole or in part: masks stay, values are masked."""
    other = run.kind.fresh(seed=draw.getrandbits(16))
    state = copy.deepcopy(other.state_dict())
    tied = {name: weight.name for weight in run.reference.weights.values() for name in weight.names}
    part = draw.random() < 0.5
    dropped = {name for name in sorted({tied.get(key, key) for key in state})
               if part and draw.random() < 0.5}  # fmt: skip
    state = {key: value for key, value in state.items() if tied.get(key, key) not in dropped}

    def act() -> None:
        run.model.load_state_dict(copy.deepcopy(state), strict=not part)

    @torch.no_grad()
    def expect(_: Any) -> None:
        for name, buffer in run.reference.twin.named_buffers():
            if name in state:
                buffer.copy_(state[name])
        for name, weight in run.reference.weights.items():
            if name in state:
                run.reference.write(weight, state[name])
        put_zeros_back(run)

    return Step(f"load_state_dict(dense, {len(dropped)} left out)", act, expect)


def dense_phase(run: Run, draw: random.Random) -> Step | None:
    """Stop or start to enforce all masks by hand, as a dense phase does."""
    masked = run.reference.masked()
    if not masked or run.compact_weights():
        return None
    on = not all(weight.enforce for weight in masked.values())

    def act() -> None:
        for module in run.model.modules():
            if isinstance(module, pol.MaskedWeight):
                module.enforce = on
        if run.handle is not None:
            run.handle.project()
        for each in run.optimizers:  # dense gradients belong to the phase that ends
            each.zero_grad()

    def expect(_: Any) -> None:
        for weight in masked.values():
            weight.enforce = on
        put_zeros_back(run)
        for each in run.reference.optimizers:
            each.zero_grad()

    return Step(f"enforce = {on}", act, expect)


def assign(run: Run, draw: random.Random) -> Step | None:
    """Assign a tensor to a weight by its plain name: it is written through what is attached."""
    converted = [w for w in run.reference.weights.values() if w.form != "plain"]
    if not converted:
        return None
    weight = draw.choice(converted)
    value = torch.randn(weight.leaves[0].shape, generator=run.batches).to(weight.leaves[0].dtype)
    path, _, last = draw.choice(weight.names).rpartition(".")

    def act() -> None:
        setattr(run.model.get_submodule(path), last, value.clone())

    def expect(_: Any) -> None:
        with torch.no_grad():
            run.reference.write(weight, value)

    return Step(f"{path}.{last} = tensor", act, expect)


def reset(run: Run, draw: random.Random) -> Step | None:
    """Reset one layer, or the whole model: masks stay, and the plain layer draws the same."""
    masked = run.reference.masked()
    layers = sorted({name.rpartition(".")[0] for name in masked}) if masked else []
    layers = [path for path in layers if _method(run.reference.twin.get_submodule(path))]
    if not layers:
        return None
    path = draw.choice(layers)

    def act() -> None:
        _method(run.model.get_submodule(path))()

    def expect(_: Any) -> None:
        plain = run.kind.fresh().train(run.model.training)
        versions = _versions(plain)
        _method(plain.get_submodule(path))()
        _take(run, plain, versions)

    return Step(f"{path}.reset_parameters()", act, expect)


def reinitialize(run: Run, draw: random.Random) -> Step:
    """Give the model new values: every module draws as it does when it is built."""
    seed = draw.choice([None, draw.getrandbits(32)])

    def generator() -> torch.Generator | None:
        return None if seed is None else torch.Generator().manual_seed(seed)

    def expect(_: Any) -> None:
        plain = run.kind.fresh().train(run.model.training)
        versions = _versions(plain)
        drawn = int(torch.randint(2**62, (), generator=generator()))
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(drawn)
            plain.apply(lambda module: method() if (method := _method(module)) else None)
        _take(run, plain, versions)

    return Step(
        f"reinitialize(seed={seed})",
        lambda: pol.reinitialize(run.model, generator=generator()),
        expect,
    )


def _method(module: nn.Module) -> Any:
    names = ("reset_parameters", "_reset_parameters")
    return next((getattr(module, name) for name in names if hasattr(module, name)), None)


def _versions(plain: nn.Module) -> dict[str, int]:
    tensors = {**dict(plain.named_parameters()), **dict(plain.named_buffers())}
    return {name: each._version for name, each in tensors.items()}


@torch.no_grad()
def _take(run: Run, plain: nn.Module, versions: dict[str, int]) -> None:
    """Write what a plain model drew anew through masks, factors and interpolation."""
    tensors = {**dict(plain.named_parameters()), **dict(plain.named_buffers())}
    fresh = {name: each for name, each in tensors.items() if each._version != versions[name]}
    for name, buffer in run.reference.twin.named_buffers():
        if name in fresh:
            buffer.copy_(fresh[name])
    for name, weight in run.reference.weights.items():
        if name in fresh:
            run.reference.write(weight, fresh[name])


OPERATIONS = {
    "write_data": write_data, "dense_checkpoint": dense_checkpoint, "dense_phase": dense_phase,
    "assign": assign, "reset": reset, "reinitialize": reinitialize,
}  # fmt: skip
