"""Rounds of iterative pruning as a schedule: a loop calls ``step`` once per epoch."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import nn

from polarity._bits.random import seed_from, undrawn_on_error
from polarity._checks import (
    check_choice,
    check_fraction,
    check_generator,
    check_integer,
    check_mapping,
    check_names,
    check_scope,
    check_ties,
    check_type,
)
from polarity._running import outside_inference_mode
from polarity.attach.masks import attach_masks, before_masking
from polarity.optimizers.given import (
    Optimizers,
    Schedulers,
    as_optimizers,
    as_schedulers,
    described,
)
from polarity.optimizers.states import check_holds
from polarity.pruning.imp import imp_prune, lrr_step
from polarity.pruning.plan import Scope
from polarity.pruning.report import PruneReport
from polarity.rewind import RewindPoint
from polarity.scores import Score
from polarity.scores.score import check_score, takes_generator
from polarity.selection.ties import Ties
from polarity.targets.dense_leaves import dense_leaves
from polarity.targets.search import masked_or_prunable
from polarity.targets.selectors import Selector, settled
from polarity.targets.shards import ranks_of_model, together

__all__ = ["PruneRounds"]

Rewind = Literal["weights", "schedule"]


class PruneRounds:
    """Prune every ``every`` epochs and rewind: call :meth:`step` once per epoch.

    Each round is a call of :func:`polarity.imp_prune`, or of :func:`polarity.lrr_step` with
    ``rewind="schedule"``. With ``rewind`` the model, the optimizer and the scheduler of this moment
    are the point to rewind to, unless ``point`` is given. After the last round :meth:`step` counts
    on and does nothing, so that the ticket is trained.

    Args:
        model: any module; without masks, its prunable weights are masked at once, with ones.
        amount: the fraction of the survivors that a round prunes, in [0, 1].
        every: how many epochs a round trains, 1 or more.
        rounds: how many times to prune, 1 or more.
        rewind: ``"weights"`` for iterative magnitude pruning (weights, buffers and, if they are
            given, optimizer and scheduler are restored), ``"schedule"`` for learning-rate rewinding
            (optimizer and scheduler alone), or None to train on.
        point: the :class:`polarity.RewindPoint` to rewind to, if it is not this moment.
        optimizer: as for :func:`polarity.imp_prune`; needed by ``rewind="schedule"``.
        scheduler: as for :func:`polarity.imp_prune`; it is restored, never stepped.
        scope: as for :func:`polarity.imp_prune`.
        ties: as for :func:`polarity.imp_prune`.
        score: as for :func:`polarity.imp_prune`.
        targets: as for :func:`polarity.imp_prune`.
        exclude: as for :func:`polarity.imp_prune`.
        generator: source of the seed of ``ties="random"`` and of a score that takes a generator; by
            default the global one of the CPU. The seed is drawn once and is part of the state, so
            that a run that is resumed draws what it would have drawn.

    Attributes:
        epoch: the number of steps made.
        report: the :class:`polarity.PruneReport` of the last round, None before the first.
        point: the rewind point, or None.

    Raises:
        ValueError: if an argument is out of range; if ``point`` or ``scheduler`` is given without
            ``rewind``; if ``rewind="schedule"`` has no optimizer to rewind; if the model has no
            prunable weights, or ``optimizer`` holds none of them; or if ``point`` does not fit the
            model, the optimizer or the scheduler. The model is left as it was.
        TypeError: if an argument is of another type, or a model that is wrapped in
            ``DistributedDataParallel`` has yet to be masked.

    Example:
        >>> from torch import nn
        >>> import polarity as pol
        >>> model = nn.Linear(10, 10)
        >>> rounds = pol.PruneRounds(model, 0.5, every=2, rounds=2, rewind="weights")
        >>> for epoch in range(6):  # train in between
        ...     _ = rounds.step()
        ...     print(pol.density(model))
        1.0
        0.5
        0.5
        0.25
        0.25
        0.25

    Source: Frankle & Carbin (2019), strategy 1; Renda et al. (2020) for learning-rate rewinding.
    """

    @outside_inference_mode
    def __init__(
        self,
        model: nn.Module,
        amount: float = 0.2,
        *,
        every: int,
        rounds: int,
        rewind: Rewind | None = None,
        point: RewindPoint | None = None,
        optimizer: Optimizers | None = None,
        scheduler: Schedulers | None = None,
        scope: Scope = "global",
        ties: Ties = "index",
        score: Score | None = None,
        targets: Selector | None = None,
        exclude: Selector | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        check_fraction("amount", amount)
        check_integer("every", every, at_least=1)
        check_integer("rounds", rounds, at_least=1)
        check_scope(scope)
        check_ties(ties)
        if score is not None:
            check_score("score", score, "a function (name, weight) -> tensor", generator)
        check_generator(generator)
        optimizers, schedulers = as_optimizers(optimizer), as_schedulers(scheduler)
        _check_given(rewind, point, optimizers, schedulers)
        targets, exclude = settled(targets), settled(exclude)
        found = masked_or_prunable(model, targets, exclude)
        check_holds(optimizers, {name: target.stored for name, target in found.items()})
        before_masking(model, found, type(self).__name__)
        if rewind is not None and point is None:
            point = RewindPoint.capture(model, optimizer, scheduler)
        self._model, self._optimizer, self._scheduler = model, optimizer, scheduler
        self._every, self._rounds, self._rewind = every, rounds, rewind
        if point is not None:
            given = point
            together(ranks_of_model(model), lambda: self._check_point(given))
        with undrawn_on_error(generator):
            draws = ties == "random" or (score is not None and takes_generator(score))
            self._seed = seed_from(generator) if draws else None
            attach_masks(found)
        self.epoch = 0
        self.report: PruneReport | None = None
        self.point = point
        self._how: dict[str, Any] = {
            "amount": amount,
            "scope": scope,
            "ties": ties,
            "score": score,
            "targets": list(found) if targets is not None or exclude is not None else None,
            "optimizer": optimizer,
        }

    def step(self) -> PruneReport | None:
        """Count an epoch, and prune and rewind if it ends a round.

        Returns:
            The :class:`polarity.PruneReport` of the round, or None if none was due.

        Raises:
            ValueError: as :func:`polarity.imp_prune`. The epoch is not counted.
        """
        due = self.epoch + 1
        report = None
        if due % self._every == 0 and due <= self._every * self._rounds:
            how = dict(self._how)
            if self._seed is not None:
                how["generator"] = torch.Generator().manual_seed(self._seed + due)
            if self._rewind is None:
                report = imp_prune(self._model, **how)
            else:
                call = imp_prune if self._rewind == "weights" else lrr_step
                assert self.point is not None
                report = call(self._model, rewind=self.point, scheduler=self._scheduler, **how)
            self.report = report
        self.epoch = due
        return report

    def state_dict(self) -> dict[str, Any]:
        """Return epoch, settings, seed and rewind point; the model saves its masks itself."""
        point = None
        if self.point is not None:
            point = {key: getattr(self.point, key) for key in ("weights", "optimizer", "scheduler")}
        return {
            "schedule": type(self).__name__,
            "epoch": self.epoch,
            "every": self._every,
            "rounds": self._rounds,
            "seed": self._seed,
            "point": point,
        }

    @outside_inference_mode
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a state of :meth:`state_dict`: its epoch, seed and rewind point.

        Raises:
            ValueError: if it is the state of another schedule, of other ``every`` or ``rounds``, or
                its point does not fit. The schedule is left as it was.
            TypeError: if it is not such a state.
        """
        check_mapping("state", state, "what state_dict returns")
        check_names("state", state, self.state_dict(), what="an entry of a schedule's state")
        for key, present in (
            ("schedule", type(self).__name__),
            ("every", self._every),
            ("rounds", self._rounds),
        ):
            if state[key] != present:
                raise ValueError(f"state[{key!r}] is {state[key]!r}, expected {present!r}")
        check_integer("state['epoch']", state["epoch"], at_least=0)
        seed, point = state["seed"], state["point"]
        if (seed is None) != (self._seed is None):
            raise ValueError(
                f"state['seed']={seed!r}, expected "
                f"{'None: nothing is drawn' if self._seed is None else 'an int'}; check ties= and "
                "score="
            )
        if seed is not None:
            check_integer("state['seed']", seed, at_least=0)
        if (point is None) != (self._rewind is None):
            raise ValueError(
                f"state['point'] is {'None' if point is None else 'given'}, "
                f"expected the state of rewind={self._rewind!r}"
            )
        if point is not None:
            check_mapping("state['point']", point, "a rewind point")
            check_names("state['point']", point, ("weights", "optimizer", "scheduler"))
            try:
                given = point = RewindPoint(**point)
                together(ranks_of_model(self._model), lambda: self._check_point(given))
            except (TypeError, ValueError) as error:
                raise type(error)(f"state['point']: {error}") from None
        self.epoch, self.point, self._seed = state["epoch"], point, seed

    def _check_point(self, point: RewindPoint) -> None:
        """Raise unless a rewind point fits what it is to restore."""
        point.check(self._model)
        needed = point.optimizer is not None or self._rewind == "schedule"
        optimizers = as_optimizers(self._optimizer)
        with dense_leaves(self._model, optimizers, type(self).__name__, writes=False):
            point.check_schedule(self._optimizer if needed else None, self._scheduler)


def _check_given(
    rewind: Rewind | None,
    point: RewindPoint | None,
    optimizers: Sequence[object],
    schedulers: Sequence[object],
) -> None:
    """Raise unless what is to be rewound, and the point, are given together."""
    if point is not None:
        check_type("point", point, RewindPoint, "RewindPoint.capture(model), for instance")
    if rewind is not None:
        check_choice("rewind", rewind, ("weights", "schedule"))
    elif point is not None or schedulers:
        what = "point" if point is not None else f"scheduler={described(schedulers)}"
        raise ValueError(
            f"{what} is given without rewind, expected both: pass rewind='weights' or 'schedule'"
        )
    if rewind == "schedule" and not optimizers:
        raise ValueError(
            "optimizer=None is given with rewind='schedule', expected an optimizer: "
            "learning-rate rewinding restores its state"
        )
