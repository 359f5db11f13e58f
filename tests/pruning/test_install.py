"""Pruning weights where they lie: the same as by score, in every form a weight can take."""

import copy
import tracemalloc

import numpy as np
import pytest
import torch
from torch import nn

import polarity as pol
from polarity.targets.search import attached


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(32, 30), nn.Linear(30, 5))


def masked(model: nn.Module) -> nn.Module:
    pol.mask_weights(model)
    pol.prune(model, pol.scores.random, density=0.6, generator=torch.Generator().manual_seed(1))
    return model


def pruned_by_torch(model: nn.Module) -> nn.Module:
    torch.nn.utils.prune.random_unstructured(model[2], "weight", 0.3)
    return model


def mixed_dtypes(model: nn.Module) -> nn.Module:
    model[0].bfloat16()
    model[2].half()
    return masked(model)


FORMS = {
    "plain": lambda model: model,
    "masked": masked,
    "pruned by torch": pruned_by_torch,
    "channels_last": lambda model: masked(model).to(memory_format=torch.channels_last),
    "channels_last, then masked": lambda model: masked(model.to(memory_format=torch.channels_last)),
    "double": lambda model: masked(model.double()),
    "bfloat16, with ties": lambda model: masked(model.bfloat16()),
    "mixed dtypes": mixed_dtypes,
    "Sign-In": lambda model: masked(pol.sign_in(model)),
}
each_form = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())


def my_magnitude(name, weight):
    return weight.abs()


def state_of(model: nn.Module) -> dict[str, object]:
    return {
        name: value.double().tolist() if isinstance(value, torch.Tensor) else value
        for name, value in model.state_dict().items()
    }


@each_form
@pytest.mark.parametrize("scope", ["global", "layer"])
def test_pruning_by_magnitude_in_place_is_pruning_by_that_score(form, scope):
    model, other = form(net()), form(net())
    report = pol.imp_prune(model, 0.3, scope=scope)
    again = pol.imp_prune(other, 0.3, scope=scope, score=my_magnitude)
    assert (report.layers, state_of(model)) == (again.layers, state_of(other))
    for target in attached(model).values():
        for leaf in target.stored:
            assert not leaf[~target.mask].any()
        assert target.weight.count_nonzero() == target.mask.count_nonzero()


@each_form
def test_what_was_pruned_comes_back_where_it_was_from_a_capture(form):
    model = form(net())
    start = pol.RewindPoint.capture(model)
    before = {n: w.clone() for n, w in start.weights.items()}
    pol.imp_prune(model, 0.4)
    masks = pol.masks(model)
    pol.reinit_signs(model, "standard", init=start, trained=start)
    for name, target in attached(model).items():
        gone = ~masks[name]
        # Factors of a product round once more.
        torch.testing.assert_close(target.weight[gone], before[name][gone])


def test_ties_in_channels_last_go_to_the_first_in_row_major_order():
    model = net().to(memory_format=torch.channels_last)
    nn.init.constant_(model[0].weight, -0.5)
    pol.mask_weights(model, targets="0")
    pol.imp_prune(model, density=0.25)
    assert pol.masks(model)["0.weight"].flatten().tolist() == [True] * 54 + [False] * 162


def test_a_mask_that_is_not_enforced_lets_every_entry_compete():
    model = masked(net())
    start = pol.RewindPoint.capture(model)
    pol.reinit_signs(model, "standard", init=start, trained=start)
    with torch.no_grad():
        model[2].parametrizations.weight.original.normal_(
            generator=torch.Generator().manual_seed(3)
        )
    other = copy.deepcopy(model)
    pol.imp_prune(model, density=0.5)
    pol.imp_prune(other, density=0.5, score=my_magnitude)
    assert state_of(model) == state_of(other)
    revived = pol.masks(model)["2.weight"] & ~pol.masks(masked(net()))["2.weight"]
    assert revived.any()


def test_dead_entries_are_zeroed_whatever_is_stored_there():
    model = masked(net())
    stored, mask = model[2].parametrizations.weight.original, pol.masks(model)["2.weight"]
    with torch.no_grad():
        stored[~mask] = torch.nan
    survivors = int(mask.sum())
    pol.imp_prune(model, 0.5, scope="layer")
    mask = pol.masks(model)["2.weight"]
    assert mask.sum() == survivors - round(survivors / 2)
    assert stored.isfinite().all()
    assert not stored[~mask].any()


