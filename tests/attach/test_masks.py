"""Attach masks to any model, whatever pruned it before, and take them off again."""

import contextlib
import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils import prune as torch_prune

import polarity as pol
from tests.forms import half_masked
from tests.helpers import outputs, plain_state, same_state, train, train_step
from tests.models import Recurrent, SelfAttention, Tied, noise, seeded


def small(seed: int = 0) -> nn.Sequential:
    return seeded(nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)), seed)


INPUTS = noise(4, 6)(torch.Generator().manual_seed(2))
SEQUENCE = noise(2, 5, 4)(torch.Generator().manual_seed(2))


def is_plain(model: nn.Module) -> bool:
    return not any(parametrize.is_parametrized(module) for module in model.modules())


def test_new_masks_are_all_ones_and_change_nothing() -> None:
    model = small()
    output, parameters = outputs(model, INPUTS), list(model.parameters())
    assert pol.mask_weights(model) is model
    assert all(bool(mask.all()) for mask in pol.masks(model).values())
    assert torch.equal(outputs(model, INPUTS), output)
    assert {id(p) for p in model.parameters()} == {id(p) for p in parameters}


def test_an_optimizer_built_before_masking_goes_on_training_every_weight() -> None:
    model = small()
    sgd = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    train_step(model, sgd, INPUTS)
    twin, twin_sgd = copy.deepcopy((model, sgd))
    pol.mask_weights(model)
    for _ in range(3):
        train_step(model, sgd, INPUTS)
        train_step(twin, twin_sgd, INPUTS)
    assert same_state(plain_state(pol.merge(model)), plain_state(twin))


def test_masking_twice_keeps_the_first_masks() -> None:
    model = half_masked(small())
    masks = pol.masks(model)
    pol.mask_weights(model)
    assert len(model[0].parametrizations.weight) == 1
    assert torch.equal(pol.masks(model)["0.weight"], masks["0.weight"])


def test_only_the_weights_asked_for_are_masked() -> None:
    assert list(pol.masks(pol.mask_weights(small(), targets="0"))) == ["0.weight"]
    assert list(pol.masks(pol.mask_weights(small(), exclude="0.weight"))) == ["2.weight"]


def test_verbose_prints_what_was_masked_and_what_was_skipped(
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = small()
    model[2].weight.requires_grad_(False)
    pol.mask_weights(model, verbose=True)
    printed = capsys.readouterr().out
    assert "0.weight" in printed
    assert "frozen" in next(line for line in printed.splitlines() if "2.weight" in line)
    pol.merge(model, verbose=True)
    assert "0.weight" in capsys.readouterr().out


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float32], ids=str)
@pytest.mark.parametrize("suffix", ["", "_mask"], ids=["plain_name", "torch_name"])
def test_masks_may_be_given_under_both_names_and_in_any_dtype(
    dtype: torch.dtype, suffix: str
) -> None:
    mask = torch.rand(3, 5, generator=torch.Generator().manual_seed(4)) < 0.5
    given = mask.to(dtype, copy=True)
    model = pol.mask_weights(small(), masks={f"2.weight{suffix}": given})
    assert list(pol.masks(model)) == ["2.weight"]
    assert torch.equal(pol.masks(model)["2.weight"], mask)
    given.fill_(1)
    assert torch.equal(pol.masks(model)["2.weight"], mask), "the caller's mask is not a copy"


def test_masks_produced_by_torch_pruning_give_the_same_model() -> None:
    pruned = small()
    parameters = [(pruned[0], "weight"), (pruned[2], "weight")]
    torch_prune.global_unstructured(parameters, torch_prune.L1Unstructured, amount=0.5)
    model = pol.mask_weights(small(), masks=dict(pruned.named_buffers()))
    assert torch.equal(outputs(model, INPUTS), outputs(pruned, INPUTS))


def torch_pruned(model: nn.Module, amount: float = 0.5) -> nn.Module:
    """Prune every default target by PyTorch's own means."""
    for target in pol.find_targets(model).values():
        for use in target.owners:
            torch_prune.l1_unstructured(use.module, use.tensor_name, amount)
    return model


