"""Schedules that exchange entries at a constant density: what SET and RigL share."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from polarity._bits.arrays import count_true
from polarity._bits.random import seed_from, undrawn_on_error, words_at
from polarity._checks import check_choice, check_entries, check_generator, check_ties
from polarity._running import outside_inference_mode
from polarity.attach.density import density_of
from polarity.attach.masks import attach_masks
from polarity.dense_to_sparse.dense_gradients import close, dense_gradient, masking_of, open_up
from polarity.dense_to_sparse.drop_and_grow import exchanged
from polarity.dense_to_sparse.exchange import SecondMoment, install_masks
from polarity.dense_to_sparse.report import UpdateReport
from polarity.dense_to_sparse.schedule import (
    Every,
    StepCount,
    check_bools,
    check_seed,
    check_state,
    share,
    trained_weights,
    was_skipped,
)
from polarity.optimizers.given import Optimizers, as_optimizers
from polarity.optimizers.states import parameters_of
from polarity.parametrizations.arithmetic import zero_outside_
from polarity.pruning.plan import HowMany
from polarity.pruning.prune import prune_targets
from polarity.scores.weight import random
from polarity.selection.ties import Draw, Ties
from polarity.targets.replicas import replicas_of
from polarity.targets.shards import refuse_sharded
from polarity.targets.target import Target, refuse_compact

__all__ = ["DropAndGrow"]

# What tells one method from another: two functions without state.
Fraction: TypeAlias = Callable[[int], float]  # of a step: of the survivors, how many are exchanged
Growth: TypeAlias = Callable[[int, str, int, Tensor], Tensor]  # scores of seed, name, step, mask


class DropAndGrow:
    """What :class:`SET` and :class:`RigL` share: all but how many entries go, and which come.

    Attributes:
        report: the :class:`UpdateReport` of the last update, None before the first.
    """

    @outside_inference_mode
    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizers,
        when: Every,
        fraction: Fraction,
        growth: Growth | None,
        *,
        replace_step: bool,
        densities: Mapping[str, float] | None,
        ties: Ties,
        second_moment: SecondMoment,
        generator: torch.Generator | None,
    ) -> None:
        check_ties(ties)
        check_choice("second_moment", second_moment, ("zero", "keep_mean"))
        check_generator(generator)
        optimizers = as_optimizers(optimizer)
        refuse_sharded(model, type(self).__name__)
        found = trained_weights(model, optimizers, type(self).__name__)
        refuse_compact(found, type(self).__name__)
        check_chains(found)
        wanted = None if densities is None else HowMany(densities=densities)
        self._replicas = replicas = replicas_of(model)
        with undrawn_on_error(generator):
            if wanted is not None:
                prune_targets(found, wanted, random, optimizers, generator, replicas=replicas)
            elif all(target.survivors == target.shape.numel() for target in found.values()):
                raise ValueError(
                    "densities=None, but no weight of the model has a pruned entry, expected masks "
                    "to exchange entries of: densities=pol.densities.erk(model, 0.1), for instance"
                )
            by_draw = ties == "random" or growth is not None
            self._seed = seed_from(generator) if by_draw else None
            attach_masks(found)  # in place of those of torch.nn.utils.prune
        self.report: UpdateReport | None = None
        self._optimizers, self._found = optimizers, found
        self._when, self._fraction = when, fraction
        self._growth_of, self._replace_step = growth, replace_step  # None: the dense gradient
        self._ties, self._second_moment = ties, second_moment
        self._explored = {name: target.mask for name, target in found.items()}
        self._growth: dict[str, Tensor] = {}
        self._open = self._has_open()  # a dense phase of AC/DC, or a checkpoint made before one
        self._steps = StepCount(optimizers[0])
        self._hooks = [each.register_step_pre_hook(self._before_step) for each in optimizers]
        self._open_if_due()

    @outside_inference_mode
    def step(self) -> UpdateReport | None:
        """Count the optimizer step just taken, and update the masks if that is due.

        Returns:
            The :class:`UpdateReport` of the update, or None if there was none: none was due, or no
            optimizer took a step since the last call, as after an overflow under a GradScaler.

        Raises:
            ValueError: if this step or the next one is an update, and a weight was made compact
                (:func:`polarity.compact`).
        """
        step = self._steps.taken + 1
        updates = self._when.due(step)
        if updates or self._when.due(step + 1):
            refuse_compact(self._found, type(self).__name__)
        if not self._steps.due:
            self._open_if_due()  # the same step is made again, with new gradients
            return None
        report = self._update(step) if updates else None
        self._steps.count()
        self._open_if_due()
        return report

    def collect(self) -> None:
        """Take the growth scores from the gradients now, and mask the gradients again.

        Without this call the optimizer's step begins with it. Call it before gradients are clipped
        by norm, after ``backward`` and, with a GradScaler, after ``unscale_``: in an update step
        the gradients of pruned entries are part of the norm until then. Before other steps it does
        nothing, and so it does with gradients that are not finite, which a GradScaler will skip.
        """
        if self._open and self._take_scores(self._found, strict=False):
            self._mask(self._found)

    def density(self) -> float:
        """Return the fraction of entries that forward computes with."""
        return density_of(self._found.values())

    def explored(self) -> float:
        """Return the fraction of entries that were live at any time since this was made."""
        return share((int(each.count_nonzero()), each.numel()) for each in self._explored.values())

    @outside_inference_mode
    def state_dict(self) -> dict[str, Any]:
        """Return the steps taken, the seed, and which entries were ever live.

        The masks, and whether they are applied, are in the model's ``state_dict``. Whether the next
        step is an update follows from the steps taken.
        """
        return {
            "schedule": type(self).__name__,
            "step": self._steps.taken,
            "seed": self._seed,
            "explored": {name: each.clone() for name, each in self._explored.items()},
        }

    @outside_inference_mode
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state of :meth:`state_dict`, before or after the model loads its own.

        The settings may be others than those of the schedule that was saved.

        Raises:
            ValueError: if it is the state of another schedule or model; nothing is changed.
            TypeError: if it is not such a state.
        """
        taken = check_state(state, type(self).__name__, ("seed", "explored"))
        seed, explored = state["seed"], state["explored"]
        check_seed(seed, self._seed)
        shapes = {name: target.shape for name, target in self._found.items()}
        check_bools("state['explored']", explored, shapes)
        refuse_compact(self._found, type(self).__name__)
        self._steps.restart(taken)
        self._seed = seed
        self._explored = {
            name: explored[name].to(each.device, copy=True) for name, each in self._explored.items()
        }
        self._open = self._has_open()
        self._open_if_due()

    def remove(self) -> None:
        """Apply the masks as they are, and take the hooks off the optimizers; no more updates."""
        if self._open:
            close(each for each in self._found.values() if each.masking is not None)
        self._open, self._growth = False, {}
        self._steps.remove()
        for each in self._hooks:
            each.remove()
        self._hooks = []

    def _open_if_due(self) -> None:
        """Open the weights if the next step is an update by gradient, and close them if not."""
        by_gradient = self._growth_of is None
        due = by_gradient and bool(self._hooks) and self._when.due(self._steps.taken + 1)
        if due:
            open_up(self._found.values())
        elif self._open:
            close(self._found.values())
        self._open, self._growth = due, {}

    def _has_open(self) -> bool:
        """Return whether the mask of some weight is remembered and not applied."""
        return not all(masking_of(each).enforce for each in self._found.values())

    def _before_step(
        self, optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Take the growth scores before an update step; with a closure, right after its call.

        Before other steps, apply masks that the model loaded open since the last one. Only the
        first weight is asked: they are opened together, and a look at each would take time.
        """
        if not self._open:
            if not masking_of(next(iter(self._found.values()))).enforce:
                close(self._found.values())
            return None
        if was_skipped(optimizer):
            return None
        if len(args) > 1 and callable(args[1]):
            return (args[0], self._then_prepared(optimizer, args[1]), *args[2:]), kwargs
        if callable(closure := kwargs.get("closure")):
            return args, kwargs | {"closure": self._then_prepared(optimizer, closure)}
        self._prepare(optimizer)
        return None

    def _then_prepared(
        self, optimizer: torch.optim.Optimizer, closure: Callable[[], Any]
    ) -> Callable[[], Any]:
        """Return a closure after which the gradients are those of an update step."""

        def called() -> Any:
            loss = closure()
            self._prepare(optimizer)
            return loss

        return called

    def _prepare(self, optimizer: torch.optim.Optimizer) -> None:
        """Take the growth scores of an optimizer's weights, and mask or remove its gradients."""
        held = parameters_of(optimizer)
        mine = {n: t for n, t in self._found.items() if id(t.stored[0]) in held}
        self._take_scores(mine, strict=True)
        if not self._replace_step:
            self._mask(mine)
        else:  # what is stored is zeroed by the update
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    parameter.grad = None

    @torch.no_grad()
    def _take_scores(self, found: Mapping[str, Target], *, strict: bool) -> bool:
        """Take the growth scores that are missing; False if not finite, an error if strict."""
        fresh = {}
        check_chains(found)
        for name, target in found.items():
            if masking_of(target).enforce:
                raise RuntimeError(
                    f"the mask of {name!r} was changed before an update, so that its gradient is "
                    "not dense: call schedule.load_state_dict(schedule.state_dict()) after the "
                    "change"
                )
            gradient = None if name in self._growth else dense_gradient(target)
            if gradient is not None:
                fresh[name] = gradient.abs()
        try:
            for name, growth in fresh.items():
                check_entries(f"the gradient of {name!r}", growth, "leave this step out")
        except ValueError:
            if strict:
                raise
            return False
        self._growth |= fresh
        return True

    @torch.no_grad()
    def _mask(self, found: Mapping[str, Target]) -> None:
        """Zero gradients, and what is stored, outside the masks."""
        for target in found.values():
            mask = masking_of(target).mask
            for leaf in target.stored:
                zero_outside_(leaf, mask)
                if leaf.grad is not None:
                    zero_outside_(leaf.grad, mask)

    def _update(self, step: int) -> UpdateReport:
        """Exchange entries of every weight that has growth scores."""
        fraction = self._fraction(step)
        before = {name: target.mask for name, target in self._found.items()}
        masks, notes = dict(before), []
        for name, mask in before.items():
            growth = self._growth.get(name)
            if self._growth_of is not None:
                growth = self._growth_of(self._seed or 0, name, step, mask)
            n = exchanged_of(count_true(mask), fraction)
            if growth is None:
                notes.append(f"unchanged: {name} (no step found a gradient of it)")
                n = 0
            if n > 0 and growth is not None:
                target = self._found[name]
                weight = target.stored[0] if target.is_stored else target.weight
                masks[name] = exchanged(
                    f"{name}, step {step}", weight, mask, growth, n, self._draw()
                )
        rows = install_masks(
            self._found, before, masks, self._optimizers, self._second_moment, self._replicas
        )
        self._open, self._growth = False, {}
        for name, mask in masks.items():
            self._explored[name] |= mask
        self.report = UpdateReport(step, "drop and grow", rows, tuple(notes))
        return self.report

    def _draw(self) -> Draw | None:
        """Return what draws among equal entries; None if the index decides."""
        return partial(words_at, self._seed or 0) if self._ties == "random" else None


def check_chains(found: Mapping[str, Target]) -> None:
    """Raise if a weight has a further parametrization."""
    for name, target in found.items():
        if len(target.chain) > 1:
            raise ValueError(
                f"{name} is also parametrized by {type(target.chain[1]).__name__}, expected a mask "
                "at most, because growth needs the gradient of the weight itself"
            )


def exchanged_of(survivors: int, fraction: float) -> int:
    """Return how many survivors are exchanged: the product, in float32 as published, cut off."""
    return min(survivors, int(np.float32(survivors) * np.float32(fraction)))
