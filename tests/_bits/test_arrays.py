"""Survivors gathered chunk by chunk, against boolean indexing."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from polarity._bits import arrays
from polarity._bits.arrays import chunks_of, count_true, gather, survivors_of

CPU = torch.device("cpu")


@settings(deadline=None, max_examples=100)
@given(st.lists(st.booleans(), max_size=200), st.sampled_from([1, 3, 64, 1 << 16]))
def test_survivors_are_those_of_boolean_indexing(bools, chunk):
    mask = torch.tensor(bools, dtype=torch.bool)
    numbers = torch.arange(mask.numel())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arrays, "_HOST_CHUNK", chunk)
        covered = [i for part in chunks_of(mask.numel(), CPU) for i in numbers[part].tolist()]
        gathered = gather(mask, numbers, numbers.double() / 3)
        places = [i + part.start for part, found in survivors_of(mask) for i in found.tolist()]
    assert covered == numbers.tolist()
    assert torch.equal(gathered[0], numbers[mask])
    assert torch.equal(gathered[1], numbers[mask].double() / 3)
    assert places == numbers[mask].tolist()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int8])
def test_what_is_gathered_keeps_its_dtype(dtype):
    (gathered,) = gather(torch.tensor([False, True]), torch.tensor([1, 2], dtype=dtype))
    assert gathered.dtype == dtype
    assert gathered.tolist() == [2]


@pytest.mark.parametrize(
    "view",
    [lambda m: m, lambda m: m.t(), lambda m: m[:, ::2], lambda m: m[:0]],
    ids=["whole", "transposed", "strided", "empty"],
)
def test_what_is_true_is_counted_in_every_layout(view) -> None:
    bools = view(torch.rand(40, 50, generator=torch.Generator().manual_seed(0)) < 0.3)
    assert count_true(bools) == sum(bools.flatten().tolist())
