"""Real networks through the whole life of a ticket: mask, train, prune, rewind, re-sign, merge."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import polarity as pol
from tests.forms import half_masked
from tests.helpers import (
    build,
    feed,
    full_precision,
    leaf_and_mask,
    outputs,
    same_state,
    train_step,
)
from tests.models import LARGE_ZOO, ZOO, Kind, TextEncoder, seeded

STRATEGIES = ("mask1", "mask0", "gradual", "standard")
PERTURBATIONS = {
    "mask1": pol.Epsilon(0.3),
    "mask0": pol.Delta(0.2),
    "gradual": [pol.Phi(1e-4), pol.Epsilon(0.1), pol.Delta(0.5)],
    "standard": None,
}
every_network = pytest.mark.parametrize("kind", ZOO, ids=lambda kind: kind.name)
OPTIMIZERS: dict[str, Any] = {
    "momentum": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9, weight_decay=0.01),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.001, weight_decay=0.01),
}


def assert_pruned_entries_are_zero(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    for leaf, mask in leaf_and_mask(model):
        assert not leaf[~mask].any()
        for value in optimizer.state[leaf].values():
            if isinstance(value, Tensor) and value.shape == mask.shape:
                assert not value[~mask].any()


def prune_three_rounds(model: nn.Module, kind: Kind, optimizer: str) -> pol.RewindPoint:
    """Train a step, prune and rewind, three times; everything is checked on the way."""
    inputs = feed(kind)
    initial = {name: value.clone() for name, value in model.state_dict().items()}
    pol.mask_weights(model).train()
    opt = OPTIMIZERS[optimizer](model.parameters())
    start = pol.RewindPoint.capture(model, opt)
    total = alive = sum(mask.numel() for mask in pol.masks(model).values())
    for _ in range(3):
        train_step(model, opt, inputs)
        report = pol.imp_prune(model, 0.2, rewind=start, optimizer=opt)
        alive -= round(0.2 * alive)
        assert (report.survivors, report.total) == (alive, total)
        masks, now = pol.masks(model), pol.dense_state_dict(model)
        assert now.keys() == initial.keys()
        for name, value in initial.items():
            expected = value.masked_fill(~masks[name], 0.0) if name in masks else value
            assert torch.equal(now[name], expected), name
        assert_pruned_entries_are_zero(model, opt)
    train_step(model, opt, inputs)
    assert_pruned_entries_are_zero(model, opt)
    return start


def re_sign(
    model: nn.Module,
    strategy: Any,
    start: pol.RewindPoint,
    trained: pol.RewindPoint | None = None,
    scope: Any = "layer",
) -> None:
    """Re-sign, and check every survivor's magnitude and every pruned entry."""
    masks, before = pol.masks(model), pol.dense_state_dict(model)
    draw = torch.Generator().manual_seed(3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # ViT's real head starts at zero
        pol.reinit_signs(
            model,
            strategy,
            PERTURBATIONS[strategy],
            init=start,
            trained=trained,
            scope=scope,
            generator=draw,
        )
    now = pol.dense_state_dict(model)
    for name, value in now.items():
        if name not in masks:
            assert torch.equal(value, before[name]), name
            continue
        sigma = start.weights[name].double().std(correction=0).to(value.dtype)
        assert torch.equal(value[masks[name]].abs(), sigma.expand(int(masks[name].sum()))), name
        if strategy == "standard":
            assert torch.equal(value[masks[name]] >= 0, before[name][masks[name]] >= 0), name
        else:
            assert not value[~masks[name]].any(), name


def save_load_and_merge(model: nn.Module, fresh: nn.Module, kind: Kind, path: Path) -> None:
    inputs = feed(kind)
    keys = list(fresh.state_dict())
    output = outputs(model.eval(), inputs)
    assert bool(output.isfinite().all())
    pol.save(model, path)
    loaded = pol.load(fresh, path).eval()
    assert same_state(pol.masks(loaded), pol.masks(model))
    assert torch.equal(outputs(loaded, inputs), output)
    for each in (model, loaded):
        assert torch.equal(outputs(pol.merge(each), inputs), output)
        assert list(each.state_dict()) == keys


@every_network
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_three_rounds_of_rewinding_return_exactly_to_the_initial_values(
    kind: Kind, optimizer: str
) -> None:
    prune_three_rounds(build(kind), kind, optimizer)


@every_network
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_re_signed_network_is_saved_loaded_and_merged_with_equal_outputs(
    kind: Kind, strategy: str, tmp_path: Path
) -> None:
    model, inputs = pol.mask_weights(build(kind)).train(), feed(kind)
    start = pol.RewindPoint.capture(model)
    opt = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    train_step(model, opt, inputs)
    trained = pol.RewindPoint.capture(model)
    pol.imp_prune(model, 0.5, optimizer=opt)
    re_sign(model, strategy, start, trained)
    train_step(model, opt, inputs)
    if strategy != "standard":
        assert_pruned_entries_are_zero(model, opt)
    save_load_and_merge(model, build(kind, seed=5), kind, tmp_path / "ticket.safetensors")


def test_the_strategy_standard_gives_pruned_entries_their_trained_values_back() -> None:
    kind = ZOO[0]
    model, inputs = pol.mask_weights(build(kind)).train(), feed(kind)
    start = pol.RewindPoint.capture(model)
    train_step(model, torch.optim.SGD(model.parameters(), lr=0.01), inputs)
    trained = pol.dense_state_dict(model)
    pol.imp_prune(model, 0.5)
    masks = pol.masks(model)
    pol.reinit_signs(model, "standard", init=start, trained=trained)
    now = pol.dense_state_dict(model)
    assert all(torch.equal(now[name][~masks[name]], trained[name][~masks[name]]) for name in masks)


def test_what_is_pruned_in_each_network_is_every_convolution_projection_and_linear_layer() -> None:
    found = {kind.name: set(pol.find_targets(kind.build())) for kind in ZOO}
    for kind in ZOO[:4]:
        model = kind.build()
        layers = {
            f"{name}.weight"
            for name, module in model.named_modules()
            if isinstance(module, (nn.Conv2d, nn.Linear))
        }
        attention = {n for n, _ in model.named_parameters() if n.endswith("in_proj_weight")}
        assert found[kind.name] == layers | attention
    assert "encoder.layers.1.self_attn.out_proj.weight" in found["transformer"]
    assert not any("embed" in name or "norm" in name for name in found["transformer"])
    assert "cell.weight_hh_l1" in found["lstm"]


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("padded", [False, True])
def test_the_fused_encoder_of_evaluation_agrees_with_the_layers_of_training(
    padded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, plain = half_masked(seeded(TextEncoder())).eval(), seeded(TextEncoder()).eval()
    plain.load_state_dict(pol.dense_state_dict(model))
    tokens = torch.randint(11, (3, 6), generator=torch.Generator().manual_seed(2))
    padding = torch.zeros(3, 6, dtype=torch.bool)
    padding[0, 4:] = True
    calls, fused = [], torch._transformer_encoder_layer_fwd

    def counted(*args: Any) -> Tensor:
        calls.append(args)
        return fused(*args)

    monkeypatch.setattr(torch, "_transformer_encoder_layer_fwd", counted)
    how = (tokens, padding) if padded else (tokens,)
    with torch.no_grad():
        fast, plain_fast = model.encoder(model.embed(tokens)), plain.encoder(plain.embed(tokens))
        assert len(calls) == 4, "the fused kernel was not used"
        torch.testing.assert_close(fast, plain_fast)
        torch.testing.assert_close(model(*how), plain(*how))
    if not padded:  # the fused path writes zeros, and the layers nothing in particular, at padding
        slow = model.encoder(model.embed(tokens))
        assert len(calls) == 8
        torch.testing.assert_close(fast, slow.detach())


def real(kind: Kind, seed: int) -> nn.Module:
    """Build a network with the initialisation of its own constructor, dropout aside."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = kind.build()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:init of")
@pytest.mark.parametrize("kind", LARGE_ZOO, ids=lambda kind: kind.name)
def test_networks_of_full_size_live_the_same_life(kind: Kind, tmp_path: Path) -> None:
    model = real(kind, 0)
    start = prune_three_rounds(model, kind, "momentum")
    for strategy in STRATEGIES:
        re_sign(model, strategy, start, pol.RewindPoint.capture(model), scope="global")
    save_load_and_merge(model, real(kind, 5), kind, tmp_path / "ticket.safetensors")


@pytest.mark.gpu
@every_network
def test_a_network_on_the_gpu_lives_the_same_life(kind: Kind, tmp_path: Path) -> None:
    model = pol.mask_weights(build(kind)).cuda().train()
    inputs = tuple(x.cuda() for x in feed(kind))
    start = pol.RewindPoint.capture(model)
    opt = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    for _ in range(2):
        train_step(model, opt, inputs)
        pol.imp_prune(model, 0.3, rewind=start, optimizer=opt)
        assert_pruned_entries_are_zero(model, opt)
    train_step(model, opt, inputs)
    re_sign(model, "gradual", start)
    pol.save(model, tmp_path / "ticket.safetensors")
    loaded = pol.load(build(kind, seed=5), tmp_path / "ticket.safetensors")
    with full_precision():
        output = outputs(model.eval(), inputs)
        expected = outputs(loaded.eval(), feed(kind))
        torch.testing.assert_close(output.cpu(), expected, rtol=1e-2, atol=1e-3)
        torch.testing.assert_close(outputs(pol.merge(model), inputs), output)
