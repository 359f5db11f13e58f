"""Compiled, channels_last, bfloat16, without denormals: the same training to within rounding."""

import weakref

import pytest
import torch
from torch import nn

import polarity as pol
from benchmarks.harness.execution import forward_of, without_denormals
from benchmarks.harness.recipe_training import train
from benchmarks.harness.recipes import Recipe
from benchmarks.harness.training import evaluate, make_optimizer, train_epochs
from benchmarks.models import build_model
from benchmarks.models.resnet import cifar_resnet
from benchmarks.papers.signs.run import train_rounds

BACKENDS = ["eager", "aot_eager"]


def halved(model: nn.Module) -> nn.Module:
    """The model under masks of density 0.5."""
    draw = torch.Generator().manual_seed(5)
    pol.prune(pol.mask_weights(model), pol.scores.random, density=0.5, generator=draw)
    return model


def conv_trained(data, **how):
    """Two epochs of a small masked convolutional network; its loss and its weights."""
    model = halved(build_model("conv2", data.shape, data.classes))
    optimizer = make_optimizer("sgd", model, 0.05)
    loss = train_epochs(model, data, optimizer, 2, 64, torch.Generator().manual_seed(0), **how)
    return loss, pol.dense_state_dict(model), evaluate(model, data.test_x, data.test_y)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_compiled_epoch_is_the_same_epoch(digits, backend):
    plain, compiled = conv_trained(digits), conv_trained(digits, compile=backend)
    assert compiled[0] == pytest.approx(plain[0], rel=1e-6)
    for name, weight in plain[1].items():
        torch.testing.assert_close(compiled[1][name], weight, rtol=1e-5, atol=1e-6)


def test_channels_last_is_the_same_epoch_in_another_order_of_memory(digits):
    plain, turned = conv_trained(digits), conv_trained(digits, channels_last=True)
    assert turned[0] == pytest.approx(plain[0], rel=1e-4)
    for name, weight in plain[1].items():
        torch.testing.assert_close(turned[1][name], weight, rtol=1e-3, atol=1e-5)
    assert turned[2][1] == pytest.approx(plain[2][1], abs=1.01)


def test_bfloat16_is_nearly_the_same_epoch_and_not_the_same_numbers(digits):
    plain, coarse = conv_trained(digits), conv_trained(digits, bf16=True)
    assert plain[0] != coarse[0] == pytest.approx(plain[0], rel=0.02)
    for name, weight in plain[1].items():
        assert coarse[1][name].dtype == weight.dtype
        torch.testing.assert_close(coarse[1][name], weight, rtol=0.1, atol=0.01)


def test_bfloat16_runs_in_bfloat16(digits):
    seen = []
    model = build_model("conv2", digits.shape, digits.classes)
    model.register_forward_hook(lambda module, args, out: seen.append(out.dtype))
    optimizer = make_optimizer("sgd", model, 0.05)
    train_epochs(model, digits, optimizer, 1, 64, torch.Generator(), bf16=True)
    evaluate(model, digits.test_x, digits.test_y, bf16=True)
    assert set(seen) == {torch.bfloat16}


@pytest.mark.parametrize("backend", BACKENDS)
def test_masks_that_change_between_rounds_are_obeyed_by_compiled_code(tiny, digits, backend):
    config = tiny(rounds=3, perturbation=(("epsilon", 0.2),))
    plain, compiled = (
        train_rounds(config, digits),
        train_rounds(config, digits, compile=backend),
    )
    for a, b in zip(plain, compiled, strict=True):
        assert a["density"] == b["density"]
        assert b["train_loss"] == pytest.approx(a["train_loss"], rel=1e-4)
        assert b["test_accuracy"] == pytest.approx(a["test_accuracy"], abs=2)


@pytest.mark.parametrize("backend", BACKENDS)
def test_compiled_training_keeps_pruned_weights_at_zero(digits, backend):
    model = halved(build_model("fc", digits.shape, digits.classes))
    optimizer = make_optimizer("adam", model, 1e-3)
    for _ in range(2):  # the second time with other masks and the code of the first
        train_epochs(model, digits, optimizer, 1, 64, torch.Generator(), compile=backend)
        weights, masks = pol.dense_state_dict(model), pol.masks(model)
        assert all(not weights[name][~mask].any() for name, mask in masks.items())
        pol.prune(model, pol.scores.magnitude, density=0.2, optimizer=optimizer)
    assert pol.density(model) == pytest.approx(0.2, abs=1e-3)


