"""A callback that attaches to a LightningModule and steps its schedules while it is trained."""

import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

import polarity as pol
from polarity.integrations._averages import exact_masks, has_masks, restore_averages
from polarity.integrations._schedules import (
    Attach,
    Build,
    Schedules,
    check_attach,
    check_flag,
    numbers,
)

if TYPE_CHECKING:
    from lightning.pytorch import Callback, LightningModule, Trainer
else:
    try:
        from lightning.pytorch import Callback, LightningModule, Trainer
    except ImportError:
        try:  # the same library under its former name
            from pytorch_lightning import Callback, LightningModule, Trainer
        except ImportError:
            raise ImportError(
                "polarity.integrations.lightning needs lightning: "
                'pip install "torch-polarity[lightning]"'
            ) from None

__all__ = ["SparsityCallback"]


class SparsityCallback(Callback):
    """Attach to a LightningModule, and step schedules while ``Trainer.fit`` trains it.

    - **Attach**: once, in ``setup``, before a checkpoint is loaded, the optimizers are made and
      ``DistributedDataParallel`` wraps. ``configure_model`` is called first; what the module's own
      ``setup`` adds comes too late, and a warning names it.
    - **Build**: when training starts, with the optimizers and learning-rate schedulers as they are
      then. A rewind point that :class:`polarity.PruneRounds` captures is the model of that moment.
    - **Each step**: after a training batch in which ``trainer.global_step`` changed, so once for an
      accumulated gradient.
    - **Each epoch**: in ``on_train_epoch_end``, after the epoch's validation, and only if the
      epoch reached its last batch and took an optimizer step. A ``ModelCheckpoint`` without
      validation is written after this, and holds the pruned model; one that is written after
      validation holds the model that was validated, and the pruning is made when it is resumed.
    - **Checkpoints** hold masks, factors, schedules and rewind points. A run that is resumed with
      ``trainer.fit(model, ckpt_path=...)`` continues bit for bit.
    - **Averages**: list this callback before ``EMAWeightAveraging``, ``WeightAveraging`` and
      ``StochasticWeightAveraging``. Their averages get the masks of the model whenever these
      change, and before they are validated, saved and copied into the model; outside the masks they
      are zero.
    - **Interpolated norms** draw one value for each optimizer step, which all micro-batches of an
      accumulated gradient share. :class:`polarity.dense_to_sparse.ACDC` switches before a step.

    After ``fit`` the hooks of all schedules are gone. A second ``fit`` of the same Trainer, which
    makes new optimizers, continues its schedules.

    Args:
        attach: called once with the LightningModule; for an inner model,
            ``lambda module: pol.mask_weights(module.net)``. None if the module attaches in its own
            ``__init__`` or ``setup``.
        each_step: ``(module, optimizer, scheduler) -> schedule or list of schedules``; called when
            training starts. ``optimizer`` is a list if there are several, and so is ``scheduler``,
            which is None if there is none.
        each_epoch: likewise, for schedules that count epochs.
        merge: whether the model becomes plain (:func:`polarity.merge`) when ``fit`` has ended,
            after averages were copied into it. ``trainer.test(ckpt_path="best")`` attaches for the
            checkpoint, and merges again.
        log: whether to log ``polarity/density`` after each epoch and the numbers of reports when
            something was due (``polarity/survivors``, ``polarity/dropped``, ``polarity/grown``).

    Raises:
        TypeError: if an argument is of another type, or a function returns no schedules.

    Example:
        >>> import polarity as pol
        >>> from polarity.integrations.lightning import SparsityCallback
        >>> callback = SparsityCallback(
        ...     attach=pol.mask_weights,
        ...     each_epoch=lambda module, optimizer, scheduler: pol.PruneRounds(
        ...         module, 0.2, every=2, rounds=5, rewind="weights",
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
        super().__init__()
        check_attach(attach)
        check_flag("merge", merge)
        check_flag("log", log)
        self._attach, self._merge, self._log = attach, merge, log
        self._schedules = Schedules(each_step, each_epoch)
        # The model that this callback attached to, the parameters it had then, and whether it was
        # merged since.
        self._model: nn.Module | None = None
        self._parameters: set[nn.Parameter] = set()
        self._is_merged = False
        self._handle: Any = None
        # trainer.global_step when the schedules were last stepped.
        self._at = {"each_step": 0, "each_epoch": 0}
        self._last_masks: dict[str, Tensor] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Attach, unless this callback did so before."""
        callbacks = _callbacks(trainer)
        for callback in callbacks[: callbacks.index(self)]:
            if hasattr(callback, "_average_model"):
                raise ValueError(
                    f"callbacks lists {type(callback).__name__} before {type(self).__name__}, "
                    "expected it after: its average is a copy of the model as it is attached"
                )
        if self._attach is None:
            return
        is_known = self._model is pl_module
        if is_known and not self._is_merged:
            return
        if is_known and stage != "fit":
            # Nobody knows yet whether a checkpoint will be loaded, and in which form.
            module: Any = pl_module
            self._handle = module.register_load_state_dict_pre_hook(_attaching(self._attach))
            return
        with trainer.init_module():
            pl_module.configure_model()
        if next(pl_module.parameters(), None) is None:
            raise ValueError(
                f"{type(pl_module).__name__} has no parameters when {type(self).__name__} "
                "attaches, expected its layers: build them in __init__ or configure_model, because "
                "its setup is called after those of the callbacks"
            )
        self._attach_to(pl_module)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Warn of parameters that came after attaching."""
        added = [n for n, p in pl_module.named_parameters() if p not in self._parameters]
        if self._parameters and added:
            warnings.warn(
                f"{added[0]!r} was added to {type(pl_module).__name__} after "
                f"{type(self).__name__} attached, and stays as it is: build it in __init__ or "
                "configure_model, or attach in setup and pass attach=None",
                stacklevel=2,
            )
        self._parameters = set()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Build the schedules, and continue those of a checkpoint or of an earlier fit."""
        if not self._schedules.are_kept:
            self._at = dict.fromkeys(self._at, trainer.global_step)
            if trainer.global_step > 0 and self._schedules.are_built:
                self._schedules.load_state_dict(self._schedules.state_dict())
        schedulers = [config.scheduler for config in trainer.lr_scheduler_configs]
        self._schedules.build(pl_module, trainer.optimizers, schedulers)
        self._schedules.resume()
        if trainer.is_last_batch:
            # A checkpoint that was made after the last batch: the end of its epoch may not come.
            self._step("each_epoch", trainer, pl_module)
        restore_averages(trainer, pl_module)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Begin an optimizer step: make switches that are due, and draw for interpolated norms.

        Both have hooks on the forward pass of the module, which a training step may never call.
        """
        if _only_runs_statistics(trainer):
            return
        self._schedules.switch()
        if batch_idx % trainer.accumulate_grad_batches == 0 and _has_interpolated_norms(pl_module):
            pol.set_norm_alpha(pl_module, "hold")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Step the schedules of steps, if an optimizer step was taken."""
        values = self._step("each_step", trainer, pl_module)
        self._write(pl_module, values, on_epoch=False)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Step the schedules of epochs, if the epoch came to its end."""
        values = {}
        if trainer.is_last_batch:
            values = self._step("each_epoch", trainer, pl_module)
        if self._log and has_masks(pl_module):
            values["density"] = self._schedules.density(pl_module)
        self._write(pl_module, values, on_epoch=True)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give averages the masks of the model before they are validated."""
        restore_averages(trainer, pl_module)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give averages the masks of the model before they are copied into it."""
        restore_averages(trainer, pl_module)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Give averages the masks of the model before they are saved."""
        restore_averages(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the hooks of schedules off, before averages are copied into the model."""
        self._schedules.remove()
        if _has_interpolated_norms(pl_module):
            pol.set_norm_alpha(pl_module, "random")
        restore_averages(trainer, pl_module)
        self._last_masks = exact_masks(pl_module)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give the model its masks again, in case an average of them was copied into it."""
        if self._last_masks:
            pol.load_masks(pl_module, self._last_masks)
        self._last_masks = {}

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Merge the model after fit, and after an evaluation that attached for a checkpoint."""
        if self._handle is not None:
            self._handle.remove()
            self._handle = None
        if stage != "fit":
            self._schedules.drop()
        if not self._merge or not _is_attached(pl_module):
            return
        if stage == "fit" or self._is_merged:
            pol.merge(pl_module)
            self._is_merged = self._model is pl_module
            # They were copied into the model, and are copies of the form that it had.
            for callback in _callbacks(trainer):
                if getattr(callback, "_average_model", None) is not None:
                    callback._average_model = None

    def state_dict(self) -> dict[str, Any]:
        """Return what schedules save, and the steps at which they were last stepped."""
        return {"schedules": self._schedules.state_dict(), "at": dict(self._at)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep states until the schedules are built."""
        self._schedules.load_state_dict(state_dict["schedules"])
        self._at = dict(state_dict["at"])

    def _attach_to(self, pl_module: nn.Module) -> None:
        assert self._attach is not None
        self._attach(pl_module)
        self._model, self._is_merged = pl_module, False
        self._parameters = set(pl_module.parameters())

    def _step(self, when: str, trainer: Trainer, pl_module: LightningModule) -> dict[str, float]:
        """Step schedules if the optimizer did since then, and return the numbers to log."""
        if trainer.global_step == self._at[when] or _only_runs_statistics(trainer):
            return {}
        reports = self._schedules.step(when)
        self._at[when] = trainer.global_step
        if reports:
            restore_averages(trainer, pl_module)
        return numbers(reports) if self._log else {}

    def _write(
        self, pl_module: LightningModule, values: Mapping[str, float], *, on_epoch: bool
    ) -> None:
        """Log numbers; they are the same on all ranks."""
        for name, value in values.items():
            pl_module.log(
                f"polarity/{name}",
                value,
                on_step=not on_epoch,
                on_epoch=on_epoch,
                reduce_fx="max",
                sync_dist=True,
            )


def _attaching(attach: Attach) -> Callable[..., None]:
    """Return a hook that attaches to a plain model whose names are not what it is about to load."""

    def before_loading(module: nn.Module, state: Mapping[str, Any], *_: Any) -> None:
        if not _is_attached(module) and module.state_dict().keys() - state.keys():
            attach(module)

    return before_loading


def _only_runs_statistics(trainer: Any) -> bool:
    """Return whether this is the epoch that SWA adds for running statistics."""
    return bool(getattr(trainer.fit_loop, "_skip_backward", False))


def _callbacks(trainer: Any) -> list[Any]:
    return list(trainer.callbacks)


def _has_interpolated_norms(model: nn.Module) -> bool:
    return any(isinstance(each, pol.NormInterp) for each in model.modules())


def _is_attached(model: nn.Module) -> bool:
    return has_masks(model) or _has_interpolated_norms(model)
