"""Gradual magnitude pruning: a network that starts dense ends at a density, by a cubic curve."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from polarity._bits.random import seed_from, undrawn_on_error
from polarity._checks import (
    check_fraction,
    check_integer,
    check_number,
    check_scope,
    check_ties,
)
from polarity._running import outside_inference_mode
from polarity.attach.masks import attach_masks
from polarity.dense_to_sparse.exchange import prune_smallest
from polarity.dense_to_sparse.report import UpdateReport
from polarity.dense_to_sparse.schedule import (
    Every,
    StepCount,
    check_seed,
    check_state,
    computed_share,
    trained_weights,
)
from polarity.optimizers.given import Optimizers, as_optimizers
from polarity.pruning.plan import HowMany, Scope
from polarity.selection.ties import Ties
from polarity.targets.dense_leaves import dense_leaves
from polarity.targets.replicas import replicas_of

__all__ = ["GradualMagnitude"]

_REMEDY = "give the schedule all optimizers that train the model"


class GradualMagnitude:
    r"""Prune the smallest weights little by little, along a cubic curve.

    After step :math:`t` of :math:`t_0` = ``begin``, ``begin + every``, … and of :math:`t_1` =
    ``end`` the fraction of live entries is

    .. math:: d_t = d_f + (d_i - d_f) \Bigl(1 - \frac{t - t_0}{t_1 - t_0}\Bigr)^3

    with :math:`d_i` = ``initial`` and :math:`d_f` = ``density``, so that most is pruned early, when
    much can be spared. Counts are exact. What is pruned is zero, in the model and in the
    optimizer's state, and stays pruned: the published code keeps the values of masked weights, and
    lets those return that are among the largest at the next pruning.

    Call :meth:`step` after each ``optimizer.step()``. The pruning is made in that call. Compact
    weights (:func:`polarity.compact`) and their optimizer state shrink with it.

    Args:
        model: any module; without masks, the weights that ``optimizer`` trains are masked first,
            with ones. Masks that are only remembered are replaced by the first pruning.
        optimizer: the optimizer that trains it, or a sequence of them; the steps of the first are
            counted. Masked weights that none of them holds keep their masks.
        density: :math:`d_f`, in [0, 1].
        begin: :math:`t_0`, the step of the first pruning; 0 for the start of training.
        end: :math:`t_1`, the step of the last one.
        every: how many steps from one pruning to the next.
        initial: :math:`d_i`, in [0, 1]. Where a model is sparser already nothing is pruned.
        power: the exponent, 3 as published; 1 prunes evenly.
        scope: ``"global"`` ranks all weights together; ``"layer"`` gives each the same density.
        ties: which of equal entries survive, ``"index"`` or ``"random"``.
        generator: source of the seed of ``ties="random"``; by default the global one of the CPU.

    Attributes:
        report: the :class:`UpdateReport` of the last pruning, None before the first.

    Raises:
        ValueError: if an argument is out of range, ``density`` exceeds ``initial``, ``end`` is not
            after ``begin``, or the optimizers train no weight that can be masked. Nothing is
            changed.
        TypeError: if an argument is of another type.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> import polarity as pol
        >>> model = nn.Linear(10, 10)
        >>> sgd = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> schedule = pol.dense_to_sparse.GradualMagnitude(
        ...     model, sgd, density=0.1, begin=0, end=4, every=1
        ... )
        >>> for _ in range(5):
        ...     model(torch.randn(2, 10)).square().sum().backward()
        ...     sgd.step()
        ...     _ = schedule.step()
        ...     print(schedule.density())
        0.48
        0.21
        0.11
        0.1
        0.1

    Source: Zhu & Gupta (2017), *To prune, or not to prune*, section 3.
    """

    @outside_inference_mode
    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizers,
        *,
        density: float,
        begin: int,
        end: int,
        every: int,
        initial: float = 1.0,
        power: float = 3.0,
        scope: Scope = "global",
        ties: Ties = "index",
        generator: torch.Generator | None = None,
    ) -> None:
        check_fraction("density", density)
        check_fraction("initial", initial)
        check_number("power", power, above=0, below=math.inf)
        check_scope(scope)
        check_ties(ties)
        check_integer("end", end, at_least=1)
        when = Every(every, begin, end)
        if end == begin:
            raise ValueError(f"end={end}, expected a step after begin={begin}")
        if density > initial:
            raise ValueError(f"density={density}, expected at most initial={initial}")
        optimizers = as_optimizers(optimizer)
        found = trained_weights(model, optimizers, type(self).__name__)
        with undrawn_on_error(generator):
            self._seed = seed_from(generator) if ties == "random" else None
        attach_masks(found)
        self.report: UpdateReport | None = None
        self._model, self._optimizers, self._found = model, optimizers, found
        self._replicas = replicas_of(model)
        self._when, self._end = when, end
        self._initial, self._final, self._power = float(initial), float(density), float(power)
        self._scope, self._ties = scope, ties
        self._steps = StepCount(optimizers[0])

    def density_at(self, step: int) -> float:
        """Return the density that the curve has at a step.

        Args:
            step: a number of optimizer steps, 0 or more.

        Raises:
            ValueError: if ``step`` is negative.
            TypeError: if it is not an int.

        Example:
            >>> import torch
            >>> from torch import nn
            >>> model = nn.Linear(10, 10)
            >>> sgd = torch.optim.SGD(model.parameters(), lr=0.1)
            >>> schedule = GradualMagnitude(model, sgd, density=0.2, begin=0, end=4, every=1)
            >>> [round(schedule.density_at(step), 4) for step in range(6)]
            [1.0, 0.5375, 0.3, 0.2125, 0.2, 0.2]
        """
        check_integer("step", step, at_least=0)
        begin = self._when.begin
        left = 1 - (min(max(step, begin), self._end) - begin) / (self._end - begin)
        return float(self._final + (self._initial - self._final) * left**self._power)

    @outside_inference_mode
    def step(self) -> UpdateReport | None:
        """Count the optimizer step just taken, and prune if that is due.

        Returns:
            The :class:`UpdateReport` of the pruning, or None if there was none: none was due, or no
            optimizer took a step since the last call, as after an overflow under a GradScaler.
        """
        if not self._steps.due:
            return None
        step = self._steps.taken + 1
        report = None
        if self._when.due(step) or step == self._end:
            seed = None if self._seed is None else self._seed + step
            wanted = self._wanted(step)
            with dense_leaves(self._model, self._optimizers, type(self).__name__, _REMEDY):
                rows, notes = prune_smallest(
                    self._found, wanted, self._optimizers, seed, self._replicas
                )
            self.report = report = UpdateReport(step, "prune", rows, notes)
        self._steps.count()
        return report

    def density(self) -> float:
        """Return the fraction of entries that forward computes with."""
        return computed_share(self._found.values())

    def state_dict(self) -> dict[str, Any]:
        """Return the steps taken and the seed; the model and the optimizer save themselves."""
        return {"schedule": type(self).__name__, "step": self._steps.taken, "seed": self._seed}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state of :meth:`state_dict`, before or after the model loads its own.

        Raises:
            ValueError: if it is the state of another schedule; nothing is changed.
            TypeError: if it is not such a state.
        """
        taken = check_state(state, type(self).__name__, ("seed",))
        check_seed(state["seed"], self._seed)
        self._steps.restart(taken)
        self._seed = state["seed"]

    def remove(self) -> None:
        """Take the hook off the optimizer; nothing more is pruned."""
        self._steps.remove()

    def _wanted(self, step: int) -> HowMany:
        """Return how many entries stay at a step, where fewer are live no more than these."""
        density = self.density_at(step)
        if self._scope == "global":
            return HowMany(density=min(density, self.density()), ties=self._ties)
        densities = {n: min(density, computed_share([each])) for n, each in self._found.items()}
        return HowMany(densities=densities, ties=self._ties)
