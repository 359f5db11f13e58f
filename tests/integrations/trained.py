"""Tiny models of transformers, their data, and Trainer runs on them; skipped without it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import polarity as pol

transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")

from polarity.integrations.transformers import SparseTrainer, SparsityCallback  # noqa: E402
from polarity.integrations.transformers.state_file import (  # noqa: E402, F401  for the tests
    read_states,
    write_states,
)

EXAMPLES, BATCH, EPOCHS = 32, 8, 3
STEPS = EXAMPLES // BATCH  # in each epoch
WORDS = 24


def bert() -> nn.Module:
    config = transformers.BertConfig(
        vocab_size=WORDS,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=8,
    )
    return transformers.BertForSequenceClassification(config)


def gpt2() -> nn.Module:
    config = transformers.GPT2Config(
        vocab_size=WORDS,
        n_positions=8,
        n_embd=16,
        n_layer=2,
        n_head=2,
        bos_token_id=0,
        eos_token_id=0,
    )
    return transformers.GPT2LMHeadModel(config)


def llama() -> nn.Module:
    config = transformers.LlamaConfig(
        vocab_size=WORDS,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=8,
        attention_dropout=0.1,
        bos_token_id=0,
        eos_token_id=0,
        tie_word_embeddings=True,
    )
    return transformers.LlamaForCausalLM(config)


def vit() -> nn.Module:
    config = transformers.ViTConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=4,
        patch_size=2,
        hidden_dropout_prob=0.1,
    )
    return transformers.ViTForImageClassification(config)


MODELS: dict[str, Callable[[], nn.Module]] = {
    "bert": bert,
    "gpt2": gpt2,
    "tied llama": llama,
    "vit": vit,
}


def examples(name: str) -> list[dict[str, Any]]:
    draw = torch.Generator().manual_seed(1)
    if name == "vit":
        images = torch.randn(EXAMPLES, 3, 4, 4, generator=draw)
        return [{"pixel_values": x, "labels": i % 2} for i, x in enumerate(images)]
    rows = torch.randint(WORDS, (EXAMPLES, 6), generator=draw)
    if name == "bert":
        return [{"input_ids": row, "labels": i % 2} for i, row in enumerate(rows)]
    return [{"input_ids": row, "labels": row} for row in rows]


@torch.no_grad()
def logits(model: nn.Module) -> Tensor:
    """Return what a model says of two examples, in evaluation mode."""
    draw = torch.Generator().manual_seed(2)
    was_training = model.training
    model.eval()
    if model.main_input_name == "pixel_values":
        out = model(pixel_values=torch.randn(2, 3, 4, 4, generator=draw))
    else:
        out = model(input_ids=torch.randint(WORDS, (2, 6), generator=draw))
    model.train(was_training)
    return out.logits


def masked(model: nn.Module) -> nn.Module:
    """Mask every matrix of a transformer, a tied embedding among them."""
    tied = "model.embed_tokens.weight" if hasattr(model, "model") else None
    return pol.mask_weights(model, targets=[*pol.find_targets(model), *([tied] if tied else [])])


def signed_in(model: nn.Module) -> nn.Module:
    return pol.sign_in(masked(model))


def rounds(rewind: str | None) -> Any:
    def built(model: nn.Module, optimizer: Any, scheduler: Any) -> pol.PruneRounds:
        scheduler = scheduler if rewind else None
        return pol.PruneRounds(
            model, 0.5, every=1, rounds=2, rewind=rewind, optimizer=optimizer, scheduler=scheduler
        )

    return built


def rounds_and_rescaling(model: nn.Module, optimizer: Any, scheduler: Any) -> list[Any]:
    rescaling = pol.RescaleSchedule(model, every=1, optimizer=optimizer, momentum="transform")
    return [rounds(None)(model, optimizer, scheduler), rescaling]


def rigl(model: nn.Module, optimizer: Any, scheduler: Any) -> Any:
    densities = pol.densities.uniform(model, 0.25)
    return pol.dense_to_sparse.RigL(model, optimizer, every=3, end=9, densities=densities)


def interpolated(model: nn.Module) -> nn.Module:
    of_llama = type(model.model.norm) if hasattr(model, "model") else None
    return pol.interpolate_norms(masked(model), targets=of_llama)


# What the callback is given, and the density after each epoch.
METHODS: dict[str, tuple[dict[str, Any], list[float]]] = {
    "pruning": ({"attach": masked, "each_epoch": rounds(None)}, [0.5, 0.25, 0.25]),
    "rewinding": ({"attach": masked, "each_epoch": rounds("weights")}, [0.5, 0.25, 0.25]),
    "lrr": ({"attach": masked, "each_epoch": rounds("schedule")}, [0.5, 0.25, 0.25]),
    "sign-in": ({"attach": signed_in, "each_epoch": rounds_and_rescaling}, [0.5, 0.25, 0.25]),
    "norms": ({"attach": interpolated, "each_epoch": rounds(None)}, [0.5, 0.25, 0.25]),
    "rigl": ({"attach": masked, "each_step": rigl}, [0.25, 0.25, 0.25]),
}


def thresholded(model: nn.Module) -> None:
    pol.dense_to_sparse.threshold_weights(model, None, decay=1e-3, s0=-4.0)


def compacted(model: nn.Module) -> nn.Module:
    pol.imp_prune(model, 0.5)
    return pol.compact(model)


def acdc(model: nn.Module, optimizer: Any, scheduler: Any) -> Any:
    return pol.dense_to_sparse.ACDC(model, optimizer, density=0.5, switches=(3, 6, 9))


def gradual(model: nn.Module, optimizer: Any, scheduler: Any) -> Any:
    return pol.dense_to_sparse.GradualMagnitude(
        model, optimizer, density=0.25, begin=1, end=9, every=2
    )


def exchanged(model: nn.Module, optimizer: Any, scheduler: Any) -> Any:
    densities = pol.densities.uniform(model, 0.5)
    return pol.dense_to_sparse.SET(model, optimizer, every=2, densities=densities)


# Of these only the outputs and the bits are compared.
OTHER_METHODS: dict[str, dict[str, Any]] = {
    "set": {"attach": masked, "each_step": exchanged},
    "gradual": {"attach": masked, "each_step": gradual},
    "acdc": {"attach": masked, "each_step": acdc},
    "compact": {"attach": compacted},
    "soft thresholds": {"attach": thresholded},
}


class Saves(transformers.TrainerCallback):
    """Notes the density and the outputs of the model at every checkpoint."""

    def __init__(self) -> None:
        self.at: dict[int, tuple[float, Tensor]] = {}

    def on_save(self, args: Any, state: Any, control: Any, model: Any, **_: Any) -> None:
        self.at[state.global_step] = (pol.density(model), logits(model))


def arguments(folder: Path, **more: Any) -> transformers.TrainingArguments:
    settings: dict[str, Any] = {
        "num_train_epochs": EPOCHS,
        "per_device_train_batch_size": BATCH,
        "per_device_eval_batch_size": BATCH,
        "learning_rate": 0.01,
        "weight_decay": 0.01,
        "save_strategy": "epoch",
        "logging_steps": 1,
        "report_to": [],
        "use_cpu": True,
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
    }
    return transformers.TrainingArguments(str(folder), **(settings | more))


def made(
    name: str,
    folder: Path,
    callback: Any,
    *more_callbacks: Any,
    seed: int = 0,
    kind: type = SparseTrainer,
    model: nn.Module | None = None,
    **more: Any,
) -> Any:
    """Return a trainer of a new model of a name, or of the model that is given."""
    torch.manual_seed(seed)
    callback = SparsityCallback(**callback) if isinstance(callback, dict) else callback
    return kind(
        model=model or MODELS[name](),
        args=arguments(folder, **more),
        train_dataset=examples(name),
        eval_dataset=examples(name)[:BATCH],
        callbacks=[callback, *more_callbacks],
    )


def end_of(trainer: Any) -> dict[str, Any]:
    """Return all that a run left, but for times."""
    timed = ("runtime", "per_second", "flos", "train_loss")
    history = [
        {key: value for key, value in each.items() if not any(word in key for word in timed)}
        for each in trainer.state.log_history
    ]
    return {
        "model": dict(trainer.model.state_dict()),
        "optimizer": trainer.optimizer.state_dict(),
        "scheduler": trainer.lr_scheduler.state_dict(),
        "history": history,
    }


def differences(a: Any, b: Any, where: str = "") -> list[str]:
    """Return the places at which two nested states differ, bit for bit."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        same = a.dtype == b.dtype and torch.equal(a, b)
        return [] if same else [where]
    if isinstance(a, dict) and isinstance(b, dict):
        if a.keys() != b.keys():
            return [f"{where}: {sorted(map(str, a.keys() ^ b.keys()))}"]
        return [each for key in a for each in differences(a[key], b[key], f"{where}/{key}")]
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)) and len(a) == len(b):
        pairs = enumerate(zip(a, b, strict=True))
        return [each for i, (x, y) in pairs for each in differences(x, y, f"{where}/{i}")]
    return [] if a == b else [f"{where}: {a!r} and {b!r}"]


class Counter:
    """A schedule that only counts."""

    def __init__(self) -> None:
        self.steps = 0

    def step(self) -> None:
        self.steps += 1

    def state_dict(self) -> dict[str, int]:
        return {"steps": self.steps}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.steps = state["steps"]


def counted(**more: Any) -> tuple[SparsityCallback, list[Counter], list[Counter]]:
    """Return a callback that counts, and the counters that it builds."""
    steps: list[Counter] = []
    epochs: list[Counter] = []

    def build(into: list[Counter]) -> Any:
        def built(*_: Any) -> Counter:
            into.append(Counter())
            return into[-1]

        return built

    callback = SparsityCallback(masked, each_step=build(steps), each_epoch=build(epochs), **more)
    return callback, steps, epochs
