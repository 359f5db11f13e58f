"""Store compact weights densely, and densely stored ones compactly, with their optimizers' state.

The parameters stay the same objects; they are given other memory. A public call that writes what
weights are stored as, or reads it entry by entry, runs on the dense form: what it promises of a
masked weight then holds of a compact one, because it is the same code.
"""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from typing_extensions import ParamSpec

from polarity.optimizers.dimensions import bound_to_dimensions
from polarity.optimizers.given import as_optimizers
from polarity.optimizers.replaced import note_resized
from polarity.optimizers.states import check_state_shapes, entries_of, state_of
from polarity.parametrizations.masked import MaskedWeight
from polarity.parametrizations.places import Places
from polarity.targets.search import all_targets
from polarity.targets.shards import refuse_sharded
from polarity.targets.state_hooks import store_densely
from polarity.targets.stored import chain_of
from polarity.targets.target import Target
from polarity.targets.wrappers import refuse_ddp

__all__ = [
    "compact_targets",
    "dense_leaves",
    "gather_leaves",
    "on_dense_leaves",
    "resizing",
    "spread_leaves",
]

# The calls that write to sharded models piece by piece.
_ON_SHARDS = frozenset(
    (
        "apply",
        "imp_prune",
        "load",
        "load_masks",
        "lrr_step",
        "mask_weights",
        "prune",
        "reinit_signs",
        "rescale",
        "restore_weights",
        "start_from_magnitudes",
        "start_from_mask",
        "start_from_signs",
    )
)

P = ParamSpec("P")
R = TypeVar("R")

Optimizer = torch.optim.Optimizer


@dataclass(frozen=True)
class _Memory:
    """What one parameter holds, and what optimizers remember of it."""

    leaf: Tensor
    data: Tensor
    grad: Tensor | None
    states: tuple[tuple[Optimizer, Any], ...]

    @classmethod
    def of(cls, leaf: Tensor, optimizers: Sequence[Optimizer]) -> "_Memory":
        """Return what a parameter holds now."""
        states = tuple((each, state_of(each).get(leaf)) for each in optimizers)
        return cls(leaf, leaf.data, leaf.grad, states)

    def mapped(self, change: Callable[[Tensor], Tensor]) -> "_Memory":
        """Return the same with every tensor that has an entry for each of the parameter's."""
        shape = self.data.shape
        grad = None if self.grad is None else change(self.grad.to_dense())
        states = []
        for optimizer, state in self.states:
            if state is not None:
                entries = {key: change(value) for key, value in entries_of(state, shape)}
                state = {**state, **entries}
            states.append((optimizer, state))
        return _Memory(self.leaf, change(self.data), grad, tuple(states))

    def afresh(self) -> "_Memory":
        """Return the same without state that follows no change of the parameter's dimensions."""
        states = tuple(
            (each, {} if state and bound_to_dimensions(each, state, self.data.shape) else state)
            for each, state in self.states
        )
        return _Memory(self.leaf, self.data, self.grad, states)

    def install(self) -> None:
        """Give the parameter this memory: pointers are set, and nothing is copied."""
        self.leaf.grad = None
        self.leaf.data = self.data
        self.leaf.grad = self.grad
        for optimizer, state in self.states:
            if state is not None:
                state_of(optimizer)[self.leaf] = state


def compact_targets(model: nn.Module) -> dict[str, Target]:
    """Return the weights of a model of which only survivors are stored, by plain name."""
    if not any(isinstance(m, MaskedWeight) and m.stored_places for m in model.modules()):
        return {}
    return {
        target.name: target
        for target in all_targets(model)
        if target.masking is not None and target.masking.stored_places is not None
    }


@torch.no_grad()
def spread_leaves(targets: Mapping[str, Target], optimizers: Sequence[Optimizer]) -> None:
    """Store compact weights as dense tensors with zeros outside their masks, until gathered."""
    check_state_shapes(optimizers, {name: target.stored for name, target in targets.items()})
    dense: list[_Memory] = []
    for target in targets.values():
        places = _masking(target).places
        assert places is not None
        dense += [_Memory.of(e, optimizers).mapped(places.scatter) for e in target.stored]
    for target in targets.values():
        _masking(target).spread = True
    for memory in dense:
        memory.install()


