"""Signs are read, perturbed and written chunk by chunk: the same whatever the chunks."""

import math
import os
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import polarity as pol
from polarity import Delta, Epsilon, Phi
from polarity._bits import arrays
from polarity.signs.deviation import population_deviation
from tests.models import generator as seeded
from tests.signs.cases import SCOPES, differing, fields, without_empty

STRATEGIES = ["mask1", "mask0", "gradual", "standard"]
PERTURB = [Phi(0.25), Delta(0.4), Epsilon(0.3)]


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("chunk", [1, 24, 1000])
def test_the_signs_do_not_depend_on_the_chunks(layers, strategy, scope, dtype, chunk, monkeypatch):
    layers = without_empty(layers)
    layers = (*({n: t.to(dtype) for n, t in each.items()} for each in layers[:2]), layers[2])
    given = {"strategy": strategy, "perturb": PERTURB, "scope": scope}
    expected, said = pol.signed_constants(*layers, **given, generator=seeded())
    monkeypatch.setattr(arrays, "_HOST_CHUNK", chunk)
    new, report = pol.signed_constants(*layers, **given, generator=seeded())
    assert differing(new, expected) == []
    for each, other in zip(report, said, strict=True):
        assert each.sigma == pytest.approx(other.sigma, rel=1e-14)
        assert (each.flipped, each.positive) == (other.flipped, other.positive)


def test_a_weight_of_several_chunks_is_signed_like_a_twin_in_numpy():
    trained, init, masks = fields({"w": (3, 70_001)}, alive=0.3)
    perturb = [Epsilon(0.3), Delta(0.2)]
    new, _ = pol.signed_constants(trained, init, masks, "mask0", perturb, generator=seeded())
    m, w = masks["w"].numpy().ravel(), trained["w"].numpy().ravel()
    signs = torch.from_numpy(np.where(w[m] >= 0, 1, -1).astype(np.int8))
    generator = seeded()
    for each in perturb:
        signs = each(signs, torch.from_numpy(np.abs(w[m])), generator, masks=masks)
    expected = np.zeros_like(w)
    expected[m] = signs.numpy() * np.float32(np.std(init["w"].numpy().astype(np.float64)))
    assert np.array_equal(new["w"].numpy().ravel(), expected)


def test_layers_that_are_empty_or_have_no_survivors_are_left_out_of_global_draws(layers):
    layers[2]["b"][:] = False
    new, report = pol.signed_constants(*layers, perturb=PERTURB, scope="global", generator=seeded())
    assert new["none"].shape == (0, 3)
    assert new["b"].count_nonzero() == 0
    assert [each.survivors for each in report][1:3] == [0, 0]
    assert report.flipped > 0


shapes = st.lists(st.lists(st.integers(1, 12), min_size=1, max_size=3), min_size=1, max_size=3)


@settings(deadline=None, max_examples=60)
@given(
    shapes,
    st.floats(0.1, 1),
    st.integers(0, 100),
    st.sampled_from(["mask1", "mask0", "standard"]),
    st.floats(0, 1),
    st.floats(0, 1),
    st.sampled_from([0.0, 0.125, -0.5]),
    st.sampled_from([5, 64, 1 << 17]),
)
def test_a_report_and_its_signs_are_what_numpy_counts(
    sizes, alive, seed, strategy, epsilon, delta, center, chunk
):
    trained, init, masks = fields({f"w{i}": tuple(s) for i, s in enumerate(sizes)}, alive, seed)
    init["w0"].view(-1)[0] += 1  # not constant
    for mask in masks.values():
        mask.view(-1)[0] = True
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arrays, "_HOST_CHUNK", chunk)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of a layer that is constant
            base, _ = pol.signed_constants(trained, init, masks, strategy, Phi(center))
            flipped, report = pol.signed_constants(
                trained, init, masks, strategy, [Phi(center), Epsilon(epsilon)], generator=seeded()
            )
            drawn, _ = pol.signed_constants(
                trained, init, masks, strategy, [Phi(center), Delta(delta)], generator=seeded()
            )
    for layer, name in zip(report, masks, strict=True):
        m, was, w = (f[name].numpy().ravel() for f in (masks, init, trained))
        new, plain, tossed = (f[name].numpy().ravel() for f in (flipped, base, drawn))
        n, sigma = int(m.sum()), np.std(was.astype(np.float64))
        assert layer.survivors == n
        assert layer.sigma == pytest.approx(sigma, rel=1e-12)
        if sigma == 0:
            continue
        reference = was if strategy == "mask1" else w
        assert np.array_equal(plain[m] > 0, reference[m] >= center)
        assert int((new != plain).sum()) == round(epsilon * n)
        assert layer.positive == int((new[m] > 0).sum()) / n
        assert layer.agree_init == int(((new[m] > 0) == (was[m] >= 0)).sum()) / n
        assert layer.agree_trained == int(((new[m] > 0) == (w[m] >= 0)).sum()) / n
        assert layer.flipped == int(((new[m] > 0) != (reference[m] >= 0)).sum())
        small = np.flatnonzero(m)[np.argsort(np.abs(w[m]), kind="stable")[: round(delta * n)]]
        assert set(np.flatnonzero(tossed != plain)) <= set(small)


