"""Signed constants: what every strategy writes, against a slow twin in numpy and by hand."""

import copy
import math
import warnings

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import polarity as pol
from polarity import Delta, Epsilon, Phi

STRATEGIES = ["mask1", "mask0", "gradual", "standard"]
SCOPES = ["layer", "global"]
FLOATS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
each_dtype = pytest.mark.parametrize("dtype", FLOATS, ids=str)
each_strategy = pytest.mark.parametrize("strategy", STRATEGIES)
Field = dict[str, Tensor]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def fields(sizes: dict[str, tuple[int, ...]], alive: float = 0.6) -> tuple[Field, Field, Field]:
    """Trained weights, initial weights and masks; everything is a multiple of 1/16."""
    draw = seeded(11)
    trained, init = (
        {n: torch.randn(s, generator=draw).mul(16).round().div(16) for n, s in sizes.items()}
        for _ in range(2)
    )
    masks = {name: torch.rand(size, generator=draw) < alive for name, size in sizes.items()}
    return trained, init, masks


@pytest.fixture
def small() -> tuple[Field, Field, Field]:
    return fields({"conv": (3, 2, 3, 3), "fc": (7, 5)})


@pytest.fixture
def large() -> tuple[Field, Field, Field]:
    """One layer whose trained signs are all opposite to the initial ones."""
    _, init, masks = fields({"w": (200, 150)})
    init["w"] = init["w"] + torch.where(init["w"] >= 0, 1.0, -1.0)
    return {"w": -init["w"]}, init, masks


def opposite(signs: Tensor, magnitudes: Tensor, generator: torch.Generator | None) -> Tensor:
    return -signs


def all_plus(signs: Tensor, magnitudes: Tensor, generator: torch.Generator | None) -> Tensor:
    return torch.ones_like(signs)


def slow_twin(
    trained: np.ndarray, init: np.ndarray, mask: np.ndarray, strategy: str, phi: float
) -> np.ndarray:
    sigma = np.std(init)
    new = np.zeros_like(trained)
    for place in np.ndindex(*trained.shape):
        reference = init[place] if strategy == "mask1" else trained[place]
        if mask[place]:
            new[place] = sigma if reference >= phi else -sigma
        elif strategy == "standard":
            new[place] = trained[place]
    return new


@each_dtype
@pytest.mark.parametrize("phi", [None, 0.0, 0.25, -0.5])
@pytest.mark.parametrize("strategy", ["mask1", "mask0", "standard"])
def test_every_entry_is_what_a_slow_twin_says(small, strategy, phi, dtype):
    trained, init, masks = (
        {n: t.to(d) for n, t in f.items()}
        for f, d in zip(small, (dtype, dtype, torch.bool), strict=True)
    )
    perturb = None if phi is None else Phi(phi)
    new, _ = pol.signed_constants(trained, init, masks, strategy, perturb)
    for name, weight in new.items():
        of_numpy = (f[name].double().numpy() for f in (trained, init, masks))
        expected = torch.from_numpy(slow_twin(*of_numpy, strategy, phi or 0.0))
        assert weight.dtype == dtype
        tolerance = 2 * torch.finfo(dtype).eps
        torch.testing.assert_close(weight.double(), expected, rtol=tolerance, atol=0)


@pytest.mark.parametrize(("name", "paper_name"), [("initial", "mask1"), ("trained", "mask0")])
def test_the_plain_names_are_the_papers_strategies(small, name, paper_name):
    new, report = pol.signed_constants(*small, name)
    same, _ = pol.signed_constants(*small, paper_name)
    assert report.strategy == paper_name
    assert [n for n in new if not torch.equal(new[n], same[n])] == []


def test_gradual_takes_each_sign_from_now_or_from_the_beginning(large):
    now, first = (pol.signed_constants(*large, name)[0]["w"] for name in ("mask0", "mask1"))
    mixed = pol.signed_constants(*large, "gradual", generator=seeded())[0]["w"]
    assert torch.equal((mixed == now) | (mixed == first), torch.ones_like(mixed, dtype=bool))


@pytest.mark.parametrize("mix", [None, 0.7, 0.2])
def test_gradual_takes_the_trained_sign_with_the_probability_it_is_given(large, mix):
    given = {} if mix is None else {"mix": mix}
    mask, share = large[2]["w"], 0.7 if mix is None else mix
    new = pol.signed_constants(*large, "gradual", generator=seeded(), **given)[0]["w"]
    from_now = (new > 0) == (large[0]["w"] > 0)
    n = int(mask.sum())
    allowed = 6 * math.sqrt(n * share * (1 - share))
    assert abs(int(from_now[mask].sum()) - share * n) < allowed
    # each by itself: the left half of the layer is a fair sample too
    half = from_now[:, :75][mask[:, :75]]
    assert abs(int(half.sum()) - share * half.numel()) < allowed


