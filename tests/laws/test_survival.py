"""What users do to a masked ResNet-18, GPT-2, LSTM and ViT, and what they may count on after it."""

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

import polarity as pol
from tests.helpers import build, feed, leaf_and_mask, tensor_at, train_step
from tests.models import Kind, Recurrent, light_vit, noise, tokens


class Conv1D(nn.Module):
    """GPT-2's linear layer, which stores its weight the other way round."""

    def __init__(self, outputs: int, inputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(inputs, outputs))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight, std=0.02)
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight + self.bias


class Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.c_attn, self.c_proj = Conv1D(3 * width, width), Conv1D(width, width)
        self.c_fc, self.c_out = Conv1D(4 * width, width), Conv1D(width, 4 * width)

    def forward(self, x: Tensor) -> Tensor:
        shape = (*x.shape[:2], self.heads, -1)
        parts = self.c_attn(self.ln_1(x)).chunk(3, -1)
        query, key, value = (part.view(shape).transpose(1, 2) for part in parts)
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.c_proj(mixed.transpose(1, 2).flatten(2))
        return x + self.c_out(F.gelu(self.c_fc(self.ln_2(x))))


class GPT2(nn.Module):
    """The architecture of GPT-2, small: its own linear layers, and a head tied to the embedding."""

    def __init__(self, vocabulary: int = 40, width: int = 32, depth: int = 2) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(vocabulary, width), nn.Embedding(16, width)
        self.h = nn.Sequential(*(Block(width, 2) for _ in range(depth)))
        self.ln_f = nn.LayerNorm(width)
        self.lm_head = nn.Linear(width, vocabulary, bias=False)
        self.lm_head.weight = self.wte.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.wte(tokens) + self.wpe.weight[: tokens.shape[1]]
        return self.lm_head(self.ln_f(self.h(x)))


def small_resnet() -> nn.Module:
    """Build a ResNet-18 with one block a stage: half the weights, above every gate all the same."""
    block = torchvision.models.resnet.BasicBlock
    return torchvision.models.ResNet(block, [1, 1, 1, 1], num_classes=10)


def resnet18() -> nn.Module:
    return torchvision.models.resnet18(num_classes=10)


RESNET = Kind("resnet10", small_resnet, noise(2, 3, 32, 32))
KINDS = [
    RESNET,
    Kind("gpt2", GPT2, tokens(2, 8, below=40)),
    Kind("lstm", lambda: Recurrent(nn.LSTM, width=24, num_layers=2), noise(3, 5, 4)),
    Kind("vit", light_vit, noise(2, 3, 32, 32)),
]
WHOLE = pytest.param(Kind("resnet18", resnet18, noise(2, 3, 32, 32)), marks=pytest.mark.slow)
EVERY_KIND = pytest.mark.parametrize("kind", [*KINDS, WHOLE], ids=lambda kind: kind.name)
FORMS = {
    "masked": lambda model: model,
    "sign_in": lambda model: pol.sign_in(model, beta=0.5),
}
EVERY_FORM = pytest.mark.parametrize("form", FORMS)


def pruned(kind: Kind, form: str = "masked", density: float = 0.4) -> nn.Module:
    """Prune a model to a density in training mode, in one of the forms."""
    model = build(kind).train()
    pol.imp_prune(model, density=density)
    return FORMS[form](model)


def momentum(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)


def assert_pruned_to(model: nn.Module, masks: dict[str, Tensor]) -> None:
    """Masks are these, effective and stored entries outside them are zero, inside mostly not."""
    assert pol.masks(model).keys() == masks.keys()
    for name, mask in pol.masks(model).items():
        weight = tensor_at(model, name).detach()
        assert torch.equal(mask, masks[name]), name
        assert not weight[~mask].any(), name
        assert weight[mask].count_nonzero() > 0.9 * mask.sum(), name
    for stored, mask in leaf_and_mask(model):
        assert not stored.detach()[~mask].any()


def copied(masks: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: mask.clone() for name, mask in masks.items()}


