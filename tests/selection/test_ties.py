"""Equal entries, drawn by random words: against a slow twin that sorts (score, word, position)."""

import hashlib
import math
import subprocess
import sys
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from polarity._bits.random import words_at
from polarity.selection.chosen import Chosen, Entries
from polarity.selection.ties import draw_for
from polarity.selection.top_k import keep_top, keep_top_by_sorting, largest_of
from tests.selection.cases import (
    KINDS,
    each_dtype,
    each_engine,
    hostile,
    quick,
    small,
    weights_and_masks,
)

Tensors = dict[str, Tensor]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def words_of(seed: int, name: str, size: int) -> list[int]:
    """Return the words of a tensor's positions by the written rule, with numpy alone."""
    digest = hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=16).digest()
    stream = np.random.Philox(key=int.from_bytes(digest, "little"))
    numbers = [int(each) for each in stream.random_raw((size + 1) // 2)]
    halves = [half for each in numbers for half in (each % 2**32, each >> 32)]
    return halves[:size]


def twin(scores: Tensors, keep: int, live: Tensors, seed: int) -> dict[str, list]:
    """Sort all live entries by score, then word, then position; the first ``keep`` stay."""
    ranked, kept = [], {}
    for place, (name, score) in enumerate(scores.items()):
        words = words_of(seed, name, score.numel())
        values = score.double().flatten().tolist()
        contends = live[name].flatten().tolist()
        kept[name] = np.zeros(tuple(score.shape), dtype=bool)
        ranked += [
            (-values[i], -(words[i] >> 2), place, i, name) for i in range(len(words)) if contends[i]
        ]
    for *_, i, name in sorted(ranked)[:keep]:
        kept[name].flat[i] = True
    return {name: mask.tolist() for name, mask in kept.items()}


def drawn_seed(seed: int = 0) -> int:
    return int(torch.randint(2**62, (), generator=generator(seed)))


def as_lists(masks: Tensors) -> dict[str, list]:
    return {name: mask.tolist() for name, mask in masks.items()}


def choose(weights: Tensors, keep: int | dict[str, int], masks: Tensors, **draw: object) -> Chosen:
    entries = {name: Entries.of(weight, masks[name]) for name, weight in weights.items()}
    return Chosen(entries, keep, signed=False, finite="weight", **draw)


def check(weights: Tensors, keep: int, masks: Tensors) -> None:
    """Compare scores of both signs, magnitudes in place, and the rule itself with the twin."""
    by_score = keep_top(weights, keep, masks, ties="random", generator=generator())
    assert as_lists(by_score) == twin(weights, keep, masks, drawn_seed())
    by_rule = keep_top_by_sorting(weights, keep, masks, ties="random", generator=generator())
    assert as_lists(by_rule) == as_lists(by_score)
    magnitudes = {name: weight.abs() for name, weight in weights.items()}
    expected = twin(magnitudes, keep, masks, drawn_seed())
    mine = {name: mask.clone() for name, mask in masks.items()}
    chosen = choose(weights, keep, mine, draw=draw_for("random", generator()))
    for name, mask in mine.items():
        assert chosen.new_mask(name).tolist() == expected[name]
        chosen.write(name, mask)
    assert as_lists(mine) == expected
    assert chosen.kept == {name: int(mask.sum()) for name, mask in mine.items()}


def ones_like(tensors: Tensors) -> Tensors:
    return {name: torch.ones_like(each, dtype=torch.bool) for name, each in tensors.items()}


@each_engine
@quick
@given(weights_and_masks(), st.data())
def test_equal_entries_stay_in_the_order_of_their_words(engine, case, data):
    weights, masks = case
    keep = data.draw(st.integers(0, sum(int(mask.sum()) for mask in masks.values())))
    with small(engine, room=data.draw(st.sampled_from([0, 4, 1000]))):
        check(weights, keep, masks)


@each_engine
@quick
@given(weights_and_masks(), st.data())
def test_a_count_for_each_tensor_draws_within_it_alone(engine, case, data):
    weights, masks = case
    keep = {name: data.draw(st.integers(0, int(mask.sum()))) for name, mask in masks.items()}
    with small(engine):
        kept = keep_top(weights, keep, masks, ties="random", generator=generator())
    expected = {
        name: twin({name: weights[name]}, keep[name], masks, drawn_seed())[name] for name in keep
    }
    assert as_lists(kept) == expected


@pytest.mark.parametrize("kind", KINDS)
@each_dtype
@each_engine
def test_drawn_ties_of_every_dtype_are_exact_in_many_chunks(kind, dtype, engine):
    weight = hostile(kind, 1200, 13).to(dtype)
    weights = {"a": weight[:400], "b": weight[400:].view(20, 40)}
    drawn = torch.rand(1200, generator=generator(1)) < 0.4
    masks = {"a": drawn[:400], "b": drawn[400:].view(20, 40)}
    with small(engine, room=50):
        check(weights, 300, masks)


def test_above_the_sizes_where_sampling_and_chunks_begin_ties_are_drawn_to_the_entry():
    weights = {"a": hostile("quantised", 200_000, 59).view(400, 500), "b": torch.zeros(70_000)}
    check(weights, 150_000, ones_like(weights))


def test_threads_draw_the_same():
    weights = {"a": hostile("two values", 3000, 13)}
    for _ in range(3):
        with small(threads=3):
            check(weights, 2000, ones_like(weights))


@pytest.mark.parametrize("length", [16, 64, 1 << 12])
def test_chunks_of_any_length_draw_the_same(length):
    weights = {"a": torch.ones(1000), "b": torch.ones(30, 40)}
    with small(), mock.patch("polarity._bits.arrays._HOST_CHUNK", length):
        check(weights, 900, ones_like(weights))


@each_engine
def test_the_layout_in_memory_does_not_change_what_is_drawn(engine):
    plain = {"w": torch.ones(6, 5, 4, 3), "v": torch.zeros(7, 8)}
    plain["w"][0] = 2
    other = {
        "w": plain["w"].to(memory_format=torch.channels_last),
        "v": torch.zeros(8, 7).t(),
    }
    masks = {
        name: torch.rand(each.shape, generator=generator()) < 0.8 for name, each in plain.items()
    }
    strided = {
        "w": masks["w"].to(memory_format=torch.channels_last),
        "v": torch.stack((masks["v"], masks["v"]), -1)[..., 0],
    }
    assert not strided["v"].is_contiguous()
    with small(engine):
        for weights in (plain, other):
            for live in (masks, strided):
                check(weights, 200, live)


def test_positive_and_negative_zero_are_drawn_alike():
    zeros = {"w": torch.tensor([-0.0, 0.0]).repeat(500)}
    check(zeros, 500, ones_like(zeros))
    kept = keep_top(zeros, 500, ones_like(zeros), ties="random", generator=generator())["w"]
    assert 190 < int(kept[::2].sum()) < 310  # five deviations of a hypergeometric count: 250 ± 40


def test_where_no_tie_decides_both_ways_choose_the_same():
    weights = {"a": torch.randn(500, generator=generator()), "b": torch.tensor([9.0, 9.0])}
    for keep in (0, 2, 100, 502):
        by_index = keep_top(weights, keep, ones_like(weights))
        drawn = keep_top(weights, keep, ones_like(weights), ties="random", generator=generator())
        assert as_lists(drawn) == as_lists(by_index)


def test_every_equal_entry_stays_equally_often():
    weights = {"a": torch.tensor([1.0, 0, 1, -1, 1]), "b": torch.ones(4)}
    live, draws = ones_like(weights), 2000
    source, counts = generator(), torch.zeros(9)
    for _ in range(draws):
        kept = keep_top(weights, 3, live, ties="random", generator=source)
        counts += torch.cat([kept["a"], kept["b"]])
    equal = torch.cat([weights["a"], weights["b"]]) == 1
    assert counts[~equal].sum() == 0
    deviations = (counts[equal] - draws * 3 / 7) / math.sqrt(draws * 3 / 7 * 4 / 7)
    assert deviations.abs().max() < 5


def test_tensors_of_other_names_draw_otherwise():
    scores = {"a": torch.ones(100), "b": torch.ones(100)}
    counts = dict.fromkeys(scores, 50)
    kept = keep_top(scores, counts, ones_like(scores), ties="random", generator=generator())
    assert not torch.equal(kept["a"], kept["b"])


@each_engine
def test_equal_keys_fall_to_the_lower_index(engine):
    # The lowest two bits of a word are no part of its key.
    words = np.array([4, 9, 15, 8, 10, 3, 7], dtype=np.uint32)
    weights = {"a": torch.ones(3), "b": torch.ones(2, 2)}
    with small(engine):
        for keep, stay in ((1, [2]), (2, [1, 2]), (4, [1, 2, 3, 4]), (5, [0, 1, 2, 3, 4])):
            chosen = choose(weights, keep, ones_like(weights), draw=lambda tied: words.copy())
            kept = torch.cat([chosen.new_mask("a"), chosen.new_mask("b").view(-1)])
            assert kept.nonzero().view(-1).tolist() == stay
    with mock.patch("polarity.selection.ties.words_at", return_value=words):
        by_rule = keep_top_by_sorting(
            weights, 4, ones_like(weights), ties="random", generator=generator()
        )
    kept = torch.cat([mask.view(-1) for mask in by_rule.values()])
    assert kept.nonzero().view(-1).tolist() == [1, 2, 3, 4]


def test_words_are_asked_for_only_where_a_tie_decides():
    def refuse(tied: Tensors) -> None:
        raise AssertionError(f"{list(tied)} were asked for")

    weights = {"a": torch.tensor([3.0, 3, 2]), "b": torch.tensor([1.0, 0.5])}
    for keep in (0, 2, 3, 4, 5):
        choose(weights, keep, ones_like(weights), draw=refuse)
    with pytest.raises(AssertionError, match=r"\['a'\] were"):
        choose(weights, 1, ones_like(weights), draw=refuse)


@pytest.mark.parametrize("ties", ["index", "random"])
def test_what_ties_decided_is_counted_both_ways_alike(ties):
    draw = draw_for(ties, generator())
    weights = {"a": torch.tensor([3.0, 1, 1, 1]), "b": torch.tensor([1.0, 1, 0, 0])}
    live = ones_like(weights)
    live["a"][1] = False
    by_ties = [choose(weights, keep, live, draw=draw).by_ties for keep in range(8)]
    assert by_ties == [0, 0, 1, 2, 3, 0, 1, 0]
    assert choose(weights, {"a": 2, "b": 3}, live, draw=draw).by_ties == 2
    assert choose(weights, {"a": 3, "b": 2}, live, draw=draw).by_ties == 0


def test_the_index_draws_nothing_and_random_draws_one_seed():
    scores = {"a": torch.ones(10), "b": torch.arange(5.0)}
    source = generator()
    before = source.get_state()
    for counts in (7, {"a": 3, "b": 2}, 0):
        keep_top(scores, counts, ones_like(scores), generator=source)
        assert torch.equal(source.get_state(), before)
        keep_top(scores, counts, ones_like(scores), ties="random", generator=source)
        once = generator()
        once.set_state(before)
        torch.randint(2**62, (), generator=once)
        assert torch.equal(source.get_state(), once.get_state())
        source.set_state(before)


def test_a_refused_choice_leaves_the_generator_as_it_was():
    source = generator()
    before = source.get_state()
    scores = {"a": torch.tensor([1.0, math.nan])}
    with pytest.raises(ValueError, match="NaN"):
        keep_top(scores, 1, ones_like(scores), ties="random", generator=source)
    with pytest.raises(ValueError, match=r"^keep=3"):
        keep_top({"a": torch.ones(2)}, 3, ones_like(scores), ties="random", generator=source)
    assert torch.equal(source.get_state(), before)


@pytest.mark.parametrize("bad", ["first", "", None, True, 0, ["index"]], ids=repr)
def test_another_word_for_ties_is_refused_by_name_value_and_choice(bad):
    with pytest.raises(ValueError, match=r"^ties=.*expected 'index' or 'random'") as error:
        keep_top({"a": torch.ones(2)}, 1, {"a": torch.ones(2).bool()}, ties=bad)
    assert repr(bad) in str(error.value)


@quick
@given(st.lists(st.sampled_from([0.0, -0.0, 1.0, 2.0]), max_size=12), st.data())
def test_the_largest_of_one_tensor_with_words_are_a_sort_by_both(numbers, data):
    keep = data.draw(st.integers(0, len(numbers)))
    size = len(numbers)
    words = data.draw(st.lists(st.integers(0, 2**32 - 1), min_size=size, max_size=size))
    given_words = np.array(words, dtype=np.uint32)
    kept = largest_of(torch.tensor(numbers), keep, given_words).nonzero().flatten().tolist()
    order = sorted(range(size), key=lambda i: (-numbers[i], -(words[i] >> 2), i))
    assert kept == sorted(order[:keep])
    assert given_words.tolist() == words


ALL_EQUAL = """
import torch
from polarity.selection.chosen import Chosen, Entries
from polarity.selection.ties import draw_for

def peak():
    with open("/proc/self/status") as status:
        return next(1024 * int(line.split()[1]) for line in status if line.startswith("VmHWM"))

def choose(weight):
    draw = draw_for("random", torch.Generator().manual_seed(0))
    entries = {"w": Entries.of(weight, None)}
    return Chosen(entries, weight.numel() // 2, signed=False, finite="weight", draw=draw)

choose(torch.ones(1 << 17))
weight = torch.ones(1 << 23)
before = peak()
assert choose(weight).kept == {"w": weight.numel() // 2}
print((peak() - before) / weight.numel())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_all_equal_entries_take_less_than_10_bytes_each_to_draw():
    run = subprocess.run([sys.executable, "-c", ALL_EQUAL], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert 4 < float(run.stdout) < 10  # the words alone take 4


@pytest.mark.gpu
@each_dtype
@pytest.mark.parametrize("kind", ["all equal", "quantised", "zeros of both signs"])
def test_a_gpu_draws_the_same_entries(dtype, kind):
    weight = hostile(kind, 300_000, 67).to(dtype)
    weights = {"a": weight[:100_000].view(100, 1000), "b": weight[100_000:].view(1000, 200).t()}
    on_gpu = {name: each.cuda() for name, each in weights.items()}
    expected = keep_top(weights, 54_321, ones_like(weights), ties="random", generator=generator())
    torch.use_deterministic_algorithms(True)
    try:
        kept = keep_top(on_gpu, 54_321, ones_like(on_gpu), ties="random", generator=generator())
    finally:
        torch.use_deterministic_algorithms(False)
    assert as_lists(kept) == as_lists(expected)


def test_the_twins_words_are_those_of_words_at():
    mask = torch.rand(101, generator=generator()) < 0.5
    expected = np.array(words_of(5, "w", 101), dtype=np.uint32)[mask.numpy()]
    assert words_at(5, {"w": mask}).tolist() == expected.tolist()