def test_every_run_of_a_sweep_is_compiled(tiny, digits, monkeypatch):
    """After a number of versions torch stops to compile, without an error."""
    compiled = []

    def count(graph, inputs):
        compiled.append(len(inputs))
        return graph.forward

    plain = torch.compile
    monkeypatch.setattr(torch, "compile", lambda m, **how: plain(m, **{**how, "backend": count}))
    for seed in range(6):
        train_rounds(tiny(rounds=1, seed=seed), digits, compile="counted")
    # Two sizes of batch, shared by the rounds of a run.
    assert len(compiled) == 2 * 6


def test_the_recipes_loop_compiles_and_the_penalty_stays(digits):
    recipe = Recipe(epochs=2, batch_size=64, lr=0.05, schedule="triangular")

    def penalty(model):
        return 1e-3 * model.fc.weight.square().sum()

    records = []
    for how in (False, *BACKENDS):
        model = cifar_resnet(8, width=8, channels=1, generator=torch.Generator().manual_seed(0))
        generator = torch.Generator().manual_seed(1)
        halved(model)
        records.append(
            train(model, digits, recipe, generator=generator, penalty=penalty, compile=how)
        )
    for other in records[1:]:
        for a, b in zip(records[0], other, strict=True):
            assert b["train_loss"] == pytest.approx(a["train_loss"], rel=1e-4)


def test_nothing_is_wrapped_where_nothing_is_compiled():
    model = nn.Linear(2, 2)
    assert forward_of(model) is model


def test_compiling_does_not_keep_a_network_alive():
    model = nn.Linear(2, 2)
    forward_of(model, "eager")
    gone = weakref.ref(model)
    del model
    assert gone() is None


def test_denormals_are_zero_for_a_while():
    tiny = torch.full((4,), 1e-39)
    assert tiny.mul(0.5).any()
    with without_denormals():
        assert not tiny.mul(0.5).any()
        with without_denormals():
            pass
        assert not tiny.mul(0.5).any()
    assert tiny.mul(0.5).any()
    with pytest.raises(RuntimeError), without_denormals():
        raise RuntimeError
    assert tiny.mul(0.5).any()


def test_adams_memory_of_dead_units_does_not_become_denormal(digits):
    model = build_model("fc", digits.shape, digits.classes)
    with torch.no_grad():
        model[1].bias[:100] = -1e3  # dead from the start
    optimizer = make_optimizer("adam", model, 1e-3)
    train_epochs(model, digits, optimizer, 1, 64, torch.Generator())
    for state in optimizer.state.values():
        state["exp_avg"].fill_(2e-38)
    train_epochs(model, digits, optimizer, 3, 64, torch.Generator())
    smallest = torch.finfo(torch.float32).tiny
    for state in optimizer.state.values():
        size = state["exp_avg"].abs()
        assert not ((size > 0) & (size < smallest)).any()


@pytest.mark.slow
def test_torchs_own_compiler_trains_the_same_network(tiny, digits):
    plain, compiled = train_rounds(tiny(), digits), train_rounds(tiny(), digits, compile=True)
    for a, b in zip(plain, compiled, strict=True):
        assert a["density"] == b["density"]
        assert b["train_loss"] == pytest.approx(a["train_loss"], rel=1e-3)


@pytest.mark.gpu
@pytest.mark.parametrize("bf16", [False, True])
def test_cuda_graphs_obey_masks_that_change(tiny, bf16):
    from benchmarks.harness.data import load_dataset

    data = load_dataset("digits", train_size=300, test_size=100, device="cuda")
    config = tiny(rounds=3, device="cuda", bf16=bf16)
    plain, captured = train_rounds(config, data), train_rounds(config, data, compile=True)
    for a, b in zip(plain, captured, strict=True):
        assert a["density"] == b["density"]
        assert b["train_loss"] == pytest.approx(a["train_loss"], rel=0.05 if bf16 else 1e-2)
