"""Densities per weight: exact counts, against dealing entries out one by one and bisection."""

import math

import pytest
import torch
import torchvision
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

import polarity as pol
from polarity import densities

SIZES = st.lists(st.integers(1, 60), min_size=1, max_size=8)
DENSITY = st.floats(0, 1)
SHAPES = st.lists(
    st.one_of(
        st.tuples(st.integers(1, 12), st.integers(1, 12)),
        st.tuples(st.integers(1, 6), st.integers(1, 6), st.integers(1, 3), st.integers(1, 3)),
    ),
    min_size=1,
    max_size=6,
)
each_rule = pytest.mark.parametrize(
    "rule", [densities.uniform, densities.erk, densities.balanced], ids=lambda rule: rule.__name__
)


def rows(sizes: list[int]) -> nn.Sequential:
    return nn.Sequential(*(nn.Linear(size, 1, bias=False) for size in sizes))


def layers(shapes: list[tuple[int, ...]]) -> nn.Sequential:
    return nn.Sequential(
        *(
            nn.Linear(shape[1], shape[0], bias=False)
            if len(shape) == 2
            else nn.Conv2d(shape[1], shape[0], shape[2:], bias=False)
            for shape in shapes
        )
    )


def pruned(model: nn.Module, wanted: dict[str, float]) -> list[int]:
    """How many entries of each weight live once a random mask of these densities is there."""
    draw = torch.Generator().manual_seed(0)
    pol.prune(model, pol.scores.random, densities=wanted, generator=draw)
    return [int(mask.sum()) for mask in pol.masks(model).values()]


def counted(model: nn.Module, wanted: dict[str, float]) -> list[int]:
    """How many entries of each weight that is, by the rule of selection."""
    return [round(wanted[name] * p.numel()) for name, p in model.named_parameters()]


def dealt(sizes: list[int], total: int) -> list[int]:
    """Deal entries out, one to each weight that has room, round after round, in order."""
    counts = [0] * len(sizes)
    while total:
        for place, size in enumerate(sizes):
            if total and counts[place] < size:
                counts[place] += 1
                total -= 1
    return counts


def erk_quotas(shapes: list[tuple[int, ...]], density: float, power: float) -> list[float]:
    """Find the factor by bisection on the total, which grows with it, dense weights and all."""
    sizes = [math.prod(shape) for shape in shapes]
    raw = [(sum(s) / n) ** power for s, n in zip(shapes, sizes, strict=True)]

    def at(epsilon: float) -> list[float]:
        return [min(1.0, epsilon * each) * n for each, n in zip(raw, sizes, strict=True)]

    low, high = 0.0, 1 / min(raw)
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if sum(at(middle)) < density * sum(sizes) else (low, middle)
    return at(high)


@given(SIZES, DENSITY)
@settings(max_examples=60, deadline=None)
def test_balanced_deals_the_entries_out_evenly(sizes, density):
    model = rows(sizes)
    counts = counted(model, densities.balanced(model, density))
    assert counts == dealt(sizes, round(density * sum(sizes)))


@given(SIZES, DENSITY)
@settings(max_examples=60, deadline=None)
def test_balanced_counts_are_exact_equal_to_one_or_whole(sizes, density):
    model = rows(sizes)
    counts = counted(model, densities.balanced(model, density))
    assert sum(counts) == round(density * sum(sizes))
    open_counts = [count for count, size in zip(counts, sizes, strict=True) if count < size]
    if open_counts:
        assert max(open_counts) - min(open_counts) <= 1
        assert max(counts) <= min(open_counts) + 1
        assert open_counts == sorted(open_counts, reverse=True), "the earlier get the remainder"


@given(SIZES, DENSITY, DENSITY)
@settings(max_examples=60, deadline=None)
def test_balanced_gives_no_weight_less_when_there_is_more(sizes, one, other):
    less, more = (densities.balanced(rows(sizes), each) for each in sorted((one, other)))
    assert [name for name in less if less[name] > more[name]] == []


@given(SHAPES, DENSITY, st.sampled_from([0.0, 0.5, 1.0, 2.0]))
@settings(max_examples=100, deadline=None)
def test_erk_rounds_the_rules_quotas_to_the_exact_total(shapes, density, power):
    model = layers(shapes)
    sizes = [math.prod(shape) for shape in shapes]
    counts = counted(model, densities.erk(model, density, power))
    quotas = erk_quotas(shapes, density, power)
    assert sum(counts) == round(density * sum(sizes))
    assert all(-1e-6 <= n <= size for n, size in zip(counts, sizes, strict=True))
    assert [pair for pair in zip(counts, quotas, strict=True) if abs(pair[0] - pair[1]) > 1] == []
    full = [n for n, q, size in zip(counts, quotas, sizes, strict=True) if q == size and n < size]
    assert full == [], "what the rule makes dense is dense"