@pytest.mark.parametrize(("mix", "strategy"), [(0, "mask1"), (1, "mask0"), (1.0, "trained")])
def test_gradual_at_its_ends_is_one_of_the_pure_strategies(small, mix, strategy):
    mixed, _ = pol.signed_constants(*small, "gradual", mix=mix, generator=seeded())
    pure, _ = pol.signed_constants(*small, strategy)
    assert [name for name in pure if not torch.equal(mixed[name], pure[name])] == []


@each_dtype
@each_strategy
@pytest.mark.parametrize("scope", SCOPES)
def test_survivors_are_plus_or_minus_sigma_and_never_zero(small, strategy, scope, dtype):
    trained, init, masks = small
    trained = {name: torch.zeros_like(each, dtype=dtype) for name, each in trained.items()}
    perturb = [Phi(0.0), Epsilon(0.5), Delta(0.5)]
    new, _ = pol.signed_constants(
        trained, init, masks, strategy, perturb, scope=scope, generator=seeded()
    )
    for name, mask in masks.items():
        sigma = np.std(init[name].double().numpy())
        (written,) = set(new[name][mask].abs().tolist())
        assert written == pytest.approx(sigma, rel=2 * torch.finfo(dtype).eps)
        assert new[name][~mask].count_nonzero() == 0


def test_sigma_is_the_population_deviation_of_the_whole_initial_tensor():
    init = {"w": torch.tensor([3.0, -1.0, 1.0, 101.0])}
    mask = {"w": torch.tensor([True, True, True, False])}
    _, report = pol.signed_constants(init, init, mask)
    assert report.layers[0].sigma == pytest.approx(np.std([3, -1, 1, 101]), rel=1e-15)


