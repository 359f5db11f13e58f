"""The Trainer of transformers: a callback that prunes, and a trainer that saves what it prunes.

Needs transformers and accelerate: ``pip install "torch-polarity[transformers]"``.
"""

from pathlib import Path
from typing import Any

import torch
from torch import nn

import polarity as pol
from polarity.integrations._schedules import Attach, Build, Schedules
from polarity.integrations._state_file import read_states, write_states

try:
    import accelerate  # noqa: F401  the Trainer needs it, and says so only when it is built
    from transformers import Trainer, TrainerCallback
except ImportError as error:
    raise ImportError(
        "polarity.integrations.transformers needs transformers and accelerate: "
        'pip install "torch-polarity[transformers]"'
    ) from error

__all__ = ["SparseTrainer", "SparsityCallback"]

# Beside the model file of a checkpoint, which from_pretrained reads.
MODEL_FILE = "polarity.safetensors"
SCHEDULES_FILE = "polarity_schedules.pt"

_MASKS = (pol.MaskedWeight, pol.SurvivorWeight)
_FORMS = (*_MASKS, pol.NormInterp, pol.SoftThreshold)


class SparsityCallback(TrainerCallback):
    """Attach masks or other forms before training, and step schedules during it.

    Give it to a :class:`SparseTrainer`. Schedules are built when training begins, with the model,
    the optimizer and the learning-rate scheduler of the trainer, and built anew by every call of
    ``train``, for the model as it is then.

    Args:
        attach: a function of the model, called before its optimizer is made, such as
            :func:`polarity.mask_weights`; None if the model is masked already.
        each_step: a function ``(model, optimizer, scheduler)`` that returns a schedule, a list of
            them, or None. They are stepped after each step of the optimizer: once per accumulated
            gradient, and not where a GradScaler skipped it.
        each_epoch: the same for schedules that are stepped at the last step of each epoch, before
            a checkpoint of that step is written.
        merge: whether :func:`polarity.merge` makes the model plain when training ends.
        log: whether the trainer's logs of the loss also hold the density.

    Raises:
        TypeError: if an argument is of another type; when training begins, if the trainer is not a
            :class:`SparseTrainer`.
        ValueError: when training begins, if nothing is attached to the model.

    Example:
        >>> callback = SparsityCallback(
        ...     attach=pol.mask_weights,
        ...     each_epoch=lambda model, optimizer, scheduler: pol.PruneRounds(
        ...         model, 0.2, every=1, rounds=2, optimizer=optimizer
        ...     ),
        ... )
    """

    def __init__(
        self,
        attach: Attach | None = None,
        *,
        each_step: Build | None = None,
        each_epoch: Build | None = None,
        merge: bool = False,
        log: bool = True,
    ) -> None:
        if attach is not None and not callable(attach):
            raise TypeError(
                f"attach={attach!r}, expected a function of the model: polarity.mask_weights, for "
                "instance"
            )
        for name, flag in (("merge", merge), ("log", log)):
            if not isinstance(flag, bool):
                raise TypeError(f"{name}={flag!r}, expected True or False")
        self.attach, self.merge, self.density_is_logged = attach, merge, log
        self.schedules = Schedules(each_step, each_epoch)
        self.needs_states = each_step is not None or each_epoch is not None
        self.is_saved = False
        self._attached_to: nn.Module | None = None
        self._ended: float | None = None

    def is_attached_to(self, model: nn.Module) -> bool:
        """Return whether there is nothing left to attach to a model."""
        return self.attach is None or model is self._attached_to

    def attach_to(self, model: nn.Module) -> None:
        """Attach to a model, once."""
        if self.attach is not None and model is not self._attached_to:
            self.attach(model)
            self._attached_to = model

    def build(self, model: nn.Module, optimizer: Any, scheduler: Any) -> None:
        """Build the schedules of a run; those of an earlier one act no more."""
        self.schedules.remove()
        schedulers = [] if scheduler is None else [scheduler]
        self.schedules.build(model, [_inner(optimizer)], schedulers)

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
        if not self.is_saved:
            raise TypeError(
                "the trainer is not a SparseTrainer, expected one: another saves masked weights "
                "under names that from_pretrained does not know, refuses tied ones, and resumes "
                "without masks. Use polarity.integrations.transformers.SparseTrainer in place of "
                "Trainer, and class MyTrainer(SparseTrainer, YourTrainer) in place of yours"
            )
        if not _holds(model, _FORMS):
            raise ValueError(
                "nothing is attached to the model, expected masks before its optimizer is made: "
                "pass attach=polarity.mask_weights, for instance"
            )
        self._ended = None
        if state.global_step == 0 or not self.schedules.are_built:
            self.build(model, optimizer, lr_scheduler)

    def on_step_end(
        self, args: Any, state: Any, control: Any, optimizer: Any = None, **_: Any
    ) -> None:
        """Step the schedules of each step, and at the end of an epoch those of each epoch.

        A checkpoint of this step is written afterwards, and on_epoch_end is called after that.
        """
        if not getattr(optimizer, "step_was_skipped", False):
            self.schedules.step("each_step")
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
        if self.merge:
            pol.merge(model, optimizer=_inner(optimizer))
            self._attached_to = None

    def _end_epoch(self, epoch: float) -> None:
        """Step the schedules of each epoch, once for each."""
        if epoch != self._ended:
            self.schedules.step("each_epoch")
            self._ended = epoch


