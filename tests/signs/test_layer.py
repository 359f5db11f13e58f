"""Signs are read, perturbed and written part by part: the same whatever the parts."""

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
from polarity._bits import arrays, bits, random_bits, random_fields
from polarity.selection import cpu as host_field
from polarity.selection.chosen import Entries
from polarity.selection.smallest import smallest
from polarity.signs import layer as sign_field
from polarity.signs import read as sign_reading
from polarity.signs.deviation import Deviation

STRATEGIES = ["mask1", "mask0", "gradual", "standard"]
SCOPES = ["layer", "global"]
PERTURB = [Phi(0.25), Delta(0.4), Epsilon(0.3)]
Fields = tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def fields(sizes: dict[str, tuple[int, ...]], alive: float = 0.4, seed: int = 11) -> Fields:
    """Trained weights, initial weights and masks; multiples of 1/8, so that many are tied."""
    draw = seeded(seed)
    trained, init = (
        {n: torch.randn(s, generator=draw).mul(8).round().div(8) for n, s in sizes.items()}
        for _ in range(2)
    )
    return trained, init, {n: torch.rand(s, generator=draw) < alive for n, s in sizes.items()}


@pytest.fixture
def layers() -> Fields:
    return fields({"a": (31, 17), "none": (0, 3), "b": (200,), "c": (5, 2, 3, 3)})


def differing(one: dict[str, Tensor], other: dict[str, Tensor]) -> list[str]:
    return [name for name in one if not torch.equal(one[name], other[name])]


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_signs_do_not_depend_on_the_parts(layers, strategy, scope, monkeypatch):
    layers = tuple({n: t for n, t in field.items() if n != "none"} for field in layers)
    given = {"strategy": strategy, "perturb": PERTURB, "scope": scope}
    expected, said = pol.signed_constants(*layers, **given, generator=seeded())
    monkeypatch.setattr(arrays, "_HOST_PART", 24)
    monkeypatch.setattr(host_field, "PART_BYTES", 36)
    new, report = pol.signed_constants(*layers, **given, generator=seeded())
    assert differing(new, expected) == []
    assert [(each.flipped, each.positive) for each in report] == [
        (each.flipped, each.positive) for each in said
    ]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_way_of_an_accelerator_gives_the_same(layers, strategy, scope, dtype, monkeypatch):
    layers = (*({n: t.to(dtype) for n, t in f.items() if n != "none"} for f in layers[:2]),
              {n: m for n, m in layers[2].items() if n != "none"})  # fmt: skip
    given = {"strategy": strategy, "perturb": PERTURB, "scope": scope}
    expected, said = pol.signed_constants(*layers, **given, generator=seeded())
    for module in (arrays, bits, random_bits, random_fields, sign_field, sign_reading):
        monkeypatch.setattr(module, "array_of", lambda tensor: tensor)
    new, report = pol.signed_constants(*layers, **given, generator=seeded())
    assert differing(new, expected) == []
    assert report == said


def same_by_call(perturbation):
    """The same perturbation, of which nothing is known but that it can be called."""
    return lambda signs, magnitudes, generator: perturbation(signs, magnitudes, generator)


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize(
    "perturbation", [Epsilon(0.3), Epsilon(0.9), Delta(0.4), Delta(1)], ids=repr
)
def test_ours_reach_in_a_layer_what_they_reach_in_a_field(layers, perturbation, scope):
    """From other draws: what they reach in 40 draws is the same, and how many at a time."""
    layers = tuple({n: t for n, t in field.items() if n != "none"} for field in layers)
    plain, _ = pol.signed_constants(*layers, "mask0")
    reached, most = [], []
    for each in (perturbation, same_by_call(perturbation)):
        changed = [
            torch.cat([(new[n] != plain[n]).flatten() for n in plain])
            for new, _ in (
                pol.signed_constants(*layers, "mask0", each, scope=scope, generator=seeded(seed))
                for seed in range(40)
            )
        ]
        reached.append(torch.stack(changed).any(0))
        most.append([int(one.sum()) for one in changed])
    assert torch.equal(*reached)
    if isinstance(perturbation, Epsilon):
        assert most[0] == most[1]


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
    sizes, alive, seed, strategy, epsilon, delta, center, part
):
    trained, init, masks = fields({f"w{i}": tuple(s) for i, s in enumerate(sizes)}, alive, seed)
    init["w0"].view(-1)[0] += 1  # not constant
    for mask in masks.values():
        mask.view(-1)[0] = True
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arrays, "_HOST_PART", part)
        patch.setattr(host_field, "PART_BYTES", 4 * part)
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


