"""MaskedWeight by hand: what a layer computes with, what is learned, what is stored."""

import copy
import math
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.functional import jacobian
from torch.nn.utils.parametrize import register_parametrization

import polarity as pol
from polarity import MaskedWeight

FLOATS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
each_dtype = pytest.mark.parametrize("dtype", FLOATS, ids=str)
MASK = torch.tensor([[True, False, True], [False, True, False]])
WEIGHT = torch.tensor([[1.0, -2.0, -3.0], [4.0, -5.0, 6.0]])
SEEN = [[1, 0, -3], [0, -5, 0]]


def layer_of(weight: Tensor, mask: Tensor, *, enforce: bool = True) -> nn.Linear:
    layer = nn.Linear(weight.shape[-1], weight.shape[0], bias=False, dtype=weight.dtype)
    layer.weight = nn.Parameter(weight.clone())
    register_parametrization(layer, "weight", MaskedWeight(mask, enforce=enforce))
    return layer


def stored(layer: nn.Module) -> nn.Parameter:
    return layer.parametrizations.weight.original


def bits(tensor: Tensor) -> list[int]:
    whole = {2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.element_size()]
    return tensor.detach().flatten().view(whole).tolist()


@each_dtype
def test_the_layer_computes_with_the_living_entries_and_zeros(dtype):
    layer = layer_of(WEIGHT.to(dtype), MASK)
    assert layer.weight.dtype == dtype
    assert layer.weight.tolist() == SEEN
    assert layer(torch.tensor([1.0, 1.0, 2.0], dtype=dtype)).tolist() == [-5, -5]


@each_dtype
@pytest.mark.parametrize("hidden", [-2.0, -0.0, 1e-7, 6e4])
def test_outside_the_mask_is_zero_whatever_number_is_stored(dtype, hidden):
    layer = layer_of(WEIGHT.to(dtype), MASK)
    with torch.no_grad():
        stored(layer)[~MASK] = hidden
    assert layer.weight[~MASK].tolist() == [0, 0, 0]
    assert layer.weight[MASK].tolist() == [1, -3, -5]


@each_dtype
@pytest.mark.parametrize("hidden", [math.nan, math.inf])
def test_a_stored_nan_or_infinity_outside_the_mask_shows_as_nan_until_pruning_repairs_it(
    dtype, hidden
):
    layer = layer_of(WEIGHT.to(dtype), MASK)
    with torch.no_grad():
        stored(layer)[~MASK] = hidden
    assert layer.weight[~MASK].isnan().all()
    pol.imp_prune(layer, 0.0)
    assert layer.weight.tolist() == SEEN


@each_dtype
def test_survivors_pass_bit_for_bit(dtype):
    info = torch.finfo(dtype)
    denormal = info.smallest_normal / 2
    special = [-0.0, 0.0, math.nan, math.inf, -math.inf, info.max, info.min, denormal, -denormal]
    values = torch.tensor([special], dtype=dtype)
    layer = layer_of(values, torch.ones(1, len(special)))
    assert bits(layer.weight) == bits(values)


@pytest.mark.parametrize("shape", [(3, 2), (2, 1), (1, 3), (3,), (), (1, 2, 3)], ids=str)
def test_a_mask_of_another_shape_is_refused_at_registration_with_both_shapes(shape):
    layer = nn.Linear(3, 2)
    weight = layer.weight
    with pytest.raises(ValueError, match="shape") as error:
        register_parametrization(layer, "weight", MaskedWeight(torch.ones(shape)))
    assert str(shape) in str(error.value)
    assert "(2, 3)" in str(error.value)
    assert list(layer.state_dict()) == ["weight", "bias"]
    assert layer.weight is weight


@pytest.mark.parametrize("bad", [2.0, -1.0, 0.5, math.nan, math.inf])
def test_a_mask_of_anything_but_zeros_and_ones_is_refused(bad):
    with pytest.raises(ValueError, match="mask holds other values, expected zeros and ones"):
        MaskedWeight(torch.tensor([0.0, bad, 1.0]))


@pytest.mark.parametrize("bad", [[True, False], None, 1], ids=repr)
def test_a_mask_that_is_no_tensor_is_refused_by_its_type(bad):
    with pytest.raises(TypeError, match=f"mask is an? {type(bad).__name__}, expected a tensor"):
        MaskedWeight(bad)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, *FLOATS], ids=str)
def test_zeros_and_ones_of_any_dtype_become_a_mask_in_the_dtype_of_the_weight(dtype):
    for weight_dtype in FLOATS:
        layer = layer_of(WEIGHT.to(weight_dtype), MASK.to(dtype))
        mask = layer.parametrizations.weight[0].mask
        assert mask.dtype == weight_dtype
        assert torch.equal(mask != 0, MASK)


def test_the_mask_given_is_copied():
    given = MASK.clone()
    masking = MaskedWeight(given)
    given.logical_not_()
    assert torch.equal(masking.mask != 0, MASK)