def test_a_tied_gpt2_is_pruned_where_its_matrices_are_and_not_in_its_embedding():
    model = build(KINDS[1])
    report = pol.imp_prune(model, density=0.3)
    assert [row.name for row in report] == [
        f"h.{block}.{layer}.weight"
        for block in range(2)
        for layer in ("c_attn", "c_proj", "c_fc", "c_out")
    ]
    zeros = sum(int((tensor_at(model, row.name) == 0).sum()) for row in report)
    assert zeros == round(0.7 * report.total)
    assert model.wte.weight is model.lm_head.weight
    assert bool((model.wte.weight != 0).all())


@EVERY_KIND
@EVERY_FORM
def test_freezing_and_thawing_keeps_masks_and_values(kind, form):
    model = pruned(kind, form)
    masks, optimizer = copied(pol.masks(model)), momentum(model)
    train_step(model, optimizer, feed(kind))
    model.requires_grad_(False)
    frozen = copy.deepcopy(pol.dense_state_dict(model))
    model.eval()(*feed(kind))
    model.train().requires_grad_(True)
    assert all(torch.equal(frozen[n], v) for n, v in pol.dense_state_dict(model).items())
    train_step(model, optimizer, feed(kind))
    assert_pruned_to(model, masks)


@EVERY_KIND
@EVERY_FORM
def test_one_frozen_layer_trains_no_more_and_the_rest_does(kind, form):
    model = pruned(kind, form)
    optimizer = momentum(model)
    train_step(model, optimizer, feed(kind))
    name = next(iter(pol.masks(model)))
    model.get_submodule(name.rpartition(".")[0]).requires_grad_(False)
    optimizer.zero_grad()
    before = copy.deepcopy(pol.dense_state_dict(model))
    train_step(model, optimizer, feed(kind))
    after = pol.dense_state_dict(model)
    assert torch.equal(before[name], after[name])
    others = [
        other for other in pol.masks(model) if other.rpartition(".")[0] != name.rpartition(".")[0]
    ]
    assert any(not torch.equal(before[other], after[other]) for other in others)


@EVERY_KIND
@pytest.mark.parametrize("use_buffers", [False, True])
def test_an_average_of_torch_gets_the_models_masks_by_one_line(kind, use_buffers):
    model = pruned(kind, density=0.8)
    optimizer = momentum(model)
    average = torch.optim.swa_utils.AveragedModel(model, use_buffers=use_buffers)
    for _ in range(3):
        train_step(model, optimizer, feed(kind))
        average.update_parameters(model)
        pol.imp_prune(model, 0.3, optimizer=optimizer)
    average.update_parameters(model)
    pol.load_masks(average, pol.masks(model))
    assert_pruned_to(average.module, pol.masks(model))
    assert pol.density(average) == pol.density(model)


def zip_average(average: nn.Module, model: nn.Module, decay: float = 0.9) -> None:
    """Average everything in the ``state_dict``, as timm and many scripts do."""
    with torch.no_grad():
        for mean, value in zip(
            average.state_dict().values(), model.state_dict().values(), strict=True
        ):
            if mean.is_floating_point():
                mean.lerp_(value.to(mean.dtype), 1 - decay)
            else:
                mean.copy_(value)


def timm_average(average: nn.Module, model: nn.Module) -> None:
    ema = pytest.importorskip("timm.utils").ModelEmaV3(average, decay=0.9)
    ema.update(model)
    average.load_state_dict(ema.module.state_dict())


@EVERY_KIND
@EVERY_FORM
@pytest.mark.parametrize("update", [zip_average, timm_average])
def test_an_average_of_the_state_dict_is_reported_and_gets_the_models_masks_by_one_line(
    kind, form, update: Callable[[nn.Module, nn.Module], None]
):
    model = pruned(kind, form, density=0.8)
    average, optimizer = copy.deepcopy(model), momentum(model)
    train_step(model, optimizer, feed(kind))
    pol.imp_prune(model, 0.3, optimizer=optimizer)

    def averaged() -> None:
        update(average, model)
        average.train(not average.training)

    with pytest.warns(UserWarning, match="load_masks"):
        averaged()
    pol.load_masks(average, pol.masks(model))
    assert_pruned_to(average, pol.masks(model))


