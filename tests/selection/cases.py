"""Tensors that are hard to cut: often equal, of every dtype and layout; and engines made small."""

import contextlib
import math
from collections.abc import Iterator
from unittest import mock

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from torch import Tensor

from polarity._bits import arrays
from polarity.selection import chosen, cpu, cut, gpu, passes

FLOATS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
each_dtype = pytest.mark.parametrize("dtype", FLOATS, ids=str)
each_engine = pytest.mark.parametrize("engine", ["numpy", "torch"])
quick = settings(deadline=None)  # as many examples as conftest.py says


@contextlib.contextmanager
def small(engine: str = "numpy", room: int = 64, threads: int = 1) -> Iterator[None]:
    """Sample, split and narrow from a few entries on, with the keys of a CPU or of a GPU."""

    def on_torch(name, values, live, size, key_format, *, lazy):
        device = torch.device("cpu")
        return gpu.GpuKeys(name, values, live, size, key_format, device, lazy=lazy)

    before = torch.get_num_threads()
    with contextlib.ExitStack() as stack:
        for owner, name, value in (
            (cut, "_NO_SAMPLE", 16),
            (cut, "_ROOM", room),
            (cut, "_HISTOGRAM_BITS", 3),
            (cpu, "CHUNK_BYTES", 64),
            (arrays, "_HOST_CHUNK", 16),
            (passes, "_MIN_SIZE_FOR_THREADS", 0),
        ):
            stack.enter_context(mock.patch.object(owner, name, value))
        if engine == "torch":
            stack.enter_context(mock.patch.object(chosen, "CpuKeys", on_torch))
        torch.set_num_threads(threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def numbers_of(dtype: torch.dtype) -> st.SearchStrategy[float]:
    """Zeros of both signs, denormals, both ends of the dtype, values often equal, any other."""
    info = torch.finfo(dtype)
    denormal = info.smallest_normal * info.eps
    edges = [0.0, -0.0, denormal, -denormal, 3 * denormal, info.tiny, info.max, info.min, 1.0, -1.0]
    return st.one_of(st.sampled_from(edges), st.floats(-2, 2, width=16), st.sampled_from([0.5]))


@st.composite
def weights_and_masks(draw: st.DrawFn) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """One to three tensors, of one dtype or mixed, in any layout."""
    shapes = draw(
        st.lists(
            st.sampled_from([(), (0,), (1,), (33,), (5, 8), (3, 0, 2), (2, 3, 2, 4)]),
            min_size=1,
            max_size=3,
        )
    )
    common = draw(st.sampled_from([*FLOATS, None]))
    weights, masks = {}, {}
    for place, shape in enumerate(shapes):
        dtype = common or draw(st.sampled_from(FLOATS))
        size = math.prod(shape)
        numbers = draw(st.lists(numbers_of(dtype), min_size=size, max_size=size))
        live = draw(
            st.one_of(
                st.lists(st.booleans(), min_size=size, max_size=size),
                st.just([True] * size),
            )
        )
        order = draw(st.permutations(range(len(shape))))
        back = [order.index(dim) for dim in range(len(shape))]
        weight = torch.tensor(numbers, dtype=dtype).view(shape)
        mask = torch.tensor(live, dtype=torch.bool).view(shape)
        name = f"{9 - place}"
        weights[name] = weight.permute(order).contiguous().permute(back)
        alike = draw(st.booleans())
        masks[name] = mask.permute(order).contiguous().permute(back) if alike else mask
    return weights, masks


def hostile(kind: str, size: int, stride: int) -> Tensor:
    """Values of which every stride-th tells nothing, or lies, about the others."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(size, generator=generator)
    at_samples = torch.zeros(size, dtype=torch.bool)
    at_samples[::stride] = True
    return {
        "large where sampled": torch.where(at_samples, noise.abs() + 100, noise),
        "small where sampled": torch.where(at_samples, noise / 1e6, noise),
        "constant where sampled": torch.where(at_samples, 0.3, noise),
        "sorted": noise.sort().values,
        "sorted by magnitude, largest first": noise.abs().sort(descending=True).values,
        "periodic": torch.arange(size).remainder(stride).float() - stride / 2,
        "all equal": torch.full((size,), -0.25),
        "all but one equal": torch.cat([torch.full((size - 1,), 0.25), torch.tensor([0.125])]),
        "zeros of both signs": torch.where(noise > 0, 0.0, -0.0),
        "two values": torch.where(noise > 0, 1.0, -2.0),
        "one value for each layer": torch.arange(8).repeat_interleave(-(-size // 8))[:size].float(),
        "denormals": noise * 1e-40,
        "quantised": noise.mul(64).round().div(64),
    }[kind]


KINDS = [
    "large where sampled",
    "small where sampled",
    "constant where sampled",
    "sorted",
    "sorted by magnitude, largest first",
    "periodic",
    "all equal",
    "all but one equal",
    "zeros of both signs",
    "two values",
    "one value for each layer",
    "denormals",
    "quantised",
]