@each_form
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_bad_weight_is_refused_before_anything_changes(form, bad):
    model = form(net())
    chain = getattr(model[3], "parametrizations", None)
    last = model[3].weight if chain is None else next(reversed(list(chain.weight.parameters())))
    place = (attached(model)["3.weight"].mask if attached(model) else last != 0).nonzero()[0]
    with torch.no_grad():
        last[tuple(place)] = bad
    before = str(state_of(model))
    with pytest.raises(ValueError, match=r"'3\.weight' holds 1 NaN or infinite"):
        pol.imp_prune(model, 0.3)
    assert str(state_of(model)) == before


def test_scores_in_the_memory_of_the_weights_are_ranked_as_they_were():
    model = pol.mask_weights(nn.Sequential(*[nn.Linear(20, 20, bias=False) for _ in range(2)]))
    first, second = (target.stored[0].detach() for target in attached(model).values())
    swapped = {"0.weight": second, "1.weight": first}
    expected = copy.deepcopy(model)
    pol.prune(expected, {name: score.clone() for name, score in swapped.items()}, density=0.3)
    pol.prune(model, swapped, density=0.3)
    assert state_of(model) == state_of(expected)


def test_autograd_sees_that_weights_were_changed():
    model = pol.mask_weights(nn.Linear(4, 4, bias=False))
    leaf = model.parametrizations.weight.original
    product = (leaf * leaf).sum()
    pol.imp_prune(model, 0.5)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        product.backward()


def test_chunks_of_a_large_weight_are_those_of_one():
    model = pol.mask_weights(nn.Linear(1000, 700, bias=False))
    before = model.weight.detach().clone()
    pol.imp_prune(model, 0.3)
    keep = np.argsort(-before.abs().numpy().ravel(), kind="stable")[:490_000]
    expected = np.zeros(700_000, dtype=bool)
    expected[keep] = True
    assert np.array_equal(pol.masks(model)["weight"].numpy().ravel(), expected)
    pol.reinit_signs(model, "standard", init={"weight": before}, trained={"weight": before})
    gone = ~torch.from_numpy(expected).view(700, 1000)
    assert torch.equal(model.weight.detach()[gone], before[gone])


def test_memory_that_numpy_takes_is_under_half_a_byte_per_weight():
    """Torch itself allocates nothing as large here; buffers of a fixed size are most below 4 M."""
    model = pol.mask_weights(nn.Sequential(*[nn.Linear(1000, 1000, bias=False) for _ in range(12)]))
    for density in (0.8, 0.2, 0.16):
        tracemalloc.start()
        try:
            pol.imp_prune(model, density=density)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert 0.05 < peak / 12e6 < 0.5


@each_form
@pytest.mark.parametrize("score", [None, my_magnitude], ids=["in place", "by score"])
def test_rewinding_as_it_prunes_is_rewinding_afterwards(form, score):
    model, other = form(net()), form(net())
    start = pol.RewindPoint.capture(model)
    for each in (model, other):
        for parameter in each.parameters():
            with torch.no_grad():
                parameter.mul_(-1.5)
    pol.imp_prune(model, 0.4, rewind=start, score=score)
    pol.imp_prune(other, 0.4)
    start.restore_weights(other)
    assert state_of(model) == state_of(other)
    for target in attached(model).values():
        assert not target.weight[~target.mask].any()


@pytest.mark.parametrize("form", ["plain", "masked", "Sign-In"])
def test_pruning_leaves_no_buffers_whose_number_or_shape_depends_on_data(form):
    model = FORMS[form](net())
    pol.mask_weights(model)
    start = pol.RewindPoint.capture(model)
    before = {name: buffer.shape for name, buffer in model.named_buffers()}
    for strategy in ("mask1", "standard", "gradual"):
        trained = pol.RewindPoint.capture(model)
        pol.imp_prune(model, density=0.4)
        pol.reinit_signs(model, strategy, init=start, trained=trained)
        assert {name: buffer.shape for name, buffer in model.named_buffers()} == before


def test_attaching_a_mask_copies_no_weight():
    layer = nn.Linear(30, 20)
    weight, address = layer.weight, layer.weight.data_ptr()
    pol.mask_weights(layer)
    stored = layer.parametrizations.weight.original
    assert stored is weight
    assert stored.data_ptr() == address
    copied = copy.deepcopy(layer)
    pol.imp_prune(copied, 0.5)
    assert torch.equal(layer.weight, weight)
