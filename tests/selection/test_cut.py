"""Exact whatever the sample says, in numpy's passes and in torch's: against a stable argsort."""

import contextlib
import math
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from polarity.selection import cpu, cut, passes
from polarity.selection.chosen import Chosen, Entries
from polarity.selection.cut import share_among_first
from polarity.selection.keys import KeyFormat, key_format_for
from polarity.selection.top_k import keep_top
from tests.selection.cases import (
    KINDS,
    each_dtype,
    each_engine,
    hostile,
    quick,
    small,
    weights_and_masks,
)


def forced(low: int, high: int) -> contextlib.AbstractContextManager[None]:
    """Begin with these keys in place of a sampled bracket."""
    return mock.patch.object(cut, "_first_bracket", return_value=(low, high))


def keep_largest(
    weights: dict[str, Tensor], keep: int | dict[str, int], masks: dict[str, Tensor]
) -> dict[str, int]:
    """Leave the live entries of largest magnitude, in place on the masks, and count them."""
    entries = {name: Entries.of(weight, masks[name]) for name, weight in weights.items()}
    found = Chosen(entries, keep, signed=False, finite="weight")
    for name, mask in masks.items():
        found.write(name, mask)
    return found.kept


def by_stable_sort(weights: dict[str, Tensor], masks: dict[str, Tensor], keep: int) -> list[list]:
    """Rank (|w|, position) of the live entries with numpy, in float64; the first keep stay."""
    size = np.concatenate([np.abs(w.double().numpy()).ravel() for w in weights.values()])
    live = np.flatnonzero(np.concatenate([m.numpy().ravel() for m in masks.values()]))
    kept = np.zeros(size.size, dtype=bool)
    kept[live[np.argsort(-size[live], kind="stable")[:keep]]] = True
    ends = np.cumsum([w.numel() for w in weights.values()])[:-1]
    return [
        flat.reshape(tuple(w.shape)).tolist()
        for flat, w in zip(np.split(kept, ends), weights.values(), strict=True)
    ]


def check(weights: dict[str, Tensor], masks: dict[str, Tensor], keep: int) -> None:
    """Compare the choice by magnitude, in place, and keep_top of the magnitudes with the sort."""
    expected = by_stable_sort(weights, masks, keep)
    of_magnitudes = keep_top({name: w.abs() for name, w in weights.items()}, keep, masks)
    assert [mask.tolist() for mask in of_magnitudes.values()] == expected
    mine = {name: mask.clone() for name, mask in masks.items()}
    counts = keep_largest(weights, keep, mine)
    assert [mask.tolist() for mask in mine.values()] == expected
    assert counts == {name: int(mask.sum()) for name, mask in mine.items()}


@each_engine
@quick
@given(weights_and_masks(), st.data())
def test_what_stays_is_a_stable_sort_by_magnitude(engine, case, data):
    weights, masks = case
    live = sum(int(mask.sum()) for mask in masks.values())
    keep = data.draw(st.one_of(st.integers(0, live), st.sampled_from([0, live])))
    few = data.draw(st.sampled_from([0, 1000]))
    with small(engine, room=data.draw(st.sampled_from([0, 4, 1000])), few=few):
        check(weights, masks, keep)


@each_engine
@quick
@given(weights_and_masks(), st.data())
def test_a_bracket_that_misses_changes_nothing(engine, case, data):
    weights, masks = case
    keys = key_format_for((weight.dtype for weight in weights.values()), signed=False)
    low = data.draw(st.integers(0, keys.infinity))
    high = data.draw(st.one_of(st.just(low), st.integers(low, keys.infinity)))
    live = sum(int(mask.sum()) for mask in masks.values())
    keep = data.draw(st.integers(0, live))
    with small(engine, room=data.draw(st.sampled_from([0, 4, 1000])), few=0), forced(low, high):
        mine = {name: mask.clone() for name, mask in masks.items()}
        keep_largest(weights, keep, mine)
    assert [m.tolist() for m in mine.values()] == by_stable_sort(weights, masks, keep)


@each_engine
@quick
@given(weights_and_masks(), st.data())
def test_scores_of_both_signs_survive_a_bracket_that_misses(engine, case, data):
    scores, alive = case
    keys = key_format_for((score.dtype for score in scores.values()), signed=True)
    low = data.draw(st.integers(-keys.infinity, keys.infinity))
    high = data.draw(st.integers(low, keys.infinity))
    live = sum(int(mask.sum()) for mask in alive.values())
    keep = data.draw(st.integers(0, live))
    flat = np.concatenate([score.double().numpy().ravel() for score in scores.values()])
    places = np.flatnonzero(np.concatenate([mask.numpy().ravel() for mask in alive.values()]))
    best = set(places[np.argsort(-flat[places], kind="stable")[:keep]].tolist())
    with small(engine, room=data.draw(st.sampled_from([0, 4, 1000])), few=0), forced(low, high):
        masks = keep_top(scores, keep, alive)
    kept = np.concatenate([mask.numpy().ravel() for mask in masks.values()])
    assert set(np.flatnonzero(kept).tolist()) == best


