"""Three epochs on tiny networks: exact densities at every checkpoint, and runs that resume."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

import polarity as pol
from tests.integrations.trained_by_lightning import (
    METHODS,
    Batch,
    Batches,
    Net,
    Saving,
    SparsityCallback,
    mlp,
    outcome,
    rows,
    trainer,
)
from tests.models import seeded

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore")


def resnet() -> nn.Module:
    conv = nn.Conv2d(3, 8, 3, padding=1)
    block = torchvision.models.resnet.BasicBlock(8, 8)
    pool = nn.AdaptiveAvgPool2d(1)
    return seeded(nn.Sequential(conv, block, pool, nn.Flatten(), nn.Linear(8, 3)), 0)


def built(kind: str, config: str, **options: Any) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return getattr(transformers, kind)(getattr(transformers, config)(**options))

    return build


SIZES = {"num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 16}
BERT = built(
    "BertForSequenceClassification", "BertConfig",
    vocab_size=50, intermediate_size=32, max_position_embeddings=16, hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0, **SIZES,
)  # fmt: skip
GPT2 = built("GPT2LMHeadModel", "GPT2Config", vocab_size=50, n_positions=16, n_embd=16, n_layer=2,
             n_head=2, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)  # fmt: skip
LLAMA = built(
    "LlamaForCausalLM", "LlamaConfig",
    vocab_size=50, intermediate_size=32, num_key_value_heads=2, tie_word_embeddings=True, **SIZES,
)  # fmt: skip
VIT = built(
    "ViTForImageClassification", "ViTConfig",
    intermediate_size=32, image_size=8, patch_size=4, num_labels=3, **SIZES,
)  # fmt: skip


def tokens(draw: torch.Generator) -> Batch:
    return torch.randint(50, (4, 8), generator=draw), torch.randint(2, (4,), generator=draw)


def images(draw: torch.Generator) -> Batch:
    x = torch.randn(4, 3, 8, 8, generator=draw)
    return x, torch.randint(3, (4,), generator=draw)


def labelled(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return net(x, labels=y).loss


def language(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return net(x, labels=x).loss


MODELS: dict[str, tuple[Any, Any, Any]] = {
    "MLP": (mlp, rows, None),
    "ResNet": (resnet, images, None),
    "BERT": (BERT, tokens, labelled),
    "GPT-2": (GPT2, tokens, language),
    "Llama, tied": (LLAMA, tokens, language),
    "ViT": (VIT, images, labelled),
}


def run(name: str, method: str, folder: Any, *others: Any, **more: Any) -> Any:
    build, make, loss = MODELS[name]
    sparsity, model = SparsityCallback(**METHODS[method]), Net(build, loss)
    fitted = trainer(folder, sparsity, *others)
    torch.manual_seed(0)
    fitted.fit(model, Batches(make), **more)
    return fitted, sparsity, model


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", MODELS)
def test_densities_are_exact_at_every_checkpoint_and_runs_resume(name, method, tmp_path):
    saving = Saving(tmp_path, "on_train_epoch_end")
    fitted, sparsity, model = run(name, method, tmp_path, saving)
    total = sum(mask.numel() for mask in pol.masks(model).values())
    live = total
    for epoch, path in enumerate(saving.paths):
        state = torch.load(path, weights_only=True)["state_dict"]
        masks = {key: value for key, value in state.items() if key.endswith("weight.0.mask")}
        if "epoch" in str(METHODS[method]) and method != "Sign-In":
            live -= round(0.5 * live) if epoch < 2 else 0
        else:
            live = round({"Sign-In": 0.5, "RigL": 0.25}[method] * total)
        assert sum(int(mask.sum()) for mask in masks.values()) == live
    assert pol.density(model) == live / total
    resumed, again, _ = run(name, method, tmp_path, ckpt_path=saving.paths[1])
    assert outcome(resumed, again) == outcome(fitted, sparsity)


def test_tied_weights_stay_tied(tmp_path):
    _, _, model = run("Llama, tied", "pruning", tmp_path)
    assert model.net.lm_head.weight is model.net.model.embed_tokens.weight