@pytest.mark.parametrize("layout", ["channels_last", "transposed"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_signs_do_not_depend_on_the_order_in_memory(strategy, layout):
    def laid_out(tensor: Tensor) -> Tensor:
        if layout == "channels_last":
            return tensor.to(memory_format=torch.channels_last)
        return tensor.transpose(0, 1).contiguous().transpose(0, 1)

    plain = fields({"conv": (6, 5, 3, 2)}, alive=0.7)
    expected, said = pol.signed_constants(*plain, strategy, PERTURB, generator=seeded())
    other = tuple({name: laid_out(t) for name, t in field.items()} for field in plain)
    new, report = pol.signed_constants(*other, strategy, PERTURB, generator=seeded())
    assert torch.equal(new["conv"], expected["conv"])
    assert new["conv"].stride() == other[0]["conv"].stride()
    assert report == said


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_model_in_channels_last_gets_the_same_signs(strategy):
    signs = []
    for memory_format in (torch.contiguous_format, torch.channels_last):
        torch.manual_seed(0)
        model = nn.Conv2d(4, 6, 3).to(memory_format=memory_format)
        start = pol.RewindPoint.capture(model)
        model.weight.data.add_(0.1)
        given = {"trained": pol.RewindPoint.capture(model)} if strategy == "standard" else {}
        pol.imp_prune(model, density=0.5)
        pol.reinit_signs(model, strategy, PERTURB, init=start, generator=seeded(), **given)
        signs.append(model.weight.detach())
    assert torch.equal(signs[0], signs[1])


def test_what_is_stored_outside_an_enforced_mask_is_not_looked_at():
    layer = nn.Linear(3, 1, bias=False)
    start = pol.RewindPoint.capture(layer)
    pol.load_masks(layer, {"weight": torch.tensor([[1, 0, 1]])})
    layer.parametrizations.weight.original.data[0, 1] = math.nan
    pol.reinit_signs(layer, "mask0", init=start)
    assert layer.parametrizations.weight.original[0, 1] == 0
    layer.parametrizations.weight.original.data[0, 2] = math.nan
    with pytest.raises(ValueError, match=r"trained weight 'weight' holds 1 NaN"):
        pol.reinit_signs(layer, "mask0", init=start)


def test_weights_whose_sum_overflows_are_finite():
    big = {"w": torch.tensor([3e38, 3e38, -1.0, 2.0])}
    new, _ = pol.signed_constants(
        big, {"w": torch.arange(4.0)}, {"w": torch.ones(4).bool()}, "mask0"
    )
    assert (new["w"] > 0).tolist() == [True, True, False, True]


def test_autograd_knows_that_the_weight_was_written():
    layer = nn.Linear(3, 2)
    start = pol.RewindPoint.capture(layer)
    pol.mask_weights(layer)
    stored = layer.parametrizations.weight.original
    loss = stored.square().sum()
    pol.reinit_signs(layer, init=start)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50),
    st.sampled_from([0.0, 1.0, -1e9]),
    st.integers(1, 60),
)
def test_the_deviation_is_that_of_numpy(numbers, offset, chunk):
    values = torch.tensor(numbers, dtype=torch.float64) + offset
    before = values.clone()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arrays, "_HOST_CHUNK", chunk)
        deviation = population_deviation(values)
    assert torch.equal(values, before)
    largest = float(values.abs().max())
    expected = float(np.std(values.numpy()))
    assert deviation == pytest.approx(expected, rel=1e-9, abs=1e-14 * largest)
    assert (deviation == 0) == (float(values.min()) == float(values.max())) or expected < 1e-150


def test_a_deviation_whose_squares_overflow_is_refused():
    huge = {"w": torch.tensor([1e200, -1e200], dtype=torch.float64)}
    with pytest.raises(ValueError, match=r"init weight 'w' holds values whose squares overflow"):
        pol.signed_constants(huge, huge, {"w": torch.ones(2).bool()})


MEMORY = """
import sys, torch, polarity as pol

def status(key):
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith(key)) * 1024

def sign(*widths):
    torch.manual_seed(0)
    model = torch.nn.Sequential(*(torch.nn.Linear(2000, width, bias=False) for width in widths))
    start = pol.RewindPoint.capture(model)
    masks = {f"{k}.weight": torch.rand(width, 2000) < 0.2 for k, width in enumerate(widths)}
    pol.mask_weights(model, masks=masks)
    open("/proc/self/clear_refs", "w").write("5")
    before = status("VmRSS")
    pol.reinit_signs(model, "mask1", [pol.Epsilon(0.1), pol.Delta(0.1)], init=start)
    return (status("VmHWM") - before) / 2000 / sum(widths)

sign(10)  # what is loaded once is no matter of weights
print(sign(*map(int, sys.argv[1:])))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize(("widths", "most"), [([4000], 4.5), ([500] * 8, 2.6)])
def test_no_copy_of_the_weights_is_made(widths, most):
    """In bytes per weight at density 0.2: a copy takes 4, and a layer's bool mask 1.

    Of several layers one at a time is worked on.
    """
    environment = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0"}
    ran = subprocess.run(
        [sys.executable, "-c", MEMORY, *map(str, widths)],
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    assert float(ran.stdout) < most
