"""A TrainerCallback that attaches to a model and steps its schedules while it is trained."""

from typing import Any

import torch
from torch import nn
from transformers import TrainerCallback

import polarity as pol
from polarity.integrations._schedules import (
    Attach,
    Build,
    Schedules,
    check_attach,
    check_flag,
    numbers,
)

__all__ = ["FORMS", "SparsityCallback", "holds"]

MASKS = (pol.MaskedWeight, pol.SurvivorWeight)
# Whatever leaves a model's weights under other names than the plain ones.
FORMS = (*MASKS, pol.NormInterp, pol.SoftThreshold)


class SparsityCallback(TrainerCallback):
    """Attach masks or other forms before training, and step schedules during it.

    Give it to a :class:`SparseTrainer`; with another trainer ``train`` raises before it begins.

    - **Attach**: once, at the end of the trainer's ``__init__``, before it makes its optimizer; to
      every model of ``model_init``, and again to a model that was merged.
    - **Build**: when training begins, with the model, the optimizer and the learning-rate scheduler
      of the trainer as they are then. Every call of ``train`` is a run of its own, for the model as
      it is then; one that resumes continues bit for bit.
    - **Each step**: after each step of the optimizer and of the scheduler, once for an accumulated
      gradient, and not where a GradScaler skipped the step.
    - **Each epoch**: after the last step of an epoch, before the model is logged, evaluated and
      saved. An epoch that is cut off, as by ``max_steps``, does not count.
    - **Interpolated norms** draw one value for all micro-batches of an accumulated gradient.

    The trainer's default scheduler decays over the whole run, all rounds of pruning together. To
    rewind it, give one that does not: ``lr_scheduler_type="constant_with_warmup"``, or your own.

    Args:
        attach: a function of the model; None if it is masked already.
        each_step: ``(model, optimizer, scheduler) -> schedule or list of schedules``, called when
            training begins.
        each_epoch: likewise, for schedules that count epochs.
        merge: whether the model becomes plain (:func:`polarity.merge`) when training ends, after
            the best model was loaded.
        log: whether the trainer's logs of the loss hold ``polarity/density``, and the numbers of
            reports when something was due since the last log (``polarity/survivors``,
            ``polarity/dropped``, ``polarity/grown``).

    Raises:
        TypeError: if an argument is of another type, or a function returns no schedules; when
            training begins, if the trainer is not a :class:`SparseTrainer`.
        ValueError: when training begins, if nothing is attached to the model.

    Example:
        >>> import polarity as pol
        >>> from polarity.integrations.transformers import SparsityCallback
        >>> callback = SparsityCallback(
        ...     attach=pol.mask_weights,
        ...     each_epoch=lambda model, optimizer, scheduler: pol.PruneRounds(
        ...         model, 0.2, every=2, rounds=5, rewind="weights",
        ...         optimizer=optimizer, scheduler=scheduler,
        ...     ),
        ... )
    """

    def __init__(
        self,
        attach: Attach | None = pol.mask_weights,
        *,
        each_step: Build | None = None,
        each_epoch: Build | None = None,
        merge: bool = False,
        log: bool = True,
    ) -> None:
        check_attach(attach)
        check_flag("merge", merge)
        check_flag("log", log)
        self._attach, self._merge, self._log = attach, merge, log
        self._attached_to: nn.Module | None = None
        self._ended: float | None = None  # the epoch whose end was met last
        self._numbers: dict[str, float] = {}
        self._hook: Any = None
        self._has_stepped = False
        # SparseTrainer reads and sets these.
        self.schedules = Schedules(each_step, each_epoch)
        self.has_schedules = each_step is not None or each_epoch is not None
        self.is_in_sparse_trainer = False

    def is_attached_to(self, model: nn.Module) -> bool:
        """Return whether there is nothing left to attach to a model."""
        return self._attach is None or model is self._attached_to

    def attach_to(self, model: nn.Module) -> None:
        """Attach to a model, once."""
        if self._attach is not None and model is not self._attached_to:
            self._attach(model)
            self._attached_to = model

    def build(self, model: nn.Module, optimizer: Any, scheduler: Any) -> None:
        """Build the schedules of a run; those of an earlier one act no more."""
        self._remove_hook()
        inner = _inner(optimizer)
        self._hook = inner.register_step_post_hook(self._note_step)
        self.schedules.build(model, [inner], [] if scheduler is None else [scheduler])

    def to_log(self, model: nn.Module) -> dict[str, float]:
        """Return what a log of the loss is to hold; numbers of reports are told once."""
        if not self._log:
            return {}
        values, self._numbers = self._numbers, {}
        if holds(model, MASKS):
            values["density"] = self.schedules.density(model)
        return {f"polarity/{name}": value for name, value in values.items()}

    def on_init_end(self, args: Any, state: Any, control: Any, model: Any, **_: Any) -> None:
        """Attach: the trainer makes its optimizer later."""
        self.attach_to(model)

    def on_train_begin(
        self,
        args: Any,
        state: Any,
        control: Any,
        model: Any,
        optimizer: Any,
        lr_scheduler: Any,
        **_: Any,
    ) -> None:
        """Build the schedules, unless the trainer did so to resume."""
        if not self.is_in_sparse_trainer:
            raise TypeError(
                "the trainer is not a SparseTrainer, expected one: another saves masked weights "
                "under names that from_pretrained does not know, refuses tied ones, and resumes "
                "without masks. Use polarity.integrations.transformers.SparseTrainer in place of "
                "Trainer, and class MyTrainer(SparseTrainer, YourTrainer) in place of yours"
            )
        if not holds(model, FORMS):
            raise ValueError(
                "nothing is attached to the model, expected masks before its optimizer is made: "
                "pass attach=polarity.mask_weights, for instance"
            )
        self._ended, self._numbers = None, {}
        if state.global_step == 0 or not self.schedules.are_built:
            self.build(model, optimizer, lr_scheduler)

    def on_step_begin(self, args: Any, state: Any, control: Any, model: Any, **_: Any) -> None:
        """Make switches that are due, and let interpolated norms keep one value for the step."""
        self.schedules.switch()
        if args.gradient_accumulation_steps > 1 and holds(model, (pol.NormInterp,)):
            pol.set_norm_alpha(model, "hold")

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Step the schedules of each step, and at the end of an epoch those of each epoch.

        A checkpoint of this step is written afterwards, and on_epoch_end is called after that.
        """
        if self._has_stepped:
            self._step("each_step")
        self._has_stepped = False
        if float(state.epoch).is_integer():
            self._end_epoch(state.epoch)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """End an epoch whose length was not known before; one that was cut off has no end."""
        if not control.should_training_stop:
            self._end_epoch(state.epoch)

    def on_train_end(
        self, args: Any, state: Any, control: Any, model: Any, optimizer: Any, **_: Any
    ) -> None:
        """Take off the schedules' hooks, and merge if that is asked for."""
        self.schedules.remove()
        self._remove_hook()
        if holds(model, (pol.NormInterp,)):
            pol.set_norm_alpha(model, "random")
        if self._merge:
            pol.merge(model, optimizer=_inner(optimizer))
            self._attached_to = None

    def _note_step(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        """Note a step, unless a GradScaler saw an overflow: a fused one is called all the same."""
        found_inf = getattr(optimizer, "found_inf", None)
        self._has_stepped |= found_inf is None or not bool(found_inf)

    def _remove_hook(self) -> None:
        if self._hook is not None:
            self._hook.remove()
        self._hook, self._has_stepped = None, False

    def _end_epoch(self, epoch: float) -> None:
        """Step the schedules of each epoch, once for each."""
        if epoch != self._ended:
            self._step("each_epoch")
            self._ended = epoch

    def _step(self, when: str) -> None:
        """Step schedules, and keep what they report for the next log."""
        self._numbers |= numbers(self.schedules.step(when))


def holds(model: nn.Module, forms: tuple[type, ...]) -> bool:
    """Return whether one of these forms is attached to a model."""
    return any(isinstance(module, forms) for module in model.modules())


def _inner(optimizer: Any) -> torch.optim.Optimizer:
    """Return the optimizer in accelerate's wrapper, which has no hooks of its own."""
    inner: torch.optim.Optimizer = getattr(optimizer, "optimizer", optimizer)
    return inner
