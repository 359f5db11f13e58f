"""transformers: what its save_pretrained makes of a masked model, and the way that is supported."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import polarity as pol

transformers = pytest.importorskip("transformers")


def gpt2() -> nn.Module:
    config = transformers.GPT2Config(
        vocab_size=17, n_positions=8, n_embd=8, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0
    )
    return transformers.GPT2LMHeadModel(config)


def bert() -> nn.Module:
    config = transformers.BertConfig(
        vocab_size=17,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=8,
    )
    return transformers.BertForSequenceClassification(config)


def vit() -> nn.Module:
    config = transformers.ViTConfig(
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=4,
        patch_size=2,
    )
    return transformers.ViTForImageClassification(config)


EMBEDDING = "transformer.wte.weight"


def matrices(model: nn.Module) -> list[str]:
    """Return the matrices that are no embedding, GPT-2's Conv1D among them."""
    return [
        name
        for name, parameter in model.named_parameters()
        if parameter.dim() == 2 and not any(w in name for w in ("embed", "wte", "wpe", "position"))
    ]


def masked(model: nn.Module, *more: str) -> nn.Module:
    pol.mask_weights(model, targets=[*matrices(model), *more])
    pol.imp_prune(model, density=0.5)
    return model


def signed_in(model: nn.Module) -> nn.Module:
    return pol.sign_in(masked(model))


MODELS: dict[str, Callable[[], nn.Module]] = {
    "gpt2": lambda: masked(gpt2()),
    "gpt2 with its tied embedding masked": lambda: masked(gpt2(), EMBEDDING),
    "gpt2 signed in": lambda: signed_in(gpt2()),
    "bert": lambda: masked(bert()),
    "bert signed in": lambda: signed_in(bert()),
    "vit": lambda: masked(vit()),
}
every_model = pytest.mark.parametrize("name", MODELS)


def logits(model: nn.Module) -> Tensor:
    draw = torch.Generator().manual_seed(1)
    model.eval()
    with torch.no_grad():
        if isinstance(model, transformers.ViTForImageClassification):
            return model(pixel_values=torch.randn(2, 3, 4, 4, generator=draw)).logits
        return model(input_ids=torch.randint(17, (2, 5), generator=draw)).logits


@every_model
def test_a_checkpoint_of_dense_state_dict_gives_the_masked_models_outputs(
    name: str, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model = MODELS[name]()
    model.save_pretrained(tmp_path, state_dict=pol.dense_state_dict(model))
    again, found = type(model).from_pretrained(tmp_path, output_loading_info=True)
    assert torch.equal(logits(again), logits(model))
    assert not found["missing_keys"]
    assert not found["unexpected_keys"]
    if "gpt2" in name:
        assert again.lm_head.weight is again.transformer.wte.weight
        tied = pol.dense_state_dict(model)
        assert tied["lm_head.weight"].data_ptr() == tied[EMBEDDING].data_ptr()
    assert pol.density(model) == pytest.approx(0.5, abs=0.01)  # still masked


@every_model
def test_masks_are_kept_in_a_file_of_their_own_and_put_on_a_reloaded_model(
    name: str, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model = MODELS[name]()
    model.save_pretrained(tmp_path, state_dict=pol.dense_state_dict(model))
    pol.save(model, tmp_path / "masks.safetensors")
    again = pol.load(type(model).from_pretrained(tmp_path), tmp_path / "masks.safetensors")
    assert torch.equal(logits(again), logits(model))
    assert all(torch.equal(mask, pol.masks(again)[key]) for key, mask in pol.masks(model).items())


def test_save_pretrained_alone_refuses_a_masked_tied_weight_and_saves_others_under_our_keys(
    tmp_path: Path,
) -> None:
    """Nothing of polarity's is called there, so the documentation has to point the way out."""
    torch.manual_seed(0)
    with pytest.raises(RuntimeError, match="shared tensors"):
        MODELS["gpt2 with its tied embedding masked"]().save_pretrained(tmp_path / "tied")
    model = MODELS["bert"]()
    model.save_pretrained(tmp_path)
    again, found = type(model).from_pretrained(tmp_path, output_loading_info=True)
    assert "classifier.weight" in found["missing_keys"]
    assert not torch.equal(logits(again), logits(model))
    # Nothing is lost: the file is one that pol.load reads.
    pol.load(again, tmp_path / "model.safetensors")
    assert torch.equal(logits(again), logits(model))


def test_a_trainer_that_saves_the_dense_state_goes_on_after_its_first_checkpoint(
    tmp_path: Path,
) -> None:
    pytest.importorskip("accelerate")

    class Trainer(transformers.Trainer):
        def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
            super()._save(output_dir, pol.dense_state_dict(self.model))

    def trained(kind: type, out: Path) -> nn.Module:
        torch.manual_seed(0)
        model = MODELS["gpt2 with its tied embedding masked"]()
        rows = torch.randint(17, (8, 5), generator=torch.Generator().manual_seed(2))
        data = [{"input_ids": row, "labels": row} for row in rows]
        arguments = transformers.TrainingArguments(
            str(out), max_steps=2, save_steps=1, report_to=[], use_cpu=True, disable_tqdm=True
        )
        kind(model, arguments, train_dataset=data).train()
        return model

    with pytest.raises(RuntimeError, match="shared tensors"):
        trained(transformers.Trainer, tmp_path / "plain")
    model = trained(Trainer, tmp_path / "dense")
    again = transformers.GPT2LMHeadModel.from_pretrained(tmp_path / "dense" / "checkpoint-2")
    assert torch.equal(logits(again), logits(model))
