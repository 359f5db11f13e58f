"""AC/DC: dense and sparse phases in turn."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal, TypeAlias

import torch
from torch import nn

from polarity._bits.random import seed_from, undrawn_on_error
from polarity._checks import (
    check_choice,
    check_flag,
    check_fraction,
    check_integer,
    check_scope,
    check_ties,
    check_type,
)
from polarity._running import outside_inference_mode
from polarity.attach.masks import attach_masks
from polarity.dense_to_sparse.dense_gradients import close, masking_of, open_up
from polarity.dense_to_sparse.exchange import forget_gradients, prune_smallest
from polarity.dense_to_sparse.report import LayerUpdate, UpdateReport
from polarity.dense_to_sparse.schedule import (
    StepCount,
    check_seed,
    check_state,
    computed_share,
    trained_weights,
)
from polarity.optimizers.given import Optimizers, as_optimizers
from polarity.pruning.plan import HowMany, Scope
from polarity.selection.ties import Ties
from polarity.targets.replicas import replicas_of
from polarity.targets.shards import refuse_sharded
from polarity.targets.target import refuse_compact
from polarity.targets.wrappers import unwrapped

__all__ = ["ACDC", "Reset", "acdc_switches"]

Reset: TypeAlias = Literal["dense", "both", "keep"]

# The epochs at which a phase begins, sparse and dense in turn, and how many there are in all.
_CALENDARS: dict[str, tuple[tuple[int, ...], int]] = {
    "imagenet": ((10, 15, 20, 25, 30, 35, 40, 45, 50, 55, 60, 65, 70, 75, 85), 100),
    "cifar10": ((10, 30, 50, 70, 90, 110, 130, 150, 170), 200),
}


def acdc_switches(name: Literal["imagenet", "cifar10"], steps: int) -> tuple[int, ...]:
    """Return after how many steps the phases of a published calendar begin, for ``ACDC``.

    Training is dense up to the first number, sparse up to the second, and so on. The published
    epochs are scaled by fractions of the run and rounded to whole steps:

    - ``"imagenet"``, of 100 epochs: dense for 10, then 5 sparse and 5 dense ones in turn, dense
      from 75 and sparse from 85.
    - ``"cifar10"``, of 200 epochs: dense for 10, then 20 sparse and 20 dense ones in turn, sparse
      from 170.

    Args:
        name: which calendar.
        steps: the number of optimizer steps of the whole run, epochs times steps per epoch.

    Raises:
        ValueError: if ``name`` is another word, or so few steps leave a phase without any.
        TypeError: if ``steps`` is not an int.

    Example:
        >>> acdc_switches("cifar10", steps=200 * 391)[:3]
        (3910, 11730, 19550)
        >>> acdc_switches("imagenet", steps=30 * 40)[:4]  # 30 epochs: the first phase has 3
        (120, 180, 240, 300)

    Source: the configurations of IST-DASLab/ACDC for ResNet-50 and ResNet-20.
    """
    check_choice("name", name, tuple(_CALENDARS))
    check_integer("steps", steps, at_least=1)
    epochs, total = _CALENDARS[name]
    switches = tuple((2 * epoch * steps + total) // (2 * total) for epoch in epochs)
    if any(after <= before for before, after in pairwise((0, *switches, steps))):
        raise ValueError(
            f"steps={steps}, expected more: a phase of the calendar {name!r} would have no step"
        )
    return switches


class ACDC:
    r"""Alternate between dense and sparse phases: AC/DC.

    Training starts dense. At the start of a sparse phase the weights of largest magnitude stay, of
    all layers together, and exactly as many as ``density`` says; the others are zero until the
    phase ends. At the start of a dense phase they re-enter at zero, and every entry is trained. On
    a Sign-In weight they re-enter as :math:`m = \sqrt\beta, v = 0`, from which they can grow.

    Call :meth:`step` after each ``optimizer.step()``. A switch is made at the start of the next
    training step, by the first forward pass in training mode that records gradients, so that an
    evaluation between two phases sees the network that was trained. With
    ``torch.compile(fullgraph=True)``, which takes no such change, and in a loop that calls parts of
    the model or trains in evaluation mode, call :meth:`switch` before the forward pass.

    Args:
        model: any module; without masks, the weights that ``optimizer`` trains are masked first.
            From here on, its masks are remembered and not applied. Weights whose masks are only
            remembered already, as in a checkpoint of a dense phase, keep all values.
        optimizer: the optimizer that trains it, or a sequence of them; the steps of the first are
            counted. Masked weights that none of them holds keep their masks.
        density: of the sparse phases, in [0, 1].
        switches: after how many steps each phase but the first begins, sparse and dense in turn,
            such as :func:`acdc_switches` gives.
        momentum: when the optimizers' averages, those of all parameters, and step counts are
            zeroed: at the start of ``"dense"`` phases, as published; of ``"both"``; or ``"keep"``.
            What they remember of pruned entries is zeroed in any case.
        scope: ``"global"`` ranks all weights together; ``"layer"`` gives each the same density.
        ties: which of equal entries survive, ``"index"`` or ``"random"``.
        generator: source of the seed of ``ties="random"``; by default the global one of the CPU.

    Attributes:
        report: the :class:`UpdateReport` of the last switch, None before the first. That of a
            sparse phase compares its masks with those of the sparse phase before.
        pending: whether the next training step begins with a switch.

    Raises:
        ValueError: if an argument is out of range, or the optimizers train no weight that can be
            masked, or a compact one (:func:`polarity.expand` makes it masked); nothing is changed.
            A switch to a dense phase raises it for weights that were compacted in between. After
            the last switch, to a sparse phase, they can be.
        TypeError: if an argument is of another type.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> import polarity as pol
        >>> model = nn.Linear(10, 10)
        >>> sgd = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        >>> schedule = pol.dense_to_sparse.ACDC(model, sgd, density=0.2, switches=(2, 4, 6))
        >>> densities = []
        >>> for _ in range(8):
        ...     sgd.zero_grad()
        ...     model(torch.randn(2, 10)).square().sum().backward()
        ...     densities.append(schedule.density())
        ...     sgd.step()
        ...     _ = schedule.step()
        >>> densities
        [1.0, 1.0, 0.2, 0.2, 1.0, 1.0, 0.2, 0.2]

    Source: Peste et al. (2021), *AC/DC: alternating compressed/decompressed training of deep neural
    networks*, Algorithm 1, and IST-DASLab/ACDC. That code prunes everything up to a threshold, so
    that of equal magnitudes all go; counts are exact here.
    """

    @outside_inference_mode
    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizers,
        *,
        density: float,
        switches: Sequence[int],
        momentum: Reset = "dense",
        scope: Scope = "global",
        ties: Ties = "index",
        generator: torch.Generator | None = None,
    ) -> None:
        check_fraction("density", density)
        check_choice("momentum", momentum, ("dense", "both", "keep"))
        check_scope(scope)
        check_ties(ties)
        self._switches = _checked(switches)
        optimizers = as_optimizers(optimizer)
        refuse_sharded(model, type(self).__name__)
        found = trained_weights(model, optimizers, type(self).__name__)
        refuse_compact(found, type(self).__name__)
        with undrawn_on_error(generator):
            self._seed = seed_from(generator) if ties == "random" else None
        attach_masks(found)
        self.report: UpdateReport | None = None
        self._fresh: UpdateReport | None = None
        self._optimizers, self._found, self._momentum = optimizers, found, momentum
        self._wanted = HowMany(density=density, scope=scope, ties=ties)
        self._replicas = replicas_of(model)
        self._sparse = False
        # Not a decorator: it would bring the compiler with every `import polarity`.
        self._switch_untraced = torch.compiler.disable(self._switch)  # type: ignore[no-untyped-call]
        self._open()
        self._steps = StepCount(optimizers[0])
        self.pending = self._is_sparse_after(0)
        self._hook: Any = unwrapped(model).register_forward_pre_hook(_BeforeForward(self))

    def step(self) -> UpdateReport | None:
        """Count the optimizer step just taken.

        Returns:
            The :class:`UpdateReport` of the switch with which this step began, or None.

        Raises:
            RuntimeError: if a switch was pending when the optimizer took its step, because no
                forward pass had made it. The step is not counted until :meth:`switch` is called.
        """
        if not self._steps.due:
            return None
        if self.pending:
            raise RuntimeError(
                f"the switch before step {self._steps.taken + 1} was not made, because the model "
                "had no forward pass in training mode, through its own call, that records "
                "gradients: call schedule.switch() at the start of each training step"
            )
        self.pending = self._is_sparse_after(self._steps.count()) != self._sparse
        report, self._fresh = self._fresh, None
        return report

    def switch(self) -> None:
        """Make a switch that is pending now; without one, do nothing."""
        if self.pending:
            self._switch_untraced()

    def _switch(self) -> None:
        """Go from the phase of the step before to the other one."""
        refuse_compact(self._found, type(self).__name__)
        taken = self._steps.taken
        notes: tuple[str, ...] = ()
        if self._sparse:
            rows = tuple(
                LayerUpdate(name, tuple(each.shape), total, 0, total - each.survivors)
                for name, each in self._found.items()
                for total in (each.shape.numel(),)
            )
            self._open()
        else:
            seed = None if self._seed is None else self._seed + taken
            rows, notes = prune_smallest(
                self._found, self._wanted, self._optimizers, seed, self._replicas
            )
        self._sparse = not self._sparse
        if self._momentum == "both" or (self._momentum == "dense" and not self._sparse):
            forget_gradients(self._optimizers)
        self.pending = False
        what = "sparse" if self._sparse else "dense"
        self.report = UpdateReport(taken, what, rows, notes)
        self._fresh = self.report

    def density(self) -> float:
        """Return the fraction of entries that forward computes with: 1 in a dense phase."""
        return computed_share(self._found.values())

    def state_dict(self) -> dict[str, Any]:
        """Return the steps taken, the phase and the seed; the model holds masks and weights."""
        return {
            "schedule": type(self).__name__,
            "step": self._steps.taken,
            "sparse": self._sparse,
            "seed": self._seed,
        }

    @outside_inference_mode
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state of :meth:`state_dict`, before or after the model loads its own.

        A switch that was pending is made at the start of the next training step.

        Raises:
            ValueError: if it is the state of another schedule; nothing is changed.
            TypeError: if it is not such a state.
        """
        taken = check_state(state, type(self).__name__, ("sparse", "seed"))
        check_flag("state['sparse']", state["sparse"])
        check_seed(state["seed"], self._seed)
        if not state["sparse"]:
            refuse_compact(self._found, type(self).__name__)
        self._steps.restart(taken)
        self._sparse, self._seed, self._fresh = bool(state["sparse"]), state["seed"], None
        if self._sparse:
            close(self._found.values())
        else:
            self._open()
        self.pending = self._is_sparse_after(taken) != self._sparse

    def remove(self) -> None:
        """Take the hooks off the model and the optimizer; the phase stays what it is."""
        self._hook.remove()
        self._steps.remove()
        self.pending = False

    def _open(self) -> None:
        """Begin a dense phase for weights whose masks are applied; others are in one already."""
        open_up(each for each in self._found.values() if masking_of(each).enforce)

    def _is_sparse_after(self, taken: int) -> bool:
        """Return whether the step that follows this number of steps is one of a sparse phase."""
        return bisect_right(self._switches, taken) % 2 == 1


class _BeforeForward:
    """A forward pre-hook that makes a pending switch; a copy of the model gets one that does not.

    An evaluation, and a pass that only computes running statistics, are no training steps.
    """

    def __init__(self, schedule: ACDC | None = None) -> None:
        self.schedule = schedule

    def __call__(self, module: nn.Module, args: Any) -> None:
        schedule = self.schedule
        if schedule is None or not schedule.pending:
            return
        if module.training and torch.is_grad_enabled():
            schedule.switch()

    def __deepcopy__(self, memo: Any) -> "_BeforeForward":
        return _BeforeForward()


def _checked(switches: Sequence[int]) -> tuple[int, ...]:
    """Return the numbers of steps at which phases begin, after a look at each."""
    example = 'pol.dense_to_sparse.acdc_switches("imagenet", steps), for instance'
    check_type("switches", switches, (tuple, list), f"a sequence of ints: {example}")
    for place, each in enumerate(switches):
        check_integer(f"switches[{place}]", each, at_least=0)
    if not switches or any(after <= before for before, after in pairwise(switches)):
        raise ValueError(f"switches={switches!r}, expected numbers that increase: {example}")
    return tuple(switches)