def test_a_mask_changed_in_place_holds_from_the_next_use():
    layer = layer_of(WEIGHT, MASK)
    layer.parametrizations.weight[0].mask[0, 0] = 0
    assert layer.weight.tolist() == [[0, 0, -3], [0, -5, 0]]


@each_dtype
@pytest.mark.parametrize("upstream", [1e4, 0.0, -7.0])
def test_no_gradient_reaches_an_entry_outside_the_mask(dtype, upstream):
    layer = layer_of(WEIGHT.to(dtype), MASK)
    factors = torch.where(MASK, torch.arange(1, 7).view(2, 3), upstream).to(dtype)
    (layer.weight * factors).sum().backward()
    gradient = stored(layer).grad
    assert gradient.dtype == dtype
    assert gradient[~MASK].tolist() == [0, 0, 0]
    assert gradient[MASK].tolist() == [1, 3, 5]


@pytest.mark.parametrize("enforce", [True, False])
def test_derivatives_of_every_kind_agree_with_finite_differences(enforce):
    masking = MaskedWeight(MASK, enforce=enforce)
    weight = WEIGHT.double().requires_grad_()

    def cubes(values: Tensor) -> Tensor:
        return masking(values) ** 3

    assert torch.autograd.gradcheck(cubes, weight, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(cubes, weight)


JACOBIANS = {
    "reverse, batched by func": torch.func.jacrev,
    "forward, batched by func": torch.func.jacfwd,
    "reverse, one by one": lambda function: partial(jacobian, function),
    "reverse, batched by autograd": lambda function: partial(jacobian, function, vectorize=True),
    "forward, batched by autograd": lambda function: partial(
        jacobian, function, vectorize=True, strategy="forward-mode"
    ),
}


@pytest.mark.parametrize("jacobian_of", JACOBIANS.values(), ids=JACOBIANS.keys())
def test_jacobians_are_right_however_torch_batches_them(jacobian_of):
    masking = MaskedWeight(MASK)
    computed = jacobian_of(lambda values: masking(values) ** 3)(WEIGHT)
    assert torch.equal(computed.view(6, 6), torch.diag((3 * WEIGHT**2 * MASK).flatten()))


OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.1),
    "adam": lambda p: torch.optim.Adam(p, lr=0.1, weight_decay=0.1),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=0.1),
}


@pytest.mark.parametrize("build", OPTIMIZERS.values(), ids=OPTIMIZERS.keys())
def test_negative_survivors_learn_like_positive_ones_and_pruned_entries_stay_zero(build):
    layer = layer_of(WEIGHT, MASK)
    optimizer = build(layer.parameters())
    for _ in range(5):
        before = stored(layer).detach().clone()
        optimizer.zero_grad()
        layer(torch.ones(1, 3)).square().sum().backward()
        assert torch.equal(stored(layer).grad != 0, MASK)
        optimizer.step()
        assert torch.equal(stored(layer) != before, MASK)
    assert stored(layer)[~MASK].tolist() == [0, 0, 0]


@pytest.mark.parametrize("hidden", [-2.0, math.nan, -math.inf])
def test_a_transform_of_torch_func_sees_what_eager_sees(hidden):
    values = torch.where(MASK, WEIGHT, hidden)
    (seen,) = torch.func.vmap(MaskedWeight(MASK))(values[None])
    torch.testing.assert_close(seen, MaskedWeight(MASK)(values), equal_nan=True, rtol=0, atol=0)


def test_an_optimizer_built_before_registration_trains_the_masked_weight():
    layer = nn.Linear(3, 2, bias=False)
    weight = layer.weight
    register_parametrization(layer, "weight", MaskedWeight(MASK))
    assert stored(layer) is weight


@each_dtype
@pytest.mark.parametrize("enforce", [True, False])
def test_assignment_copies_values_and_never_ties_the_layer_to_their_storage(dtype, enforce):
    layer = layer_of(torch.zeros(2, 3, dtype=dtype), MASK, enforce=enforce)
    given = WEIGHT.to(dtype, copy=True)
    layer.weight = given
    assert layer.weight.tolist() == (SEEN if enforce else WEIGHT.tolist())
    assert stored(layer).tolist() == (SEEN if enforce else WEIGHT.tolist())
    with torch.no_grad():
        stored(layer).mul_(2)
    assert given.tolist() == WEIGHT.tolist()
    given.zero_()
    assert layer.weight[0].tolist() == [2, 0 if enforce else -4, -6]


def test_assigning_another_shape_is_refused_with_both_shapes():
    layer = layer_of(WEIGHT, MASK)
    with pytest.raises(ValueError, match=r"\(2, 3\).*\(3, 2\)"):
        layer.weight = torch.ones(3, 2)
    assert layer.weight.tolist() == SEEN


def test_a_mask_that_is_only_remembered_hides_and_freezes_nothing():
    layer = layer_of(WEIGHT, MASK, enforce=False)
    assert torch.equal(layer.weight, WEIGHT)
    layer.weight.sum().backward()
    assert torch.equal(stored(layer).grad, torch.ones(2, 3))
    layer.parametrizations.weight[0].enforce = True
    assert layer.weight.tolist() == SEEN


