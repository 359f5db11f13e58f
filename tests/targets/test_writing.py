"""Writing many tensors at once: all of them, or none."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import register_parametrization

import polarity as pol
from polarity.targets.search import all_targets, attached
from polarity.targets.writing import write_all
from tests.forms import half_masked, half_signed_in
from tests.helpers import plain_state, same_state
from tests.models import seeded

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.bool]


def test_values_of_any_dtype_arrive_in_tensors_of_any_dtype() -> None:
    pairs = [
        (torch.zeros(2, 2, dtype=there), torch.tensor([[1, 0], [0, 1]], dtype=here))
        for there in DTYPES
        for here in DTYPES
    ]
    write_all(pairs)
    for tensor, _ in pairs:
        assert torch.equal(tensor, torch.eye(2, dtype=tensor.dtype))


def test_parameters_empty_tensors_scalars_and_views_of_any_layout_are_written() -> None:
    parameter, scalar = nn.Parameter(torch.zeros(3)), torch.tensor(0)
    empty, transposed = torch.zeros(0, 3), torch.zeros(2, 3).t()
    version = parameter._version
    fresh = torch.arange(6.0).view(3, 2)
    write_all(
        iter(
            [
                (parameter, torch.ones(3, requires_grad=True)),
                (scalar, torch.tensor(4)),
                (empty, torch.ones(0, 3)),
                (transposed, fresh),
            ]
        )
    )
    assert parameter.tolist() == [1, 1, 1]
    assert parameter.requires_grad
    assert parameter.is_leaf
    assert parameter._version > version, "autograd has to see the write"
    assert scalar.item() == 4
    assert torch.equal(transposed, fresh)
    write_all([])


def test_a_tied_tensor_that_stands_twice_gets_the_later_value() -> None:
    weight = torch.zeros(2)
    write_all([(weight, torch.ones(2)), (weight, torch.full((2,), 5.0))])
    assert weight.tolist() == [5, 5]


def made_in_inference_mode() -> Tensor:
    with torch.inference_mode():
        return torch.zeros(2)


@pytest.mark.parametrize(
    ("second", "said"),
    [
        (
            lambda: (torch.zeros(2, 1), torch.ones(2, 2)),
            r"\(2, 2\), expected the tensor's \(2, 1\)",
        ),
        (lambda: (torch.zeros(2), torch.ones(1)), r"\(1,\), expected the tensor's \(2,\)"),
        (lambda: (torch.zeros(1).expand(2), torch.ones(2)), "made by expand"),
        (lambda: (made_in_inference_mode(), torch.ones(2)), "made under torch.inference_mode"),
    ],
    ids=["other shape", "broadcast", "expanded", "inference"],
)
def test_a_pair_that_cannot_be_written_leaves_the_earlier_ones_alone(second, said: str) -> None:
    first = torch.zeros(2)
    with pytest.raises(ValueError, match=said):
        write_all([(first, torch.ones(2)), second()])
    assert first.tolist() == [0, 0]


@pytest.mark.parametrize("form", [half_masked, half_signed_in], ids=["masked", "sign_in"])
def test_staging_writes_nothing_and_writing_what_was_staged_sets_the_weight(form) -> None:
    model = form(seeded(nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 4))))
    before = plain_state(model)
    values = {t.name: torch.randn(t.shape, dtype=torch.float64) for t in all_targets(model)}
    staged = [pair for t in all_targets(model) for pair in t.staged(values[t.name])]
    assert same_state(plain_state(model), before)
    assert {id(leaf) for leaf, _ in staged} == {id(leaf) for leaf in model.parameters()}
    write_all(staged)
    masks = pol.masks(model)
    for target in all_targets(model):
        expected = values[target.name].float() * masks.get(target.name, torch.tensor(1))
        torch.testing.assert_close(target.weight, expected)


def test_staging_leaves_a_mask_in_its_dtype() -> None:
    layer = half_masked(seeded(nn.Linear(6, 5)))
    layer.parametrizations.weight.original.data = layer.parametrizations.weight.original.double()
    (target,) = attached(layer).values()
    ((_, new),) = target.staged(torch.ones(5, 6))
    assert new.dtype == torch.float64
    assert target.masking.mask.dtype == torch.float32


class Scaled(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 2 * weight


class NotInvertible(Scaled):
    def right_inverse(self, weight: Tensor) -> Tensor:
        raise NotImplementedError


@pytest.mark.parametrize("further", [Scaled(), NotInvertible()], ids=lambda f: type(f).__name__)
def test_a_weight_behind_a_parametrization_without_inverse_is_named_with_it(further) -> None:
    layer = pol.mask_weights(nn.Linear(3, 2))
    register_parametrization(layer, "weight", further)
    (target,) = attached(layer).values()
    with pytest.raises(ValueError, match=rf"'weight' cannot be written: {type(further).__name__}"):
        target.staged(torch.ones(2, 3))
