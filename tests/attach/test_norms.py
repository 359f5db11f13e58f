"""What interpolate_norms attaches to, and what it refuses."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn

import polarity as pol
from polarity.attach.norms import attached_norms
from tests.helpers import plain_state, same_state
from tests.models import generator, seeded
from tests.norm_nets import NETS, X, alphas, moved, pair


def test_every_norm_of_torch_and_its_subclasses_are_found() -> None:
    class Own(nn.LayerNorm):
        pass

    model = nn.ModuleDict(
        {
            "b1": nn.BatchNorm1d(3), "b2": nn.BatchNorm2d(3), "b3": nn.BatchNorm3d(3),
            "sync": nn.SyncBatchNorm(3), "i1": nn.InstanceNorm1d(3, affine=True),
            "layer": nn.LayerNorm(3), "group": nn.GroupNorm(1, 3), "rms": nn.RMSNorm(3),
            "own": Own(3), "vision": torchvision.ops.misc.LayerNorm2d(3)
            if hasattr(torchvision.ops.misc, "LayerNorm2d") else nn.LayerNorm(3),
            "no_bias": nn.LayerNorm(3, bias=False), "linear": nn.Linear(3, 3),
        }
    )  # fmt: skip
    pol.interpolate_norms(model)
    expected = {f"{name}.{t}" for name in model for t in ("weight", "bias")}
    expected -= {"rms.bias", "no_bias.bias", "linear.weight", "linear.bias"}
    assert set(attached_norms(model)) == expected


def test_the_table_says_what_was_skipped_and_why(capsys: pytest.CaptureFixture[str]) -> None:
    class OddNorm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(3))

    frozen = nn.LayerNorm(3)
    frozen.weight.requires_grad_(False)
    model = nn.ModuleDict(
        {
            "taken": nn.LayerNorm(3), "bare": nn.BatchNorm2d(3, affine=False), "frozen": frozen,
            "fixed": torchvision.ops.FrozenBatchNorm2d(3), "local": nn.LocalResponseNorm(2),
            "lazy": nn.LazyBatchNorm1d(), "odd": OddNorm(),
        }
    )  # fmt: skip
    pol.interpolate_norms(model, verbose=True)
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert "LayerNorm" in lines["taken.weight"]
    for name, reason in {
        "bare": "not affine", "frozen.weight": "frozen (requires_grad=False)",
        "fixed": "no parameters", "local": "no parameters", "lazy.weight": "lazy",
        "odd": "targets=OddNorm",
    }.items():  # fmt: skip
        assert "skipped" in lines[name]
        assert reason in lines[name]
    assert set(attached_norms(model)) == {"taken.weight", "taken.bias", "frozen.bias"}
    pol.interpolate_norms(model, targets=OddNorm)
    assert "odd.scale" in attached_norms(model)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"targets": "1"}, {"1.weight", "1.bias"}),
        ({"targets": "*.bias"}, {"1.bias", "4.bias", "8.bias"}),
        ({"targets": nn.BatchNorm1d}, {"8.weight", "8.bias"}),
        ({"targets": [nn.BatchNorm1d, "1.bias"]}, {"1.bias", "8.weight", "8.bias"}),
        ({"targets": lambda name, p: p.numel() == 16}, {"8.weight", "8.bias"}),
        ({"exclude": nn.BatchNorm2d}, {"8.weight", "8.bias"}),
        ({"exclude": "*.weight"}, {"1.bias", "4.bias", "8.bias"}),
    ],
)
def test_targets_and_exclude_choose_among_norms(
    options: dict[str, object], expected: set[str]
) -> None:
    model = pol.interpolate_norms(NETS["batch"](), **options)
    assert set(attached_norms(model)) == expected


def test_a_name_above_the_norms_means_the_norms_below_it() -> None:
    model = nn.ModuleDict({"block": NETS["batch"](), "other": NETS["layer"]()})
    pol.interpolate_norms(model, targets="block")
    assert set(attached_norms(model)) == {
        f"block.{i}.{t}" for i in (1, 4, 8) for t in ("weight", "bias")
    }


def test_calling_it_again_changes_nothing() -> None:
    model = pair("batch")[0].train()
    model(X)
    before, hooks = plain_state(model), dict(model._forward_pre_hooks)
    modules = list(model.modules())
    assert pol.interpolate_norms(model) is model
    assert same_state(plain_state(model), before)
    assert dict(model._forward_pre_hooks) == hooks
    assert list(model.modules()) == modules


@pytest.mark.parametrize("inner_first", [True, False])
def test_norms_attached_one_after_the_other_share_one_draw_per_call(inner_first: bool) -> None:
    model = nn.Sequential(NETS["batch"](), nn.LayerNorm(3)).train()
    if inner_first:
        pol.interpolate_norms(model[0], generator=generator())
        pol.interpolate_norms(model)
    else:
        pol.interpolate_norms(model, exclude="0.8", generator=generator())
        pol.interpolate_norms(model[0])
    expected = pol.interpolate_norms(nn.LayerNorm(3), generator=generator())
    for _ in range(3):
        model(X)
        expected(torch.ones(3))
        assert set(alphas(model)) == set(alphas(expected))
    assert len(alphas(model)) == 4
    pol.merge(model)
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_tied_norms_are_interpolated_together() -> None:
    model = nn.Sequential(nn.LayerNorm(3), nn.Tanh(), nn.LayerNorm(3)).train()
    model[2].weight = model[0].weight
    pol.interpolate_norms(model, generator=generator())
    moved(model)
    model(torch.ones(2, 3))
    assert torch.equal(model[0].weight, model[2].weight)
    assert len(list(model.parameters())) == 3
    with pytest.raises(ValueError, match=r"tied to '2\.weight'"):
        pol.interpolate_norms(pol.merge(model), targets="0")
    assert model[0].weight is model[2].weight


@pytest.mark.parametrize("form", ["mapping", "point"])
def test_initial_values_can_be_those_of_an_earlier_moment(form: str) -> None:
    model = seeded(NETS["batch"]())
    point = pol.RewindPoint.capture(model)
    moved(model)
    start = point if form == "point" else {k: v.double() for k, v in point.weights.items()}
    pol.interpolate_norms(model, initial=start)
    pol.set_norm_alpha(model, 0)
    for index in (1, 4, 8):
        assert torch.equal(model[index].weight, point.weights[f"{index}.weight"])
        assert torch.equal(model[index].bias, point.weights[f"{index}.bias"])
    with torch.no_grad():
        model[1].parametrizations.weight[0].initial.add_(1)
    assert not torch.equal(model[1].weight, point.weights["1.weight"])


def pruned_by_torch() -> nn.Module:
    model = NETS["batch"]()
    nn.utils.prune.l1_unstructured(model[1], "weight", 2)
    return model


@pytest.mark.parametrize(
    ("build", "options", "error", "message"),
    [
        (lambda: nn.Linear(2, 2), {}, ValueError, "Linear has no normalisation parameters"),
        (lambda: nn.BatchNorm2d(2, affine=False), {}, ValueError, "is not affine"),
        (lambda: nn.LazyBatchNorm2d(), {}, ValueError, "lazy: run one batch"),
        (NETS["batch"], {"targets": "0"}, ValueError, "targets='0' matches nothing"),
        (NETS["batch"], {"exclude": "nothing"}, ValueError, "exclude='nothing' matches nothing"),
        (NETS["batch"], {"targets": 3}, TypeError, "targets holds 3, expected"),
        (NETS["batch"], {"initial": {}}, ValueError, r"initial is missing '1\.weight'"),
        (NETS["batch"], {"initial": 1.0}, TypeError, "initial is a float, expected a RewindPoint"),
        (
            NETS["batch"],
            {"initial": {**NETS["batch"]().state_dict(), "8.bias": torch.ones(1)}},
            ValueError,
            r"initial holds '8\.bias' in shape \(1,\), expected the model's \(\d+,\)",
        ),
        (
            NETS["batch"],
            {"initial": {**NETS["batch"]().state_dict(), "8.bias": [0.0]}},
            TypeError,
            r"initial\['8\.bias'\] is a list, expected a tensor",
        ),
        (pruned_by_torch, {}, ValueError, r"1\.weight carries a mask of torch"),
        (
            lambda: pol.mask_weights(NETS["batch"](), targets=["1.weight", nn.Conv2d]),
            {},
            ValueError,
            r"1\.weight is already parametrized by MaskedWeight",
        ),
    ],
)
def test_what_cannot_be_done_is_refused_and_the_model_left_as_it_was(
    build: Callable[[], nn.Module],
    options: dict[str, object],
    error: type[Exception],
    message: str,
) -> None:
    model = build()
    keys, kinds = list(model.state_dict()), [type(module) for module in model.modules()]
    with pytest.raises(error, match=message):
        pol.interpolate_norms(model, **options)
    assert list(model.state_dict()) == keys
    assert [type(module) for module in model.modules()] == kinds
    ours = [
        hook for hook in model._forward_pre_hooks.values() if "polarity" in type(hook).__module__
    ]
    assert not ours


def test_torchvision_models_are_interpolated_whole() -> None:
    resnet = pol.interpolate_norms(torchvision.models.resnet18(num_classes=3))
    assert len(attached_norms(resnet)) == 40
    convnext = pol.interpolate_norms(torchvision.models.convnext_tiny(num_classes=3))
    assert {name.rpartition(".")[2] for name in attached_norms(convnext)} == {"weight", "bias"}
    norms = sum(isinstance(module, nn.LayerNorm) for module in convnext.modules())
    assert len(attached_norms(convnext)) == 2 * norms


def test_saving_with_safetensors(tmp_path: Path) -> None:
    model = pair("layer")[0].train()
    model(X)
    pol.save(model, tmp_path / "model.safetensors")
    other = pol.interpolate_norms(NETS["layer"](), generator=generator(8))
    pol.load(other, tmp_path / "model.safetensors")
    assert same_state(plain_state(other), plain_state(model))
    assert torch.equal(other(X), model(X))