@pytest.mark.parametrize(
    ("build", "inputs"),
    [
        (small, INPUTS),
        (lambda: seeded(SelfAttention(4, 2, batch_first=True)), SEQUENCE),
        (lambda: seeded(Recurrent(nn.LSTM, num_layers=2)), SEQUENCE),
        (lambda: seeded(Tied()), (torch.arange(7),)),
    ],
    ids=["linear", "attention", "lstm", "tied"],
)
def test_a_model_pruned_by_torch_is_taken_over_with_its_masks(
    build: Any, inputs: tuple[Tensor, ...]
) -> None:
    model = torch_pruned(build())
    output, masks = outputs(model, inputs), dict(model.named_buffers())
    parameters = {id(p) for p in model.parameters()}
    pol.mask_weights(model)
    assert torch.equal(outputs(model, inputs), output)
    for name, mask in pol.masks(model).items():
        assert torch.equal(mask, masks[f"{name}_mask"].bool())
    assert {id(p) for p in model.parameters()} == parameters
    assert not any(module._forward_pre_hooks for module in model.modules())
    train(model, inputs)
    trained = outputs(model, inputs)
    assert not torch.equal(trained, output)
    assert torch.equal(outputs(pol.merge(model), inputs), trained)
    build().load_state_dict(model.state_dict())


def test_given_masks_win_over_those_of_live_torch_pruning() -> None:
    model = torch_pruned(small())
    mask = ~model[0].weight_mask.bool()
    pol.mask_weights(model, masks={"0.weight": mask})
    assert torch.equal(pol.masks(model)["0.weight"], mask)
    assert not hasattr(model[0], "weight_mask")


def test_pruning_goes_on_from_the_masks_of_live_torch_pruning() -> None:
    model = torch_pruned(small(), amount=0.6)
    dead = {name: ~mask.bool() for name, mask in model.named_buffers()}
    report = pol.imp_prune(model, 0.5)
    assert (report.before, report.survivors, report.total) == (12 + 6, 9, 45)
    for name, mask in pol.masks(model).items():
        assert not mask[dead[f"{name}_mask"]].any()


def test_what_torch_pruning_computed_at_the_last_forward_pass_is_not_taken_for_the_weight() -> None:
    """Its hook computes ``weight`` in the forward pass, so after a step that is a step behind."""
    model = torch_pruned(seeded(nn.Linear(6, 5)))
    model(*INPUTS)
    with torch.no_grad():
        model.weight_orig.copy_(torch.arange(30.0, 0.0, -1.0).view(5, 6))
    expected = model.weight_orig.detach() * model.weight_mask
    assert torch.equal(pol.RewindPoint.capture(model).weights["weight"], expected)
    pol.imp_prune(model, 0.4)
    threshold = expected[expected > 0].sort().values[6]
    assert torch.equal(pol.masks(model)["weight"], expected >= threshold)


@pytest.mark.parametrize("side", ["encoder", "decoder"])
def test_one_side_of_a_tied_weight_pruned_by_torch_never_changes_the_model_silently(
    side: str,
) -> None:
    model, tokens = seeded(Tied()), (torch.arange(7),)
    torch_prune.l1_unstructured(model.get_submodule(side), "weight", 0.5)
    output = outputs(model, tokens)
    with contextlib.suppress(ValueError):  # one mask cannot say it, so a refusal is fine
        pol.mask_weights(model)
    assert torch.equal(outputs(model, tokens), output)


def test_a_refused_mask_leaves_live_torch_pruning_in_place() -> None:
    model = torch_pruned(small())
    before = plain_state(model)
    with pytest.raises(ValueError, match=r"2\.weight"):
        pol.mask_weights(model, masks={"0.weight": torch.ones(5, 6), "2.weight": torch.ones(1)})
    assert same_state(plain_state(model), before)
    assert is_plain(model)


BAD_MASKS = {
    "unknown": ({"9.weight": torch.ones(3, 5)}, ValueError, r"9\.weight"),
    "shape": ({"2.weight": torch.ones(5, 3)}, ValueError, r"2\.weight.*\(5, 3\).*\(3, 5\)"),
    "values": ({"2.weight": torch.full((3, 5), 0.5)}, ValueError, r"2\.weight.*zeros and ones"),
    "nan": ({"2.weight": torch.full((3, 5), torch.nan)}, ValueError, r"2\.weight"),
    "type": ({"2.weight": [[1, 0, 1, 1, 0]] * 3}, TypeError, r"2\.weight"),
}


@pytest.mark.parametrize("bad", BAD_MASKS.values(), ids=BAD_MASKS)
def test_a_bad_mask_is_refused_by_name_and_changes_nothing(bad: Any) -> None:
    masks, error, named = bad
    model = small()
    before = plain_state(model)
    with pytest.raises(error, match=named):
        pol.mask_weights(model, masks={"0.weight": torch.zeros(5, 6)} | masks)
    assert is_plain(model)
    assert same_state(plain_state(model), before)


def test_a_mask_for_a_weight_that_is_left_out_is_refused() -> None:
    model = small()
    with pytest.raises(ValueError, match=r"2\.weight"):
        pol.mask_weights(
            model, exclude="2", masks={"0.weight": torch.ones(5, 6), "2.weight": torch.ones(3, 5)}
        )
    assert is_plain(model)