@given(SHAPES, st.floats(0.01, 0.99))
@settings(max_examples=60, deadline=None)
def test_erk_rounds_up_the_largest_remainders(shapes, density):
    model = layers(shapes)
    sizes = [math.prod(shape) for shape in shapes]
    quotas = erk_quotas(shapes, density, 1.0)
    assume(all(abs(quota - round(quota)) > 1e-6 or quota == n for quota, n in zip(quotas, sizes)))  # noqa: B905
    counts = counted(model, densities.erk(model, density))
    ups = [quota % 1 for quota, n in zip(quotas, counts, strict=True) if n > quota]
    downs = [quota % 1 for quota, n in zip(quotas, counts, strict=True) if n < quota]
    if ups and downs:
        assert min(ups) >= max(downs) - 1e-6


@given(SHAPES, DENSITY, st.sampled_from([densities.erk, densities.balanced]))
@settings(max_examples=15, deadline=None)
def test_pruning_to_these_densities_keeps_these_counts_and_their_exact_total(shapes, density, rule):
    model = layers(shapes)
    wanted = rule(model, density)
    counts = counted(model, wanted)
    assert pruned(model, wanted) == counts
    assert sum(counts) == round(density * sum(math.prod(shape) for shape in shapes))


@given(SIZES, DENSITY)
@settings(max_examples=10, deadline=None)
def test_uniform_is_the_layer_scope_by_another_name(sizes, density):
    model = rows(sizes)
    counts = pruned(model, densities.uniform(model, density))
    other = rows(sizes)
    pol.imp_prune(other, density=density, scope="layer")
    assert counts == [int(mask.sum()) for mask in pol.masks(other).values()]
    assert counts == [round(density * size) for size in sizes]


def test_uniform_can_leave_the_first_weight_dense():
    model = rows([10, 20, 40])
    assert pruned(model, densities.uniform(model, 0.25, dense_first=True)) == [10, 5, 10]


def test_balanced_by_hand():
    # 0.5 of 40 is 20: the 3 are dense, 17 are left for three: 6, 6 and 5
    model = rows([3, 7, 10, 20])
    assert pruned(model, densities.balanced(model, 0.5)) == [3, 6, 6, 5]
    assert densities.balanced(rows([3, 7, 10, 20]), 0.5) == {
        "0.weight": 1.0,
        "1.weight": 6 / 7,
        "2.weight": 0.6,
        "3.weight": 0.25,
    }


def test_erk_by_hand():
    # shares 4 + 4 + 3 + 3 = 14 of 144 entries and 10 + 10 = 20 of 100: 0.25 * 244 = 61 entries,
    # eps = 61 / 34, so 25.1 and 35.9 of them
    model = nn.Sequential(nn.Conv2d(4, 4, 3), nn.Linear(10, 10))
    assert pruned(model, densities.erk(model, 0.25)) == [25, 36]


def test_erk_makes_dense_what_the_rule_overfills_and_solves_again():
    # shares 4, 3 and 200: 0.3 * 10007 = 3002.1. With eps = 3002.1 / 207 the first two overflow.
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(1, 3), nn.Linear(100, 100))
    assert pruned(model, densities.erk(model, 0.3)) == [4, 3, 2995]


