"""Weights of a rewind point are checked when it is used: names, dtypes, values."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import polarity as pol
from tests.forms import half_masked
from tests.helpers import plain_state, same_state
from tests.rewind.network import net

USES: dict[str, Callable[..., object]] = {
    "restore_weights": lambda model, point: point.restore_weights(model),
    "imp_prune": lambda model, point: pol.imp_prune(model, 0.2, rewind=point),
}
BAD_VALUES: dict[str, tuple[str, Callable[[Tensor], Any], str]] = {
    "NaN": ("0.weight", lambda w: w.fill_(math.nan), "'0.weight' holds 30 NaN or infinite"),
    "infinity in the last": ("3.bias", lambda w: w.fill_(math.inf), "'3.bias' holds 3 NaN"),
    "integers": ("3.weight", lambda w: w.long(), "'3.weight' in torch.int64, expected floating"),
    "complex": ("3.bias", lambda w: w.cfloat(), "'3.bias' in torch.complex64, expected floating"),
    "bools": ("3.bias", lambda w: w.bool(), "'3.bias' in torch.bool, expected floating"),
    "a floating count": (
        "1.num_batches_tracked",
        lambda w: w.float(),
        "'1.num_batches_tracked' in torch.float32, expected integer",
    ),
    "beyond the dtype": (
        "3.weight",
        lambda w: torch.full((3, 5), 1e300, dtype=torch.float64),
        "'3.weight', converted to torch.float32, holds 15 NaN or infinite",
    ),
    "no values": ("3.weight", lambda w: w.to("meta"), "'3.weight' on the meta device"),
}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("case", BAD_VALUES)
@pytest.mark.parametrize("masked", [False, True], ids=["plain", "masked"])
def test_values_that_do_not_fit_are_named_and_nothing_changes(
    case: str, use: str, masked: bool
) -> None:
    model = half_masked(net()) if masked else net()
    name, spoil, said = BAD_VALUES[case]
    weights = {key: value + 1 for key, value in pol.RewindPoint.capture(model).weights.items()}
    point = pol.RewindPoint(weights | {name: spoil(weights[name])})
    before, kinds = plain_state(model), [type(each) for each in model.modules()]
    with pytest.raises(ValueError, match=said):
        USES[use](model, point)
    assert same_state(plain_state(model), before)
    assert [type(each) for each in model.modules()] == kinds


def test_what_is_no_tensor_is_named() -> None:
    model = net()
    weights = pol.RewindPoint.capture(model).weights
    with pytest.raises(TypeError, match=r"weights\['3\.bias'\] is a list, expected a tensor"):
        pol.RewindPoint(weights | {"3.bias": [1.0, 2.0, 3.0]})
    point = pol.RewindPoint(weights)
    point.weights["3.bias"] = [1.0, 2.0, 3.0]  # afterwards
    with pytest.raises(TypeError, match=r"the rewind point's '3\.bias' is a list"):
        point.restore_weights(model)


def test_an_infinite_buffer_is_rewound_as_it_was() -> None:
    model = net()
    mask = torch.full((3, 3), -math.inf).triu(1)
    model[0].register_buffer("attends", mask.clone())
    point = pol.RewindPoint.capture(model)
    model[0].attends.zero_()
    point.restore_weights(model)
    assert torch.equal(model[0].attends, mask)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("use", USES)
def test_values_of_another_floating_dtype_are_converted(dtype: torch.dtype, use: str) -> None:
    model = half_masked(net())
    start = pol.RewindPoint.capture(model)
    held = {k: v.to(dtype) if v.is_floating_point() else v for k, v in start.weights.items()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    USES[use](model, pol.RewindPoint(held))
    masks = pol.masks(model)
    for name, value in pol.dense_state_dict(model).items():
        expected = held[name].to(value.dtype)
        mask = masks.get(name, torch.ones_like(value, dtype=torch.bool))
        assert torch.equal(value, expected.masked_fill(~mask, 0)), name
