"""Selection keeps exactly what a stable sort would keep, whatever the ties, shapes and dtypes."""

import math
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from polarity.selection.top_k import keep_top, keep_top_by_sorting, largest_of

FLOATS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
each_dtype = pytest.mark.parametrize("dtype", FLOATS, ids=str)
quick = settings(deadline=None)  # as many examples as conftest.py says


class Case(NamedTuple):
    scores: dict[str, Tensor]
    live: dict[str, Tensor]

    @property
    def total(self) -> int:
        return sum(int(mask.sum()) for mask in self.live.values())


def numbers_of(dtype: torch.dtype) -> st.SearchStrategy[float]:
    """Few values that are often equal, the edges of the dtype, and any other."""
    info = torch.finfo(dtype)
    denormal = info.smallest_normal * info.eps
    edges = [0.0, -0.0, denormal, -denormal, info.tiny, info.max, info.min, 1.0, 1 + info.eps, -1.0]
    return st.one_of(st.sampled_from(edges), st.floats(-2, 2, width=16))


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Some tensors, often with ties, and which of their entries are live."""
    shapes = draw(
        st.lists(
            st.sampled_from([(), (0,), (1,), (7,), (2, 3), (3, 0, 2), (1, 2, 2)]),
            min_size=1,
            max_size=4,
        )
    )
    scores, live = {}, {}
    for place, shape in enumerate(shapes):
        size = math.prod(shape)
        dtype = draw(st.sampled_from(FLOATS))
        exactly = {"min_size": size, "max_size": size}
        numbers = draw(
            st.one_of(
                st.lists(numbers_of(dtype), **exactly),
                numbers_of(dtype).map(lambda number, size=size: [number] * size),
            )
        )
        bools = draw(st.one_of(st.lists(st.booleans(), **exactly), st.just([True] * size)))
        poison = draw(st.sampled_from([None, math.nan, math.inf, -math.inf]))
        if poison is not None:
            pairs = zip(numbers, bools, strict=True)
            numbers = [number if is_live else poison for number, is_live in pairs]
        # names that sort against the order of insertion
        name = f"{9 - place}.weight"
        scores[name] = torch.tensor(numbers, dtype=dtype).view(shape)
        live[name] = torch.tensor(bools, dtype=torch.bool).view(shape)
    return Case(scores, live)


def by_stable_sort(case: Case, keep: int) -> dict[str, list]:
    """The same in numpy: number all entries through, sort the live ones, take the first."""
    score = np.concatenate([each.double().numpy().ravel() for each in case.scores.values()])
    places = np.flatnonzero(np.concatenate([each.numpy().ravel() for each in case.live.values()]))
    best = places[np.argsort(-score[places], kind="stable")[:keep]]
    kept = np.zeros(score.size, dtype=bool)
    kept[best] = True
    answer, start = {}, 0
    for name, each in case.scores.items():
        answer[name] = kept[start : start + each.numel()].reshape(tuple(each.shape)).tolist()
        start += each.numel()
    return answer


def as_lists(masks: dict[str, Tensor]) -> dict[str, list]:
    return {name: mask.tolist() for name, mask in masks.items()}


@quick
@given(cases(), st.data())
def test_selection_over_many_tensors_is_a_stable_sort(case, data):
    keep = data.draw(st.integers(0, case.total))
    masks = keep_top(case.scores, keep, case.live)
    assert as_lists(masks) == by_stable_sort(case, keep)
    assert {mask.dtype for mask in masks.values()} == {torch.bool}
    by_the_rule = keep_top_by_sorting(case.scores, keep, case.live)
    assert as_lists(by_the_rule) == as_lists(masks)


@quick
@given(cases(), st.sampled_from([0, 1]))
def test_all_or_nothing_can_be_kept(case, everything):
    masks = keep_top(case.scores, everything * case.total, case.live)
    nothing = {name: torch.zeros_like(mask) for name, mask in case.live.items()}
    assert as_lists(masks) == as_lists(case.live if everything else nothing)


@quick
@given(cases(), st.data())
def test_selection_within_each_tensor_is_its_own_stable_sort(case, data):
    counts = {name: data.draw(st.integers(0, int(case.live[name].sum()))) for name in case.scores}
    masks = keep_top(case.scores, counts, case.live)
    assert {name: int(mask.sum()) for name, mask in masks.items()} == counts
    alone = {name: Case({name: case.scores[name]}, {name: case.live[name]}) for name in counts}
    expected = {name: by_stable_sort(alone[name], counts[name])[name] for name in counts}
    assert as_lists(masks) == expected


@quick
@given(cases(), st.data())
def test_the_arguments_are_neither_changed_nor_returned(case, data):
    before = [each.numpy(force=True).tobytes() for each in case.live.values()]
    scores = [each.double().numpy().tobytes() for each in case.scores.values()]
    masks = keep_top(case.scores, data.draw(st.integers(0, case.total)), case.live)
    for mask in masks.values():
        mask.logical_not_()
    assert [each.numpy(force=True).tobytes() for each in case.live.values()] == before
    assert [each.double().numpy().tobytes() for each in case.scores.values()] == scores


@each_dtype
@pytest.mark.parametrize("share", [0.0, 0.001, 0.2, 0.5, 0.999, 1.0])
def test_larger_tensors_with_thousands_of_ties_are_cut_to_the_entry(dtype, share):
    generator = torch.Generator().manual_seed(int(1000 * share))
    scores = {
        f"{i}": torch.randn(60, 50 * i, generator=generator).mul(4).round().div(4).to(dtype)
        for i in (1, 2, 3)
    }
    live = {
        name: torch.rand(score.shape, generator=generator) < 0.7 for name, score in scores.items()
    }
    case = Case(scores, live)
    keep = round(share * case.total)
    assert as_lists(keep_top(scores, keep, live)) == by_stable_sort(case, keep)


@pytest.mark.parametrize("keep", [0, 1, 5, 6, 7, 10])
def test_equal_scores_go_to_the_first_entries_in_the_order_of_the_tensors(keep):
    scores = {"late": torch.full((2, 3), 0.5), "early": torch.full((4,), 0.5)}
    masks = keep_top(scores, keep, {name: torch.ones(s.shape).bool() for name, s in scores.items()})
    kept = [*masks["late"].flatten().tolist(), *masks["early"].tolist()]
    assert kept == [True] * keep + [False] * (10 - keep)


def test_positive_and_negative_zero_are_equal():
    scores = {"w": torch.tensor([-0.0, 0.0, -0.0, 0.0])}
    mask = keep_top(scores, 2, {"w": torch.ones(4, dtype=torch.bool)})["w"]
    assert mask.tolist() == [True, True, False, False]


def test_scores_of_different_dtypes_are_compared_by_value():
    just_above = torch.tensor([1 + 1e-12], dtype=torch.float64)
    scores = {"half": torch.ones(1, dtype=torch.float16), "double": just_above}
    masks = keep_top(scores, 1, {name: torch.ones(1, dtype=torch.bool) for name in scores})
    assert as_lists(masks) == {"half": [False], "double": [True]}


def test_a_transposed_or_expanded_score_is_read_row_by_row():
    live = {"w": torch.ones(2, 3, dtype=torch.bool)}
    ties = keep_top({"w": torch.zeros(3, 2).t()}, 2, live)["w"]
    assert ties.tolist() == [[True, True, False], [False, False, False]]
    rows = keep_top({"w": torch.tensor([[1.0], [2.0]]).expand(2, 3)}, 4, live)["w"]
    assert rows.tolist() == [[True, False, False], [True, True, True]]


def test_scores_with_a_graph_give_masks_without_one():
    score = torch.ones(3, requires_grad=True) * 2
    assert not keep_top({"w": score}, 1, {"w": torch.ones(3).bool()})["w"].requires_grad


def test_nothing_at_all_keeps_nothing():
    assert keep_top({}, 0, {}) == {}


@each_dtype
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("keep", [0, 1, 3])
def test_a_live_nan_or_infinity_is_refused_by_name_and_number(dtype, bad, keep):
    scores = {"good": torch.ones(2, dtype=dtype), "body.bad": torch.tensor([1, bad, bad]).to(dtype)}
    live = {"good": torch.ones(2).bool(), "body.bad": torch.ones(3).bool()}
    with pytest.raises(ValueError, match=r"score 'body\.bad' holds 2 NaN or infinite"):
        keep_top(scores, keep, live)
    with pytest.raises(ValueError, match=r"score 'body\.bad' holds 2 NaN or infinite"):
        keep_top(scores, {"good": 1, "body.bad": keep}, live)


@each_dtype
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_pruned_may_score_anything_and_is_never_kept(dtype, bad):
    scores = {"w": torch.tensor([bad, 1.0, bad, 3.0, 2.0]).to(dtype)}
    mask = keep_top(scores, 2, {"w": torch.tensor([False, True, False, True, True])})["w"]
    assert mask.tolist() == [False, False, False, True, True]


@pytest.mark.parametrize("keep", [-1, 4, 100])
def test_a_count_out_of_range_is_refused_with_both_numbers(keep):
    scores, live = {"w": torch.ones(5)}, {"w": torch.tensor([1, 0, 1, 0, 1]).bool()}
    with pytest.raises(ValueError, match=rf"^keep={keep}, .*\b3 live"):
        keep_top(scores, keep, live)
    with pytest.raises(ValueError, match=rf"^keep\['w'\]={keep}, .*\b3 live"):
        keep_top(scores, {"w": keep}, live)


@pytest.mark.parametrize(
    ("score", "live", "parts"),
    [
        (torch.ones(2, 3), {"w": torch.ones(3, 2).bool()}, ["scores", "(2, 3)", "(3, 2)"]),
        (torch.ones(2, 3), {"w": torch.ones(6).bool()}, ["scores", "(2, 3)", "(6,)"]),
        (torch.ones(2, 3), {"v": torch.ones(2, 3).bool()}, ["scores", "not masked"]),
        (torch.ones(2, dtype=torch.int64), {"w": torch.ones(2).bool()}, ["scores", "torch.int64"]),
        (torch.ones(2, dtype=torch.bool), {"w": torch.ones(2).bool()}, ["scores", "torch.bool"]),
        (torch.ones(2), {"w": torch.ones(2, dtype=torch.uint8)}, ["live", "torch.uint8"]),
    ],
)
def test_scores_that_do_not_fit_their_masks_are_refused_by_name(score, live, parts):
    with pytest.raises(ValueError, match="'w'") as error:
        keep_top({"w": score}, 1, live)
    assert [part for part in parts if part not in str(error.value)] == []


@quick
@given(st.lists(st.sampled_from([0.0, -0.0, 1.0, 2.0, -math.inf]), max_size=12), st.data())
def test_the_largest_of_one_tensor_are_a_stable_sort(numbers, data):
    keep = data.draw(st.integers(0, len(numbers)))
    kept = largest_of(torch.tensor(numbers), keep).nonzero().flatten().tolist()
    assert kept == sorted(np.argsort(-np.array(numbers), kind="stable")[:keep].tolist())


@pytest.mark.gpu
@each_dtype
def test_a_gpu_keeps_the_same_entries(dtype):
    generator = torch.Generator().manual_seed(0)
    scores = {
        f"{i}": torch.randn(40, i, generator=generator).round(decimals=1).to(dtype) for i in (3, 5)
    }
    live = {
        name: torch.rand(score.shape, generator=generator) < 0.8 for name, score in scores.items()
    }
    on_gpu = {name: score.cuda() for name, score in scores.items()}
    masks = keep_top(on_gpu, 100, live)
    assert all(mask.is_cuda for mask in masks.values())
    assert as_lists(masks) == as_lists(keep_top(scores, 100, live))
    mixed = keep_top({"3": on_gpu["3"], "5": scores["5"]}, 100, live)
    assert as_lists(mixed) == as_lists(masks)