@EVERY_KIND
@EVERY_FORM
def test_reset_parameters_gives_new_survivors_under_the_same_masks(kind, form):
    model = pruned(kind, form)
    masks, before = copied(pol.masks(model)), copy.deepcopy(pol.dense_state_dict(model))
    model.apply(lambda m: m.reset_parameters() if hasattr(m, "reset_parameters") else None)
    pol.reinitialize(model, generator=torch.Generator().manual_seed(3))
    assert pol.masks(model).keys() == masks.keys()
    for name, mask in masks.items():
        weight = tensor_at(model, name).detach()
        assert torch.equal(pol.masks(model)[name], mask)
        assert not weight[~mask].any()
        if "heads.head" not in name:  # torchvision gives a ViT a head of zeros
            assert (weight != before[name])[mask].float().mean() > 0.9, name


@EVERY_KIND
@EVERY_FORM
def test_pruning_between_accumulated_gradients_moves_nothing_that_was_pruned(kind, form):
    model = pruned(kind, form)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    train_step(model, optimizer, feed(kind))
    optimizer.zero_grad()
    for seed in (2, 3):
        model(*feed(kind, seed)).square().mean().backward()
        pol.imp_prune(model, 0.2, optimizer=optimizer)
    optimizer.step()
    assert_pruned_to(model, copied(pol.masks(model)))
    for stored, mask in leaf_and_mask(model):
        assert not stored.grad[~mask].any()
        assert not optimizer.state[stored]["exp_avg"][~mask].any()


@EVERY_KIND
def test_two_optimizers_are_rewound_and_cleared_together(kind):
    model = pruned(kind)
    masked = {id(leaf) for leaf, _ in leaf_and_mask(model)}
    matrices = torch.optim.SGD([p for p in model.parameters() if id(p) in masked], 0.1, 0.9)
    others = torch.optim.AdamW([p for p in model.parameters() if id(p) not in masked], 0.01)
    start = pol.RewindPoint.capture(model, [matrices, others])
    for _ in range(2):
        model(*feed(kind)).square().mean().backward()
        matrices.step(), others.step()
        matrices.zero_grad(), others.zero_grad()
    for group in (*matrices.param_groups, *others.param_groups):
        group["lr"] = 1e-6
    pol.lrr_step(model, 0.2, rewind=start, optimizer=[matrices, others])
    assert (matrices.param_groups[0]["lr"], others.param_groups[0]["lr"]) == (0.1, 0.01)
    model(*feed(kind)).square().mean().backward()
    matrices.step(), others.step()
    assert_pruned_to(model, copied(pol.masks(model)))


@EVERY_KIND
@EVERY_FORM
def test_a_validation_hook_in_inference_mode_may_prune_and_training_goes_on(kind, form):
    model = build(kind).train()
    with torch.inference_mode():
        pol.imp_prune(model, density=0.5)
        FORMS[form](model)
    optimizer = momentum(model)
    train_step(model, optimizer, feed(kind))
    with torch.inference_mode():
        pol.imp_prune(model, 0.2, optimizer=optimizer)
        model(*feed(kind))
    train_step(model, optimizer, feed(kind))
    assert_pruned_to(model, copied(pol.masks(model)))


@EVERY_KIND
@EVERY_FORM
def test_pickling_is_refused_with_the_ways_out_and_deepcopy_works(kind, form):
    model = pruned(kind, form)
    with pytest.raises(RuntimeError, match=r"pol(arity)?\.save.*state_dict.*merge"):
        pickle.dumps(model)
    twin = copy.deepcopy(model)
    train_step(twin, momentum(twin), feed(kind))
    assert_pruned_to(twin, copied(pol.masks(model)))


@EVERY_KIND
@EVERY_FORM
def test_partial_checkpoints_load_as_into_the_plain_model(kind, form):
    model, donor = pruned(kind, form), build(kind, seed=5)
    masks = copied(pol.masks(model))
    taken = next(iter(masks))
    before = copy.deepcopy(pol.dense_state_dict(model))
    result = model.load_state_dict({taken: donor.state_dict()[taken]}, strict=False)
    assert not result.unexpected_keys
    expected = donor.state_dict()[taken] * masks[taken]
    torch.testing.assert_close(tensor_at(model, taken).detach(), expected, rtol=1e-6, atol=1e-7)
    after = pol.dense_state_dict(model)
    assert all(torch.equal(before[name], after[name]) for name in before if name != taken)
    assert all(torch.equal(pol.masks(model)[name], mask) for name, mask in masks.items())