def test_sigma_does_not_suffer_from_the_dtype_it_was_stored_in():
    init = 100 + torch.randn(50_000, generator=seeded()).mul(4).round().div(4)
    init = {"w": init.to(torch.float16)}
    _, report = pol.signed_constants(init, init, {"w": torch.ones(50_000).bool()})
    assert report.layers[0].sigma == pytest.approx(np.std(init["w"].double().numpy()), rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_an_initial_sign_survives_the_narrower_dtype_of_the_model(dtype):
    tiny = [-1e-9, 1e-9, -1e-42, 1.0]
    init = {"w": torch.tensor(tiny)}
    trained = {"w": torch.ones(4, dtype=dtype)}
    new, _ = pol.signed_constants(trained, init, {"w": torch.ones(4).bool()}, "mask1")
    assert (new["w"] > 0).tolist() == [False, True, False, True]


@pytest.mark.parametrize("value", [0.0, 0.1, -3.7])
@each_dtype
@pytest.mark.parametrize("size", [1, 3, 7, 1000])
def test_a_constant_initial_tensor_gives_zeros_and_a_warning_that_names_it(dtype, value, size):
    init = {"head.weight": torch.full((size,), value, dtype=dtype)}
    masks = {"head.weight": torch.ones(size, dtype=torch.bool)}
    with pytest.warns(UserWarning, match=r"'head\.weight' is constant"):
        new, report = pol.signed_constants(init, init, masks)
    assert new["head.weight"].count_nonzero() == 0
    assert report.layers[0].sigma == 0


def test_the_warning_points_at_the_line_that_called():
    layer = pol.mask_weights(nn.Linear(3, 2))
    with pytest.warns(UserWarning, match="constant") as caught:
        pol.reinit_signs(layer, init={"weight": torch.ones(2, 3)})
    assert caught[0].filename == __file__


@each_strategy
def test_an_initial_tensor_that_varies_gives_no_warning(small, strategy):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pol.signed_constants(*small, strategy)


@pytest.mark.parametrize("epsilon", [0.1, 0.55, 1])
def test_epsilon_counts_in_each_layer_or_in_all_together(epsilon):
    trained, init, masks = fields({"a": (5,), "b": (6,), "c": (7,)}, alive=1.1)
    plain, _ = pol.signed_constants(trained, init, masks)

    def flips(scope: str) -> list[int]:
        new, report = pol.signed_constants(
            trained, init, masks, perturb=Epsilon(epsilon), scope=scope, generator=seeded()
        )
        counted = [int((new[name] != plain[name]).sum()) for name in "abc"]
        assert [layer.flipped for layer in report] == counted
        return counted

    assert flips("layer") == [round(epsilon * n) for n in (5, 6, 7)]
    assert sum(flips("global")) == round(epsilon * 18)


@pytest.mark.parametrize(("scope", "reached"), [("layer", [15, 10]), ("global", [25, 0])])
def test_delta_looks_for_small_weights_in_each_layer_or_in_all_together(scope, reached):
    trained = {"small": torch.full((30,), 1e-3), "big": torch.arange(1.0, 21.0)}
    masks = {name: torch.ones(each.shape).bool() for name, each in trained.items()}
    init, changed = dict(trained), {name: mask & False for name, mask in masks.items()}
    init["small"] = torch.linspace(1e-3, 2e-3, 30)
    for seed in range(40):
        new, _ = pol.signed_constants(
            trained, init, masks, "mask0", Delta(0.5), scope=scope, generator=seeded(seed)
        )
        changed = {name: changed[name] | (new[name] < 0) for name in changed}
    # ties go to the lower index, and so the reached ones are the first of each layer
    assert [int(each.sum()) for each in changed.values()] == reached
    assert [bool(each[:n].all()) for each, n in zip(changed.values(), reached, strict=True)] == [
        True,
        True,
    ]


def test_global_delta_ranks_layers_of_different_dtypes_by_value():
    trained = {"half": torch.ones(4, dtype=torch.float16), "double": torch.ones(4).double() - 1e-12}
    masks = {name: torch.ones(4).bool() for name in trained}
    init = {name: torch.arange(4.0) for name in trained}
    reached = torch.zeros(4, dtype=torch.bool)
    for seed in range(20):
        new, _ = pol.signed_constants(
            trained, init, masks, "mask0", Delta(0.5), scope="global", generator=seeded(seed)
        )
        assert (new["half"] > 0).all()
        reached |= new["double"] < 0
    assert reached.all()


@pytest.mark.parametrize("scope", SCOPES)
def test_perturbations_act_in_the_order_given(small, scope):
    def share_positive(*perturb) -> float:
        return pol.signed_constants(*small, "mask0", perturb, scope=scope)[1].positive

    assert share_positive(opposite, all_plus) == 1
    assert share_positive(all_plus, opposite) == 0
    assert share_positive(all_plus, Epsilon(1)) == 0
    assert share_positive(Epsilon(1), all_plus) == 1


def test_phi_belongs_to_the_polarity_wherever_it_stands(small):
    for perturb in ([Phi(0.5), opposite], [opposite, Phi(0.5)], (opposite, Phi(0.5), opposite)):
        new, _ = pol.signed_constants(*small, "mask0", perturb)
        negative = (small[0]["fc"] >= 0.5)[small[2]["fc"]]
        turned = new["fc"][small[2]["fc"]] < 0
        assert torch.equal(turned, negative if len(perturb) == 2 else ~negative)


@each_strategy
def test_epsilon_delta_and_phi_combine_on_every_strategy(small, strategy):
    perturb = [Phi(0.25), Delta(0.4), Epsilon(0.3)]
    first, report = pol.signed_constants(*small, strategy, perturb, generator=seeded(2))
    again, _ = pol.signed_constants(*small, strategy, perturb, generator=seeded(2))
    other, _ = pol.signed_constants(*small, strategy, perturb, generator=seeded(3))
    assert [name for name in first if not torch.equal(first[name], again[name])] == []
    assert [name for name in first if torch.equal(first[name], other[name])] == []
    assert 0 < report.flipped < report.survivors


@each_dtype
@each_strategy
@pytest.mark.parametrize("scope", SCOPES)
def test_the_same_seed_gives_the_same_signs_in_every_dtype(small, strategy, scope, dtype):
    perturb = [Phi(0.25), Delta(0.4), Epsilon(0.3)]
    signs = []
    for each in (torch.float64, dtype):
        trained, init = ({name: t.to(each) for name, t in field.items()} for field in small[:2])
        new, _ = pol.signed_constants(
            trained, init, small[2], strategy, perturb, scope=scope, generator=seeded()
        )
        signs.append({name: weight.sign().int().tolist() for name, weight in new.items()})
    assert signs[0] == signs[1]


@each_strategy
@pytest.mark.parametrize("scope", SCOPES)
def test_the_global_generator_is_left_alone_when_one_is_given(small, strategy, scope):
    before = torch.get_rng_state()
    pol.signed_constants(
        *small, strategy, [Delta(0.4), Epsilon(0.3)], scope=scope, generator=seeded()
    )
    assert torch.equal(torch.get_rng_state(), before)


@each_strategy
def test_the_arguments_of_the_pure_function_are_neither_changed_nor_returned(small, strategy):
    before = copy.deepcopy(small)
    new, _ = pol.signed_constants(*small, strategy, [Epsilon(0.3)], generator=seeded())
    for weight in new.values():
        weight.fill_(7)
    same = [
        torch.equal(now[n], old[n]) for now, old in zip(small, before, strict=True) for n in now
    ]
    assert all(same)


def test_masks_of_zeros_and_ones_are_masks_too(small):
    trained, init, masks = small
    new, _ = pol.signed_constants(trained, init, {n: m.float() for n, m in masks.items()})
    same, _ = pol.signed_constants(trained, init, masks)
    assert [name for name in new if not torch.equal(new[name], same[name])] == []


@pytest.mark.gpu
@each_strategy
@pytest.mark.parametrize("scope", SCOPES)
def test_the_same_seed_gives_the_same_signs_on_every_device(small, strategy, scope):
    perturb = [Phi(0.25), Delta(0.4), Epsilon(0.3)]
    given = {"strategy": strategy, "perturb": perturb, "scope": scope}
    expected, _ = pol.signed_constants(*small, **given, generator=seeded())
    on_gpu = ({name: each.cuda() for name, each in field.items()} for field in small)
    new, _ = pol.signed_constants(*on_gpu, **given, generator=seeded())
    assert [name for name in new if not torch.equal(new[name].cpu(), expected[name])] == []