@pytest.mark.parametrize("verb", [pol.masks, pol.merge])
def test_a_model_without_masks_has_nothing_to_show_or_to_merge(verb: Any) -> None:
    with pytest.raises(ValueError, match="Sequential has no masked weights"):
        verb(small())


def test_merging_zeroes_what_the_optimizer_remembers_of_pruned_entries() -> None:
    model = pol.mask_weights(small())
    sgd = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    train_step(model, sgd, INPUTS)
    pol.load_masks(model, {"0.weight": torch.eye(5, 6)})
    weight = model[0].parametrizations.weight.original
    pol.merge(model, optimizer=sgd)
    assert model[0].weight is weight
    momentum = sgd.state[weight]["momentum_buffer"]
    dead = torch.eye(5, 6) == 0
    assert not momentum[dead].any()
    assert bool(momentum[~dead].all())


def test_merging_a_remembered_mask_keeps_every_weight() -> None:
    model = pol.mask_weights(small())
    start = pol.RewindPoint.capture(model)
    pol.imp_prune(model, density=0.4)
    pol.reinit_signs(model, "standard", init=start, trained=start)
    output = outputs(model, INPUTS)
    assert torch.equal(outputs(pol.merge(model), INPUTS), output)
    assert pol.density(model) == 1.0


def test_a_module_used_under_two_names_is_masked_and_merged_once() -> None:
    shared = nn.Linear(4, 4)
    model = seeded(nn.Sequential(shared, nn.Tanh(), shared))
    keys = list(model.state_dict())
    pol.mask_weights(model, masks={"2.weight": torch.eye(4)})
    assert list(pol.masks(model)) == ["0.weight"]
    assert pol.density(model) == 0.25
    assert len(shared.parametrizations.weight) == 1
    dense = pol.dense_state_dict(model)
    assert dense.keys() == set(keys)
    assert list(pol.merge(model).state_dict()) == keys
    assert torch.equal(dense["2.weight"], shared.weight)


class Doubled(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 2 * weight


@pytest.mark.parametrize("convert", [pol.mask_weights, pol.sign_in])
def test_a_parametrization_registered_on_top_of_ours_is_applied_too(convert: Any) -> None:
    layer = seeded(nn.Linear(60, 50))
    once = convert(copy.deepcopy(layer)).weight.detach()
    convert(layer)
    chain = type(layer.parametrizations.weight)
    assert chain._get_name(layer.parametrizations.weight) == "ParametrizationList"
    assert issubclass(chain, parametrize.ParametrizationList)
    parametrize.register_parametrization(layer, "weight", Doubled())
    assert torch.equal(layer.weight, 2 * once)
    assert len(layer.parametrizations.weight) == 2


def test_a_parametrization_registered_by_hand_is_pruned_and_merged_like_any_other() -> None:
    layer = seeded(nn.Linear(4, 3))
    masking = pol.MaskedWeight(torch.eye(3, 4))
    parametrize.register_parametrization(layer, "weight", masking)
    assert torch.equal(pol.masks(layer)["weight"], torch.eye(3, 4).bool())
    pol.imp_prune(layer, density=2 / 12)
    assert int(masking.mask.sum()) == 2
    pol.merge(layer)
    assert int(layer.weight.count_nonzero()) == 2


def test_merging_spares_another_parametrization_and_restores_the_order_beside_it() -> None:
    model = seeded(nn.LSTM(3, 4))
    parametrize.register_parametrization(model, "weight_hh_l0", nn.Identity())
    keys = list(model.state_dict())
    pol.mask_weights(model, targets="weight_ih_l0")
    pol.merge(model)
    assert parametrize.is_parametrized(model, "weight_hh_l0")
    assert list(model.state_dict()) == keys


def test_a_weight_with_another_parametrization_is_refused_by_name() -> None:
    model = small()
    parametrize.register_parametrization(model[2], "weight", nn.Identity())
    with pytest.raises(ValueError, match=r"2\.weight.*Identity"):
        pol.mask_weights(model)
    assert not parametrize.is_parametrized(model[0])


def test_a_nan_that_torch_pruned_is_stored_as_zero() -> None:
    model = torch_pruned(small())
    gone = model[2].weight_mask == 0
    model[2].weight_orig.data.masked_fill_(gone, torch.nan)
    pol.mask_weights(model)
    assert not model[2].parametrizations.weight.original[gone].any()


def test_masking_a_tensor_of_a_copy_leaves_the_original_usable() -> None:
    model = pol.mask_weights(nn.Linear(3, 2))
    bias = model.bias
    copied = pol.mask_weights(copy.deepcopy(model), targets="bias")
    assert model.bias is bias
    assert model(torch.ones(3)).shape == copied(torch.ones(3)).shape