class SparseTrainer(Trainer):
    """A Trainer whose checkpoints hold dense weights under plain names, and masks to resume with.

    It takes the arguments of ``transformers.Trainer``. Whatever is attached to the model, its
    ``save_model`` and its checkpoints write what :func:`polarity.dense_state_dict` returns, which
    ``from_pretrained`` reads, tied weights included, and the model with its masks, in a file
    ``polarity.safetensors`` that :func:`polarity.load` reads. Checkpoints also hold the states of
    the schedules of a :class:`SparsityCallback`, ``polarity_schedules.pt``, and rewind points in
    them. ``resume_from_checkpoint`` and ``load_best_model_at_end`` read these files, and execute
    nothing in them.

    To combine it with a trainer of your own or of another library, name it first:
    ``class MyTrainer(SparseTrainer, Seq2SeqTrainer): pass``.

    Raises:
        ValueError: when training begins, if parameters are sharded (FSDP, DeepSpeed), a checkpoint
            to resume from is damaged or was written by another trainer, or there is more than one
            :class:`SparsityCallback`.

    Example:
        >>> import tempfile
        >>> from transformers import GPT2Config, GPT2LMHeadModel, TrainingArguments
        >>> sizes = dict(vocab_size=16, n_positions=8, n_embd=16, n_layer=1, n_head=2)
        >>> folder = tempfile.TemporaryDirectory()
        >>> trainer = SparseTrainer(
        ...     GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=0, eos_token_id=0)),
        ...     TrainingArguments(folder.name, report_to=[], disable_tqdm=True, use_cpu=True),
        ...     callbacks=[SparsityCallback(attach=lambda model: pol.imp_prune(model, 0.5))],
        ... )
        >>> trainer.save_model()
        >>> again = GPT2LMHeadModel.from_pretrained(folder.name)
        >>> pol.density(pol.load(again, f"{folder.name}/polarity.safetensors"))
        0.5
        >>> folder.cleanup()
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._optimizer_was_given = self.optimizer is not None

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train as ``Trainer.train``, after a look at what the masks need."""
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            raise ValueError(
                "args shard the model (FSDP or DeepSpeed), expected whole parameters: masks of "
                "sharded parameters are not supported"
            )
        callback = self._sparsity()
        if callback is None:
            return super().train(*args, **kwargs)
        if self.model_init is None:
            self._attach(callback)
        callback.is_saved = True
        try:
            return super().train(*args, **kwargs)
        finally:
            callback.is_saved = False

    def call_model_init(self, *args: Any, **kwargs: Any) -> Any:
        """Make a new model, and attach to it what the callback attaches."""
        model = super().call_model_init(*args, **kwargs)
        if (callback := self._sparsity()) is not None:
            callback.attach_to(model)
        return model

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Add the density to logs of the loss."""
        callback = self._sparsity()
        if (
            callback is not None
            and callback.density_is_logged
            and ("loss" in logs or "train_loss" in logs)
            and _holds(self.model, _MASKS)
        ):
            logs["density"] = pol.density(self.model)
        super().log(logs, *args, **kwargs)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """Save dense weights, and what is attached in a file of its own."""
        attached = _holds(self.model, _FORMS)
        if attached and self.args.should_save:
            state_dict = pol.dense_state_dict(self.model)
        super()._save(output_dir, state_dict)
        if self.args.should_save:
            path = Path(output_dir or self.args.output_dir) / MODEL_FILE
            if attached:
                pol.save(self.model, path)
            else:
                path.unlink(missing_ok=True)  # of an earlier save, before the merge

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        """Save the states of the schedules with that of the optimizer."""
        super()._save_optimizer_and_scheduler(output_dir)
        callback = self._sparsity()
        if callback is not None and callback.needs_states and self.args.should_save:
            write_states(Path(output_dir) / SCHEDULES_FILE, callback.schedules.state_dict())

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Load the model with its masks, after a look at all files."""
        folder, callback = Path(resume_from_checkpoint), self._sparsity()
        if not (folder / MODEL_FILE).exists():
            if _holds(self.model, _FORMS):
                raise ValueError(
                    f"{folder} holds no {MODEL_FILE}, expected a checkpoint of a SparseTrainer: "
                    "load a dense one by from_pretrained, and train from there"
                )
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        if callback is None or not callback.needs_states:
            pol.load(self.model, folder / MODEL_FILE)
            return
        if not (folder / SCHEDULES_FILE).exists():
            raise ValueError(
                f"{folder} holds no {SCHEDULES_FILE}, expected the states of the schedules: "
                "resume from a checkpoint that was saved with save_only_model=False"
            )
        states = read_states(folder / SCHEDULES_FILE)
        pol.load(self.model, folder / MODEL_FILE)
        callback.schedules.load_state_dict(states)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """Build the schedules before the optimizer's state is loaded: some prune at once."""
        callback = self._sparsity()
        if checkpoint is None or callback is None:
            super()._load_optimizer_and_scheduler(checkpoint)
            return
        callback.build(self.model, self.optimizer, self.lr_scheduler)
        pol.load(self.model, Path(checkpoint) / MODEL_FILE)
        super()._load_optimizer_and_scheduler(checkpoint)
        try:
            callback.schedules.resume()
        except (ValueError, TypeError) as error:
            raise ValueError(f"{checkpoint} does not fit this run: {error}") from error

    def _load_best_model(self) -> None:
        """Load the best model with the masks that it had."""
        path = Path(self.state.best_model_checkpoint) / MODEL_FILE
        if path.exists():
            pol.load(self.model, path)
        else:
            super()._load_best_model()

    def _attach(self, callback: SparsityCallback) -> None:
        """Attach to a model that has nothing attached yet, or no more, before it is trained."""
        if callback.is_attached_to(self.model):
            return
        if self.model_wrapped is not self.model:
            raise ValueError(
                "the model was merged and is wrapped (in DistributedDataParallel, for instance), "
                "expected a plain one to attach to: make a new trainer for it"
            )
        callback.attach_to(self.model)
        if not self._optimizer_was_given:
            self.optimizer = None  # made for the parameters that the model had

    def _sparsity(self) -> SparsityCallback | None:
        """Return the callback, if there is one."""
        handler = getattr(self, "callback_handler", None)  # __init__ makes it late
        callbacks = [] if handler is None else handler.callbacks
        found = [each for each in callbacks if isinstance(each, SparsityCallback)]
        if len(found) > 1:
            raise ValueError(
                f"callbacks holds {len(found)} SparsityCallbacks, expected one: its functions may "
                "return lists of schedules"
            )
        return found[0] if found else None


def _holds(model: nn.Module, forms: tuple[type, ...]) -> bool:
    """Return whether one of these forms is attached to a model."""
    return any(isinstance(module, forms) for module in model.modules())


def _inner(optimizer: Any) -> torch.optim.Optimizer:
    """Return the optimizer in accelerate's wrapper, which has no hooks of its own."""
    return getattr(optimizer, "optimizer", optimizer)
