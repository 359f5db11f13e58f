"""A search on an accelerator waits for it a fixed number of times, however many tensors it has."""

import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar
from unittest import mock

import pytest
import torch
from torch import Tensor, distributed, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

import polarity as pol
from polarity._bits import arrays
from polarity.selection import cut
from polarity.selection.top_k import keep_top
from polarity.targets.entries import choose_by_magnitude
from tests.selection.cases import small

# A device other than the CPU that every PyTorch has: CPU tensors in a wrapper say they are there.
ELSEWHERE = torch.device("meta")
# What makes the host wait for an accelerator: to read a number, or the size of a result.
READS = ("_local_scalar_dense", "nonzero", "masked_select", "bincount", "is_nonzero", "equal")
# How many live entries there are, a sample, the counts around the bracket, and what lies in it.
READS_OF_A_SEARCH = 4


class Remote(Tensor):
    """A tensor that says it is on another device, and counts what makes the host wait."""

    inner: Tensor
    reads: ClassVar[Counter[str]] = Counter()

    @staticmethod
    def __new__(cls, inner: Tensor) -> "Remote":
        made = Tensor._make_wrapper_subclass(
            cls, inner.shape, strides=inner.stride(), dtype=inner.dtype, device=ELSEWHERE,
            storage_offset=inner.storage_offset(),
        )  # fmt: skip
        made.inner = inner
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        device = torch.device((kwargs or {}).get("device") or ELSEWHERE)
        if name == "_to_copy" and device.type == "cpu":
            cls.reads["to the host"] += 1
        elif name in READS:
            cls.reads[name] += 1
        elif name in ("index", "index_put", "index_put_"):
            places = [each for each in args[1] if each is not None]
            cls.reads["bool index"] += any(each.dtype == torch.bool for each in places)

        def unwrap(value: Any) -> Any:
            if isinstance(value, Remote):
                return value.inner
            there = isinstance(value, torch.device) and value == ELSEWHERE
            return torch.device("cpu") if there else value

        given, named = tree_map(unwrap, args), tree_map(unwrap, kwargs or {})
        found = func(*given, **named)
        if device.type == "cpu":
            return found
        if name.endswith("_") and not name.startswith("_"):
            return args[0]
        return tree_map(lambda each: Remote(each) if isinstance(each, Tensor) else each, found)


class OnThatDevice(TorchDispatchMode):
    """Make new tensors there, where a call names the device."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if any(isinstance(each, Remote) for each in args) or kwargs.get("device") != ELSEWHERE:
            return func(*args, **kwargs)
        return Remote(func(*args, **{**kwargs, "device": torch.device("cpu")}))


@contextmanager
def counted() -> Iterator[Counter[str]]:
    """Count the reads of the wrapped device."""
    Remote.reads.clear()
    with OnThatDevice():
        yield Remote.reads


@contextmanager
def in_pieces(room: int = 4096) -> Iterator[None]:
    """Sample from a few entries on, and give the larger tensors several chunks."""
    with small(room=room), mock.patch.object(arrays, "_DEVICE_CHUNK", 32):
        yield


def tensors(count: int, kind: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    draw = torch.Generator().manual_seed(count)
    scores = {f"t{at}": torch.randn(9, 1 + at % 7, generator=draw) for at in range(count)}
    if kind == "many ties":
        scores = {name: each.round() for name, each in scores.items()}
    live = {name: torch.rand(each.shape, generator=draw) < 0.8 for name, each in scores.items()}
    return scores, live


def reads_of(count: int, kind: str, room: int = 4096, **named: Any) -> int:
    """Keep half of some tensors there, as on the CPU, and return how often the host waited."""
    scores, live = tensors(count, kind)
    keep = sum(int(each.sum()) for each in live.values()) // 2
    there = [{name: Remote(each) for name, each in given.items()} for given in (scores, live)]
    with in_pieces(room), counted() as reads:
        kept = keep_top(there[0], keep, there[1], **named)
        total = reads.total()
    expected = keep_top(scores, keep, live)
    for name, each in kept.items():
        assert isinstance(each, Remote)
        assert torch.equal(each.inner, expected[name])
    return total


KINDS = ["scores of all sizes", "many ties"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_search_reads_four_times_whatever_the_number_of_tensors(kind: str) -> None:
    assert reads_of(3, kind) <= READS_OF_A_SEARCH
    assert reads_of(16, kind) <= READS_OF_A_SEARCH


@pytest.mark.parametrize("edges", [(0, 1), (2**30, 2**30), (-(2**31) + 1, 2**31 - 2)])
def test_a_sample_that_misled_costs_reads_that_do_not_depend_on_the_number(edges: Any) -> None:
    with mock.patch.object(cut, "_first_bracket", return_value=edges):
        few, many = (reads_of(count, KINDS[0], room=16) for count in (4, 16))
    # A bracket that is narrowed digit by digit is narrower at times by one digit more.
    assert few <= many <= 1.5 * few


def test_among_ranks_too_a_search_reads_once_a_pass(tmp_path: Path) -> None:
    if not distributed.is_available():
        pytest.skip("this PyTorch has no torch.distributed")
    store = distributed.FileStore(str(tmp_path / "store"), 1)
    distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        few, many = (reads_of(n, KINDS[0], group=distributed.group.WORLD) for n in (3, 12))
    finally:
        distributed.destroy_process_group()
    # How many are live, three digits of 12 bits, and what is at the threshold.
    assert few == many == 5


def test_what_makes_the_host_wait_is_counted() -> None:
    with counted() as reads:
        here = Remote(torch.arange(4.0))
        some = here > 1
        for wait in (here.sum().item, here.cpu, some.nonzero, lambda: here[some], some.any):
            wait()
        assert bool(some.all()) is False
    assert reads == {"_local_scalar_dense": 2, "to the host": 1, "nonzero": 1, "bool index": 1}


@contextmanager
def waits() -> Iterator[list[str]]:
    """Collect PyTorch's own reports of calls that wait for the GPU."""
    found: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield found
        finally:
            torch.cuda.set_sync_debug_mode("default")
            found += [str(w.message) for w in caught if "called a synchronizing" in str(w.message)]


@pytest.mark.gpu
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [3, 30])
def test_on_a_gpu_a_search_waits_four_times(kind: str, count: int) -> None:
    scores, live = tensors(count, kind)
    keep = sum(int(each.sum()) for each in live.values()) // 2
    on_gpu = [{name: each.cuda() for name, each in given.items()} for given in (scores, live)]
    with in_pieces(), waits() as found:
        kept = keep_top(on_gpu[0], keep, on_gpu[1])
    assert 1 <= len(found) <= READS_OF_A_SEARCH
    expected = keep_top(scores, keep, live)
    assert all(torch.equal(kept[name].cpu(), expected[name]) for name in scores)


@pytest.mark.gpu
def test_on_a_gpu_a_model_is_ranked_with_four_waits() -> None:
    deep = nn.Sequential(*(nn.Linear(300, 300) for _ in range(30))).cuda()
    found = pol.find_targets(pol.mask_weights(deep))
    with waits() as waited:
        choose_by_magnitude(found, 30 * 300 * 30)
    assert 1 <= len(waited) <= READS_OF_A_SEARCH