@torch.no_grad()
def gather_leaves(
    targets: Mapping[str, Target],
    multiplies: Mapping[str, bool],
    optimizers: Sequence[Optimizer],
) -> None:
    """Store some weights as the survivors of their masks, and others densely.

    Args:
        targets: masked weights, compact or not, whose masks are enforced.
        multiplies: those that are to be compact, and whether they take the sparse product; the
            others of ``targets`` are stored densely.
        optimizers: those that follow.
    """
    check_state_shapes(optimizers, {name: target.stored for name, target in targets.items()})
    found: dict[str, Places | None] = {}
    memories: list[_Memory] = []
    for name, target in targets.items():
        masking = _masking(target)
        before, now = masking.stored_places, masking.places
        after = None
        if name in multiplies:
            after = Places.of(masking.mask, multiplies=multiplies[name], known=now)
        found[name] = after
        for leaf in target.stored:
            memory = _Memory.of(leaf, optimizers)
            if (now is None) != (after is None):
                memory = memory.afresh()
            if before is not None:
                memory = memory.mapped(before.scatter)
            if after is not None:
                memory = memory.mapped(after.gather)
            memories.append(memory)
    for name, target in targets.items():
        _masking(target).places, _masking(target).spread = found[name], False
        for use in target.owners if name in multiplies else ():
            store_densely(chain_of(use.module, use.tensor_name))
    for memory in memories:
        memory.install()


@contextmanager
def resizing(targets: Iterable[Target], why: str) -> Iterator[None]:
    """Mark the stored tensors of some weights that the block gives another shape.

    Args:
        targets: the weights.
        why: what happened and what to call, for the error of an optimizer that did not follow.
    """
    shapes = [(leaf, leaf.shape) for target in targets for leaf in target.stored]
    yield
    for leaf, shape in shapes:
        if leaf.shape != shape:
            note_resized(leaf, shape, why)


@contextmanager
def dense_leaves(
    model: nn.Module,
    optimizers: Sequence[Optimizer],
    call: str,
    remedy: str = "",
    *,
    writes: bool = True,
) -> Iterator[None]:
    """Store all weights of a model densely while the block runs, and compactly again afterwards.

    If the block raises, every parameter has the memory and every optimizer the state that it had.
    Weights that the block leaves without an enforced mask are no longer compact.

    Args:
        model: any module.
        optimizers: those whose state the block changes, or may look at.
        call: the public function that does this, for errors.
        remedy: what to call instead, for the error of an optimizer that did not follow.
        writes: False if the block only reads: everything gets the memory back that it had, also
            inside DistributedDataParallel.
    """
    targets = compact_targets(model)
    if not targets:
        yield
        return
    if writes:
        refuse_ddp(model, call)
    before = [_Memory.of(leaf, optimizers) for t in targets.values() for leaf in t.stored]
    maskings = {name: _masking(target) for name, target in targets.items()}
    products = {name: bool(m.places and m.places.multiplies) for name, m in maskings.items()}
    why = f"{call} changed which entries of it survive; {remedy}"
    with resizing(targets.values(), why):
        spread_leaves(targets, optimizers)
        try:
            yield
        except BaseException:
            _put_back(maskings, before)
            raise
        if not writes:
            _put_back(maskings, before)
            return
        masked = {n: t for n, t in targets.items() if t.masking is not None}
        enforced = {n: products[n] for n, t in masked.items() if _masking(t).enforce}
        gather_leaves(masked, enforced, optimizers)


def _put_back(maskings: Mapping[str, MaskedWeight], before: Iterable[_Memory]) -> None:
    """Store weights as they were before they were spread out."""
    for masking in maskings.values():
        masking.spread = False
    for memory in before:
        memory.install()


def on_dense_leaves(function: Callable[P, R]) -> Callable[P, R]:
    """Let a public function run with every weight of its ``model`` stored densely.

    The optimizers that it is given as ``optimizer`` follow. Models that FSDP2 has sharded are
    refused, except by the functions that know pieces.
    """
    signature = inspect.signature(function)
    remedy = (
        "pass it optimizer=optimizer, or build the optimizer afterwards"
        if "optimizer" in signature.parameters
        else "call expand(model, optimizer=optimizer) before it, or build the optimizer afterwards"
    )

    @wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            given = signature.bind(*args, **kwargs).arguments
        except TypeError:
            given = {}  # the call itself says what is wrong
        model = given.get("model", given.get("module"))
        if isinstance(model, nn.Module) and function.__name__ not in _ON_SHARDS:
            refuse_sharded(model, function.__qualname__)
        if not isinstance(model, nn.Module) or not compact_targets(model):
            return function(*args, **kwargs)
        optimizers = as_optimizers(given.get("optimizer"))
        with dense_leaves(model, optimizers, function.__name__, remedy):
            return function(*args, **kwargs)

    return called


def _masking(target: Target) -> MaskedWeight:
    assert target.masking is not None
    return target.masking
