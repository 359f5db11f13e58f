"""A Trainer whose checkpoints from_pretrained reads, and from which it resumes with masks."""

from pathlib import Path
from typing import Any

from transformers import Trainer

import polarity as pol
from polarity.integrations.transformers.callback import FORMS, SparsityCallback, holds
from polarity.integrations.transformers.state_file import read_states, write_states

__all__ = ["SparseTrainer"]

# Beside the model file of a checkpoint, which from_pretrained reads.
MODEL_FILE = "polarity.safetensors"
SCHEDULES_FILE = "polarity_schedules.pt"


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

    optimizer: Any

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
        callback.is_in_sparse_trainer = True
        try:
            return super().train(*args, **kwargs)
        finally:
            callback.is_in_sparse_trainer = False

    def call_model_init(self, *args: Any, **kwargs: Any) -> Any:
        """Make a new model, and attach to it what the callback attaches."""
        model = super().call_model_init(*args, **kwargs)
        if (callback := self._sparsity()) is not None:
            callback.attach_to(model)
        return model

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Add the density to logs of the loss."""
        callback = self._sparsity()
        if callback is not None and ("loss" in logs or "train_loss" in logs):
            logs |= callback.to_log(self.model)
        super().log(logs, *args, **kwargs)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """Save dense weights, and what is attached in a file of its own."""
        attached = holds(self.model, FORMS)
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
        if callback is not None and callback.has_schedules and self.args.should_save:
            write_states(Path(output_dir) / SCHEDULES_FILE, callback.schedules.state_dict())

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Load the model with its masks, after a look at all files."""
        folder, callback = Path(resume_from_checkpoint), self._sparsity()
        if not (folder / MODEL_FILE).exists():
            if holds(self.model, FORMS):
                raise ValueError(
                    f"{folder} holds no {MODEL_FILE}, expected a checkpoint of a SparseTrainer: "
                    "load a dense one by from_pretrained, and train from there"
                )
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        if callback is None or not callback.has_schedules:
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