@each_engine
@quick
@given(weights_and_masks(), st.data())
def test_a_count_for_each_tensor_ranks_it_alone(engine, case, data):
    weights, masks = case
    keep = {n: data.draw(st.integers(0, int(masks[n].sum())), label=n) for n in weights}
    expected = [by_stable_sort({n: weights[n]}, {n: masks[n]}, keep[n])[0] for n in weights]
    magnitudes = {name: weight.abs() for name, weight in weights.items()}
    with small(engine):
        assert [m.tolist() for m in keep_top(magnitudes, keep, masks).values()] == expected
        assert keep_largest(weights, keep, masks) == keep
    assert [mask.tolist() for mask in masks.values()] == expected


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [60_000, 300_000])
def test_orders_that_defeat_the_sample_are_cut_to_the_entry(kind, size):
    stride = int(size ** (1 / 3)) | 1
    weights = {"w": hostile(kind, size, stride).view(-1, 100)}
    ones = {"w": torch.ones(weights["w"].shape, dtype=torch.bool)}
    for share in (0.2, 0.5, 0.97):
        check(weights, ones, round(share * size))
    check(weights, ones, 1)
    check(weights, ones, size - 1)


@pytest.mark.parametrize("kind", ["large where sampled", "quantised", "all equal"])
@each_dtype
@each_engine
def test_every_dtype_and_engine_is_exact_in_many_chunks(kind, dtype, engine):
    weight = hostile(kind, 3000, 13).to(dtype)
    weights = {"a": weight[:1000], "b": weight[1000:].view(40, 50)}
    drawn = torch.rand(3000, generator=torch.Generator().manual_seed(1)) < 0.4
    masks = {"a": drawn[:1000], "b": drawn[1000:].view(40, 50)}
    with small(engine, room=50):
        check(weights, masks, 700)