@pytest.mark.parametrize("enforce", [True, False])
def test_a_state_dict_carries_mask_and_enforcement_to_a_fresh_layer(enforce):
    layer = layer_of(WEIGHT, MASK, enforce=enforce)
    other = layer_of(torch.ones(2, 3), torch.ones(2, 3), enforce=not enforce)
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other.weight, layer.weight)
    assert torch.equal(other.parametrizations.weight[0].mask != 0, MASK)
    assert other.parametrizations.weight[0].enforce is enforce


def test_a_deepcopy_has_a_mask_and_values_of_its_own():
    layer = layer_of(WEIGHT, MASK)
    twin = copy.deepcopy(layer)
    twin.parametrizations.weight[0].mask.zero_()
    with torch.no_grad():
        stored(twin).fill_(9)
    assert layer.weight.tolist() == SEEN


def test_moving_a_layer_to_another_dtype_takes_the_mask_along():
    layer = layer_of(WEIGHT, MASK).to(torch.bfloat16)
    assert layer.weight.dtype == torch.bfloat16
    assert layer.parametrizations.weight[0].mask.dtype == torch.bfloat16
    assert layer.weight.tolist() == SEEN


@pytest.mark.parametrize("assign", [False, True])
def test_a_checkpoint_with_a_boolean_mask_loads(assign):
    layer, other = layer_of(WEIGHT, MASK), layer_of(torch.ones(2, 3), torch.ones(2, 3))
    pol.mask_weights(other)
    state = layer.state_dict()
    state["parametrizations.weight.0.mask"] = MASK.clone()
    other.load_state_dict(state, assign=assign)
    assert other.weight.tolist() == SEEN
    assert torch.equal(pol.masks(other)["weight"], MASK)


def test_a_mask_that_an_average_made_fractional_is_named_by_the_next_call():
    layer = pol.mask_weights(nn.Linear(3, 2))
    layer.parametrizations.weight[0].mask[0, 0] = 0.5
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    for call in (pol.masks, pol.density, pol.imp_prune, pol.signed_mask):
        with pytest.raises(ValueError, match=r"mask of 'weight' .* other than 0 and 1.*load_masks"):
            call(layer)
    assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())


def test_a_masked_weight_on_the_meta_device_is_shown_and_filled_by_assignment():
    with torch.device("meta"):
        layer = nn.Linear(3, 2, bias=False)
    pol.mask_weights(layer)
    assert "MaskedWeight((2, 3))" in repr(layer)
    state = layer_of(WEIGHT, MASK).state_dict()
    layer.load_state_dict(state, assign=True)
    assert layer.weight.tolist() == SEEN


@pytest.mark.parametrize(
    ("mask", "enforce", "text"),
    [
        (MASK, True, "MaskedWeight((2, 3), density=0.5)"),
        (MASK, False, "MaskedWeight((2, 3), density=0.5, enforce=False)"),
        (torch.tensor([1, 0, 0]), True, "MaskedWeight((3,), density=0.3333)"),
        (torch.zeros(4, 1), True, "MaskedWeight((4, 1), density=0)"),
        (torch.tensor(True), True, "MaskedWeight((), density=1)"),
        (torch.ones(0, 3), True, "MaskedWeight((0, 3), density=1)"),
    ],
)
def test_its_repr_shows_shape_and_real_density(mask, enforce, text):
    assert repr(MaskedWeight(mask, enforce=enforce)) == text


@pytest.mark.parametrize("alive", [True, False])
@each_dtype
def test_a_weight_of_no_axes_is_masked_like_any_other(dtype, alive):
    weight = torch.tensor(-2.0, dtype=dtype, requires_grad=True)
    seen = MaskedWeight(torch.tensor(alive))(weight)
    seen.backward()
    assert (seen.item(), seen.dtype, seen.shape) == (-2 if alive else 0, dtype, ())
    assert weight.grad.item() == (1 if alive else 0)


@each_dtype
def test_an_empty_weight_passes(dtype):
    weight = torch.empty(0, 3, dtype=dtype, requires_grad=True)
    seen = MaskedWeight(torch.empty(0, 3))(weight)
    seen.sum().backward()
    assert seen.shape == weight.grad.shape == (0, 3)


def test_memory_layout_does_not_matter():
    drawn = torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    mask = drawn > 0
    expected = torch.where(mask, drawn, 0.0)
    layouts = [drawn, drawn.contiguous(memory_format=torch.channels_last)]
    masks = [mask, mask.contiguous(memory_format=torch.channels_last), mask.mT.contiguous().mT]
    answers = [MaskedWeight(each)(values) for each in masks for values in layouts]
    assert [answer for answer in answers if not torch.equal(answer, expected)] == []


def test_the_answer_never_shares_memory_with_what_is_stored():
    values = WEIGHT.clone()
    MaskedWeight(torch.ones(2, 3))(values).zero_()
    MaskedWeight(torch.ones(2, 3)).right_inverse(values).zero_()
    assert torch.equal(values, WEIGHT)