def resnet20_weights() -> nn.Module:
    """The weights of CIFAR's ResNet-20 with projection shortcuts, without what joins them."""
    shapes = [(16, 3, 3, 3)] + [(16, 16, 3, 3)] * 6
    for width in (32, 64):
        shapes += [(width, width // 2, 3, 3), (width, width // 2, 1, 1)]
        shapes += [(width, width, 3, 3)] * 5
    return layers([*shapes, (10, 64)])


def cifar_resnet18() -> nn.Module:
    """The ResNet-18 of CIFAR-100: a 3x3 stem and 100 classes."""
    model = torchvision.models.resnet18(num_classes=100)
    model.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    return model


@pytest.mark.parametrize(
    ("build", "entries", "level", "dense"),
    [(resnet20_weights, 270_896, 1342, 3), (cifar_resnet18, 11_210_432, 67_669, 8)],
    ids=["ResNet-20", "ResNet-18"],
)
def test_balanced_residual_networks_have_the_known_level(build, entries, level, dense):
    with torch.device("meta"):
        model = build()
    sizes = {name: target.shape.numel() for name, target in pol.find_targets(model).items()}
    wanted = densities.balanced(model, 0.1)
    counts = {name: round(wanted[name] * size) for name, size in sizes.items()}
    assert sum(sizes.values()) == entries
    assert sum(counts.values()) == round(0.1 * entries)
    full = {name for name in sizes if counts[name] == sizes[name]}
    assert len(full) == dense
    assert {counts[name] for name in sizes if name not in full} == {level, level + 1}


@pytest.mark.parametrize(
    ("density", "erk", "uniform"), [(0.2, 0.42, 0.23), (0.1, 0.24, 0.13), (0.05, 0.12, 0.08)]
)
def test_resnet50_costs_what_rigls_authors_report(density, erk, uniform):
    """Their published inference FLOPs, relative to dense, of ERK and of uniform densities."""
    with torch.device("meta"):
        model, image = torchvision.models.resnet50().eval(), torch.empty(1, 3, 224, 224)
    cost: dict[str, int] = {}
    for name, module in model.named_modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):

            def count(module: nn.Module, _: object, out: torch.Tensor, name: str = name) -> None:
                cost[f"{name}.weight"] = out.numel() * module.weight[0].numel()

            module.register_forward_hook(count)
    model(image)

    def relative(wanted: dict[str, float]) -> float:
        return sum(cost[name] * each for name, each in wanted.items()) / sum(cost.values())

    assert relative(densities.erk(model, density)) == pytest.approx(erk, abs=0.01)
    first_dense = densities.uniform(model, density, dense_first=True)
    assert relative(first_dense) == pytest.approx(uniform, abs=0.01)


@each_rule
def test_a_depthwise_convolution_and_attention_go_by_the_shapes_they_store(rule):
    model = nn.Sequential(nn.Conv2d(8, 8, 3, groups=8), nn.Linear(8, 30))
    wanted = rule(model, 0.5)
    counts = [wanted["0.weight"] * 72, wanted["1.weight"] * 240]
    expected = {
        "uniform": [36, 120],  # of 72 and 240
        "erk": [72, 84],  # shares 8 + 1 + 3 + 3 = 15 and 38: 44 and 112 of 156
        "balanced": [72, 84],
    }
    expected["erk"] = [44, 112]
    assert [round(each, 9) for each in counts] == expected[rule.__name__]


@each_rule
@pytest.mark.parametrize(("density", "each"), [(0, 0.0), (1, 1.0)])
def test_nothing_and_everything(rule, density, each):
    assert set(rule(rows([3, 9, 27]), density).values()) == {each}


@each_rule
@pytest.mark.filterwarnings("ignore:Initializing zero-element")
def test_an_empty_weight_takes_no_part(rule):
    model = nn.Sequential(nn.Linear(0, 3), nn.Linear(10, 2, bias=False))
    assert pruned(model, rule(model, 0.4)) == [0, 8]


@each_rule
def test_masked_weights_are_the_default_and_are_counted_whole(rule):
    model = pol.mask_weights(rows([10, 20, 30]), exclude="1")
    pol.imp_prune(model, density=0.5)
    assert list(rule(model, 0.1)) == ["0.weight", "2.weight"]
    assert rule(model, 0.1) == rule(rows([10, 20, 30]), 0.1, exclude="1")
    assert sum(pruned(model, rule(model, 0.1))) == 4


@each_rule
def test_targets_and_exclude_choose_the_weights(rule):
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Linear(4, 4), nn.Linear(4, 2))
    assert list(rule(model, 0.5, targets=nn.Linear)) == ["1.weight", "2.weight"]
    assert list(rule(model, 0.5, exclude="2")) == ["0.weight", "1.weight"]
    masked = pol.mask_weights(model, targets=nn.Linear)
    assert list(rule(masked, 0.5, exclude="2")) == ["1.weight"]
    assert list(rule(masked, 0.5, targets="0")) == ["0.weight"]


def test_a_plain_model_is_masked_where_the_densities_say():
    model = rows([10, 20, 30])
    pol.prune(
        model,
        pol.scores.random,
        densities=densities.balanced(model, 0.1, exclude="0"),
        generator=torch.Generator().manual_seed(0),
    )
    assert list(pol.masks(model)) == ["1.weight", "2.weight"]


def test_a_tied_weight_is_counted_once():
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    assert pruned(model, densities.balanced(model, 0.5)) == [8, 8]


@each_rule
def test_computing_densities_changes_nothing(rule):
    model = rows([4, 5])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    rule(model, 0.5)
    assert list(model.state_dict()) == list(before)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@each_rule
@pytest.mark.parametrize(
    ("model", "given", "error", "parts"),
    [
        (rows([4]), {"density": 1.5}, ValueError, ["density=1.5", "[0, 1]"]),
        (rows([4]), {"density": math.nan}, ValueError, ["density=nan", "[0, 1]"]),
        (rows([4]), {"density": "0.1"}, TypeError, ["density='0.1'", "number"]),
        (nn.ReLU(), {"density": 0.1}, ValueError, ["ReLU", "no prunable weights"]),
        (rows([4]), {"density": 0.1, "targets": "7"}, ValueError, ["targets='7'"]),
    ],
    ids=["above one", "NaN", "text", "nothing to prune", "unknown target"],
)
def test_what_cannot_be_is_refused_by_name(rule, model, given, error, parts):
    with pytest.raises(error) as raised:
        rule(model, **given)
    assert [part for part in parts if part not in str(raised.value)] == []


def test_the_power_has_to_be_finite():
    with pytest.raises(ValueError, match="power=inf"):
        densities.erk(rows([4]), 0.5, math.inf)


@pytest.mark.parametrize("power", [-300.0, 300.0])
def test_no_power_is_too_large(power):
    model = layers([(5, 5), (50, 50), (3, 7)])
    counts = pruned(model, densities.erk(model, 0.3, power))
    assert sum(counts) == round(0.3 * 2546)