@settings(deadline=None, max_examples=100)
@given(
    shapes,
    st.floats(0, 1),
    st.integers(0, 100),
    st.floats(0, 1),
    st.sampled_from([8, 64, 1 << 19]),
    st.lists(
        st.sampled_from([torch.float16, torch.bfloat16, torch.float32]), min_size=3, max_size=3
    ),
)
def test_the_smallest_are_the_first_of_a_stable_sort(sizes, alive, seed, share, part, dtypes):
    trained, _, masks = fields({f"w{i}": tuple(s) for i, s in enumerate(sizes)}, alive, seed)
    trained = {n: t.to(d) for (n, t), d in zip(trained.items(), dtypes, strict=False)}
    flat = np.concatenate([t.double().abs().numpy().ravel() for t in trained.values()])
    places = np.flatnonzero(np.concatenate([m.numpy().ravel() for m in masks.values()]))
    count = round(share * places.size)
    expected = places[np.argsort(flat[places], kind="stable")[:count]]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(host_field, "PART_BYTES", part)
        entries = {name: Entries.of(t, masks[name]) for name, t in trained.items()}
        found = np.concatenate([np.array(small) for _, _, small in smallest(entries, count)])
    assert np.array_equal(np.flatnonzero(found), np.sort(expected))


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
        pol.imp_prune(model, density=0.5)
        pol.reinit_signs(model, strategy, PERTURB, init=start, generator=seeded())
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


@pytest.mark.parametrize(
    ("returns", "error", "words"),
    [
        (lambda s, m, g: None, TypeError, "NoneType"),
        (lambda s, m, g: s[1:], ValueError, r"shape \(\d+,\).*expected \(\d+,\)"),
        (lambda s, m, g: s * 0, ValueError, r"\+1 and -1"),
        (lambda s, m, g: s * 2, ValueError, r"\+1 and -1"),
        (lambda s, m, g: s.float() * math.nan, ValueError, r"\+1 and -1"),
    ],
)
@pytest.mark.parametrize("scope", SCOPES)
def test_a_perturbation_that_returns_no_signs_is_refused_and_nothing_written(
    returns, error, words, scope
):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    start = pol.RewindPoint.capture(model)
    pol.imp_prune(model, 0.5)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(error, match=words):
        pol.reinit_signs(model, perturb=returns, init=start, scope=scope)
    assert differing(before, model.state_dict()) == []


def test_a_user_may_return_signs_of_any_dtype(layers):
    layers = tuple({n: t for n, t in field.items() if n != "none"} for field in layers)
    wide, _ = pol.signed_constants(*layers, "mask0", lambda s, m, g: -s.double())
    narrow, _ = pol.signed_constants(*layers, "mask0", lambda s, m, g: -s)
    assert differing(wide, narrow) == []


@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50),
    st.sampled_from([0.0, 1.0, -1e9]),
    st.integers(1, 60),
)
def test_the_deviation_is_that_of_numpy(numbers, offset, length):
    values = torch.tensor(numbers, dtype=torch.float64) + offset
    deviation = Deviation(length, values.device, float(values[0]))
    for part in values.split(length):
        deviation.add(part)
    largest = float(values.abs().max())
    expected = float(np.std(values.numpy()))
    assert deviation.value() == pytest.approx(expected, rel=1e-9, abs=1e-14 * largest)
    assert (deviation.value() == 0) == (
        float(values.min()) == float(values.max())
    ) or expected < 1e-150


MEMORY = """
import torch, polarity as pol
torch.manual_seed(0)
model = torch.nn.Linear(4000, 2000, bias=False)
start = pol.RewindPoint.capture(model)
pol.mask_weights(model, masks={"weight": torch.rand(2000, 4000) < 0.2})

def status(key):
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith(key)) * 1024

open("/proc/self/clear_refs", "w").write("5")
before = status("VmRSS")
pol.reinit_signs(model, "mask1", [pol.Epsilon(0.1), pol.Delta(0.1)], init=start)
print((status("VmHWM") - before) / model.weight.numel())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_no_copy_of_the_weights_is_made():
    environment = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0"}
    ran = subprocess.run(
        [sys.executable, "-c", MEMORY],
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    assert float(ran.stdout) < 2.6  # bytes a weight; a copy takes 4