@pytest.mark.parametrize("kind", KINDS)
@each_dtype
def test_few_entries_in_many_chunks_are_gathered_and_cut_to_the_entry(kind, dtype):
    weight = hostile(kind, 600, 13).to(dtype)
    weights = {"a": weight[:200], "b": weight[200:].view(20, 20)}
    drawn = torch.rand(600, generator=torch.Generator().manual_seed(1)) < 0.4
    masks = {"a": drawn[:200], "b": drawn[200:].view(20, 20)}
    masks["a"][32:96] = False  # whole chunks without a live entry
    live = sum(int(mask.sum()) for mask in masks.values())
    with small(few=1000), mock.patch.object(cut, "_first_bracket", side_effect=AssertionError):
        for keep in (0, 1, live // 3, live - 1, live):
            check(weights, masks, keep)


def test_threads_leave_no_trace():
    weight = hostile("quantised", 5000, 13)
    weights = {"a": weight[:2000], "b": weight[2000:]}
    masks = {name: torch.ones(each.shape, dtype=torch.bool) for name, each in weights.items()}
    for _ in range(5):
        with small(threads=3):
            check(weights, masks, 1234)


def test_an_error_on_a_thread_reaches_the_caller():
    key_format = KeyFormat(torch.float32, signed=False)
    tensors = [cpu.CpuKeys(str(i), lambda: torch.ones(64), None, 64, key_format) for i in range(4)]

    def fail(tensor, at, scratch):
        raise RuntimeError("no memory")

    with small(threads=2), pytest.raises(RuntimeError, match="no memory"):
        passes.for_each_chunk(tensors, key_format, fail)


def test_a_weight_without_order_in_memory_is_read_row_by_row():
    weights = {
        "expanded": torch.tensor([[1.0], [2.0]]).expand(2, 3),
        "strided": torch.arange(12.0).view(3, 4)[:, ::2],
    }
    masks = {"expanded": torch.ones(2, 3).bool(), "strided": torch.ones(3, 2).bool()}
    for keep in range(13):
        check(weights, masks, keep)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_ties_go_to_the_first_in_row_major_order_whatever_the_layout(memory_format):
    weight = torch.ones(2, 3, 4, 5).to(memory_format=memory_format)
    mask = torch.ones_like(weight, dtype=torch.bool)
    assert mask.stride() == weight.stride()
    assert keep_largest({"w": weight}, 31, {"w": mask}) == {"w": 31}
    assert mask.flatten().tolist() == [True] * 31 + [False] * 89


@each_dtype
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("keep", [0, 3, 6])
def test_a_live_nan_or_infinity_is_refused_and_the_masks_stay(dtype, bad, keep):
    weights = {"good": torch.ones(4, dtype=dtype), "bad": torch.tensor([1, bad, bad]).to(dtype)}
    masks = {"good": torch.ones(4).bool(), "bad": torch.tensor([True, False, True])}
    with pytest.raises(ValueError, match="weight 'bad' holds 1 NaN or infinite"):
        keep_largest(weights, keep, masks)
    assert masks["good"].all()
    assert masks["bad"].tolist() == [True, False, True]
    masks["bad"][2] = False
    assert sum(keep_largest(weights, min(keep, 5), masks).values()) == min(keep, 5)


@each_dtype
def test_keys_order_as_numbers_do(dtype):
    info = torch.finfo(dtype)
    denormal = info.smallest_normal * info.eps
    up = [0.0, denormal, 2 * denormal, info.tiny, 0.5, 1.0, 1 + info.eps, info.max, math.inf]
    numbers = torch.tensor([-number for number in up[:0:-1]] + up, dtype=dtype)
    signed, unsigned = KeyFormat(dtype, True), KeyFormat(dtype, False)
    for keys in (signed, unsigned):
        bits = keys.bits(numbers)
        assert (
            keys.of_tensor(bits).tolist()
            == keys.of_array(bits.numpy(), bits.numpy().copy()).tolist()
        )
    ranks = signed.of_tensor(signed.bits(numbers))
    assert (ranks.diff() > 0).all()
    assert (int(ranks[0]), int(ranks[-1])) == (signed.lowest, signed.infinity)
    assert torch.equal(unsigned.of_tensor(unsigned.bits(numbers)), ranks.abs())
    zeros = torch.tensor([0.0, -0.0], dtype=dtype)
    assert signed.of_tensor(signed.bits(zeros)).tolist() == [0, 0]


def test_counts_are_shared_among_the_first():
    assert share_among_first([3, 0, 4, 2], 5) == [3, 0, 2, 0]
    assert share_among_first([3, 0, 4, 2], 0) == [0, 0, 0, 0]
    assert share_among_first([3, 0, 4, 2], 9) == [3, 0, 4, 2]


def test_the_sample_of_gaussian_weights_brackets_tightly():
    """What makes it fast: one scan, and about two entries in a hundred collected."""
    generator = torch.Generator().manual_seed(0)
    weights = {str(i): torch.randn(400, 500, generator=generator) for i in range(10)}
    masks = {name: torch.ones(w.shape, dtype=torch.bool) for name, w in weights.items()}
    scans = []
    scan = cut._scan

    def spy(tensors, key_format, bracket):
        scanned = scan(tensors, key_format, bracket)
        chunks = [chunk for mine in scanned for chunk in mine]
        collected = [chunk.between.size for chunk in chunks if chunk.between is not None]
        scans.append(sum(collected) / sum(each.size for each in tensors))
        return scanned

    with mock.patch.object(cut, "_scan", spy):
        keep_largest(weights, 1_600_000, masks)
        keep_largest(weights, 400_000, masks)
        keep_largest(weights, 320_000, masks)
    assert len(scans) == 3
    assert max(scans) < 0.04


@pytest.mark.gpu
@each_dtype
@pytest.mark.parametrize("kind", KINDS)
def test_a_gpu_keeps_the_same_weights(dtype, kind):
    weight = hostile(kind, 300_000, 67).to(dtype)
    weights = {"a": weight[:100_000].view(100, 1000), "b": weight[100_000:].view(1000, 200).t()}
    masks = {name: torch.ones_like(each, dtype=torch.bool) for name, each in weights.items()}
    expected = by_stable_sort(weights, masks, 54_321)
    on_gpu = {name: mask.cuda() for name, mask in masks.items()}
    torch.use_deterministic_algorithms(True)
    try:
        keep_largest({name: each.cuda() for name, each in weights.items()}, 54_321, on_gpu)
    finally:
        torch.use_deterministic_algorithms(False)
    assert [mask.tolist() for mask in on_gpu.values()] == expected


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_signed_numbers_of_16_bits_over_their_whole_range(dtype: torch.dtype) -> None:
    # Keys from -32,000 to 32,000, in an order that defeats the sample: the histogram is needed.
    size = 3 * 10**5
    stride = int(size ** (1 / 3)) | 1
    values = torch.linspace(-6e4, 6e4, size)[
        torch.randperm(size, generator=torch.Generator().manual_seed(0))
    ]
    values[::stride] = 6e4
    values = values.to(dtype)
    for share in (0.01, 0.5, 0.9):
        keep = int(share * size)
        kept = keep_top({"a": values}, keep, {"a": torch.ones(size, dtype=torch.bool)})["a"]
        order = np.argsort(-values.double().numpy(), kind="stable")
        expected = torch.zeros(size, dtype=torch.bool)
        expected[torch.from_numpy(order[:keep].copy())] = True
        assert torch.equal(kept, expected)
