"""Pruning keeps exactly what was asked for: counts, scopes, ties, and agreement with PyTorch."""

import itertools

import pytest
import torch
import torch.nn.utils.prune as torch_prune
from torch import Tensor, nn

import polarity as pol


def row(*values: float) -> nn.Linear:
    layer = nn.Linear(len(values), 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(values))
    return layer


def drawn(model: nn.Module, generator: torch.Generator) -> nn.Module:
    for parameter in model.parameters():
        nn.init.normal_(parameter, generator=generator)
    return model


def alive(model: nn.Module) -> list[list[int]]:
    """Which flat indices live, weight by weight."""
    return [mask.flatten().nonzero().flatten().tolist() for mask in pol.masks(model).values()]


@pytest.fixture
def two_rows() -> nn.Sequential:
    """Eight weights, of which the larger ones are in the second layer."""
    return nn.Sequential(row(0.1, -0.4, 0.2, -0.3), row(5.0, -8.0, 7.0, -6.0))


@pytest.fixture
def fc() -> nn.Sequential:
    """The papers' network for MNIST, 266 200 weights."""
    net = nn.Sequential(nn.Linear(784, 300), nn.Linear(300, 100), nn.Linear(100, 10))
    return drawn(net, torch.Generator().manual_seed(0))


# Of 10 entries; halves go to the even count, as round() has it everywhere in Python.
@pytest.mark.parametrize(
    ("amount", "left"),
    [
        (0, 10),
        (0.04, 10),
        (0.05, 10),
        (0.06, 9),
        (0.15, 8),
        (0.25, 8),
        (0.35, 6),
        (0.95, 0),
        (1, 0),
    ],
)
def test_amount_prunes_that_fraction_of_the_survivors(amount, left):
    layer = row(*range(1, 11))
    report = pol.imp_prune(layer, amount)
    assert report.survivors == left == len(alive(layer)[0])
    assert alive(layer) == [list(range(10 - left, 10))]


@pytest.mark.parametrize(
    ("density", "left"),
    [(0, 0), (0.04, 0), (0.05, 0), (0.06, 1), (0.15, 2), (0.25, 2), (0.35, 4), (0.99, 10), (1, 10)],
)
def test_density_keeps_that_fraction_of_all_entries(density, left):
    layer = row(*range(1, 11))
    assert pol.imp_prune(layer, density=density).survivors == left
    assert alive(layer) == [list(range(10 - left, 10))]


def test_amounts_compound_and_densities_do_not():
    layer = row(*range(1, 101))
    assert [pol.imp_prune(layer, 0.5).survivors for _ in range(3)] == [50, 25, 13]
    layer = row(*range(1, 101))
    assert [pol.imp_prune(layer, density=0.5).survivors for _ in range(3)] == [50, 50, 50]


def test_a_fifth_is_pruned_if_nothing_is_said():
    assert pol.imp_prune(row(*range(1, 11))).survivors == 8


def test_the_papers_density_schedule_is_kept_to_the_entry(fc):
    survivors = [pol.imp_prune(fc, density=0.8**k).survivors for k in range(1, 11)]
    assert survivors == [round(0.8**k * 266_200) for k in range(1, 11)]
    assert sum(len(each) for each in alive(fc)) == 28_583
    assert pol.density(fc) == 28_583 / 266_200


def test_pruning_a_fifth_each_round_stays_within_one_entry_of_the_papers_schedule(fc):
    survivors = [pol.imp_prune(fc, 0.2).survivors for _ in range(10)]
    exact = itertools.accumulate(range(9), lambda n, _: n - round(0.2 * n), initial=212_960)
    assert survivors == list(exact)
    assert all(abs(n - 0.8**k * 266_200) <= 1 for k, n in enumerate(survivors, 1))


def test_global_scope_takes_the_smallest_wherever_they_are(two_rows):
    pol.imp_prune(two_rows, 0.5)
    assert alive(two_rows) == [[], [0, 1, 2, 3]]


def test_layer_scope_takes_the_same_fraction_of_each_layer(two_rows):
    pol.imp_prune(two_rows, 0.5, scope="layer")
    assert alive(two_rows) == [[1, 3], [1, 2]]
    pol.imp_prune(two_rows, density=0.25, scope="layer")
    assert alive(two_rows) == [[1], [1]]


def test_densities_say_it_for_each_layer(two_rows):
    scores = {name: p.abs() for name, p in two_rows.named_parameters()}
    report = pol.prune(two_rows, scores, densities={"0.weight": 0.75, "1.weight": 0.25})
    assert alive(two_rows) == [[1, 2, 3], [1]]
    assert report.survivors == 4


@pytest.mark.parametrize(
    ("scope", "kept"), [("global", [[0, 1, 2], [0]]), ("layer", [[0, 1], [0, 1]])]
)
def test_among_equal_weights_the_first_of_the_model_survive(scope, kept):
    model = nn.Sequential(row(1, -1, 1), row(-1, 1, -1, 1, 1))
    if scope == "layer":
        model = nn.Sequential(row(1, -1, 1, 1), row(-1, 1, -1, 1))
    pol.imp_prune(model, density=0.5, scope=scope)
    assert alive(model) == kept


def test_a_model_of_zeros_is_pruned_to_the_entry():
    model = nn.Sequential(row(0, -0.0, 0), row(0, 0))
    pol.imp_prune(model, density=0.4)
    assert alive(model) == [[0, 1], []]


def test_survivors_keep_their_values_bit_for_bit_and_the_rest_is_zero(two_rows):
    before = [layer.weight.detach().clone() for layer in two_rows]
    pol.imp_prune(two_rows, 0.5, scope="layer")
    for layer, old, mask in zip(two_rows, before, pol.masks(two_rows).values(), strict=True):
        stored = layer.parametrizations.weight.original
        assert torch.equal(layer.weight, stored)
        assert torch.equal(stored[mask], old[mask])
        assert stored[~mask].tolist() == [0, 0]


def test_what_was_pruned_stays_pruned(two_rows):
    seen = []
    for _ in range(3):
        pol.imp_prune(two_rows, 0.3)
        seen.append(torch.cat([mask.flatten() for mask in pol.masks(two_rows).values()]))
        with torch.no_grad():
            for layer in two_rows:
                layer.weight = torch.randn(1, 4, generator=torch.Generator().manual_seed(0))
    assert not (seen[1] & ~seen[0]).any()
    assert not (seen[2] & ~seen[1]).any()


def test_a_plain_model_is_masked_on_the_way_and_its_parameters_stay_the_same_objects():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Linear(3, 2))
    parameters = set(model.parameters())
    pol.imp_prune(model, 0.2)
    assert list(pol.masks(model)) == ["0.weight", "2.weight"]
    assert set(model.parameters()) == parameters


@pytest.mark.parametrize(
    "call",
    [
        lambda layer: pol.imp_prune(layer, 0.5),
        lambda layer: pol.imp_prune(layer, density=0.3),
        lambda layer: pol.prune(layer, {"weight": torch.ones(1, 10)}, amount=0.5),
        lambda layer: pol.imp_prune(layer, 0.5, score=lambda name, weight: -weight.abs()),
    ],
    ids=["amount", "density", "prune", "a score that likes zeros"],
)
def test_what_torch_pruned_stays_pruned_and_is_no_survivor(call):
    layer = row(*range(1, 11))
    torch_prune.l1_unstructured(layer, "weight", 4)
    report = call(layer)
    assert (report.before, report.survivors) == (6, 3)
    assert set(alive(layer)[0]) <= {4, 5, 6, 7, 8, 9}


def test_no_density_above_that_of_torchs_mask_can_be_asked_for():
    layer = row(*range(1, 11))
    torch_prune.l1_unstructured(layer, "weight", 4)
    with pytest.raises(ValueError, match=r"density=0\.8 .*\b8\b.*\b6 live"):
        pol.imp_prune(layer, density=0.8)


def test_prune_masks_only_what_the_scores_name(two_rows):
    pol.prune(two_rows, {"1.weight": torch.tensor([[4.0, 3, 2, 1]])}, amount=0.5)
    assert list(pol.masks(two_rows)) == ["1.weight"]
    assert alive(two_rows) == [[0, 1]]


def test_imp_prune_keeps_to_the_weights_that_were_masked(two_rows):
    pol.mask_weights(two_rows, exclude="1")
    report = pol.imp_prune(two_rows, 0.5)
    assert [layer.name for layer in report] == ["0.weight"]
    assert two_rows[1].weight.tolist() == [[5, -8, 7, -6]]


def test_the_scores_given_to_prune_decide_and_not_the_weights(two_rows):
    scores = {
        "0.weight": torch.tensor([[1.0, 2, 3, 4]]),
        "1.weight": torch.tensor([[-1.0, 0, 9, 1]]),
    }
    given = {name: score.clone() for name, score in scores.items()}
    pol.prune(two_rows, scores, density=0.5)
    assert alive(two_rows) == [[1, 2, 3], [2]]
    assert [name for name in scores if not torch.equal(scores[name], given[name])] == []


def test_the_order_of_the_scores_does_not_break_ties():
    ones = torch.ones(1, 2)
    masks = []
    for names in (("0.weight", "1.weight"), ("1.weight", "0.weight")):
        model = nn.Sequential(row(1, 2), row(3, 4))
        pol.prune(model, dict.fromkeys(names, ones), density=0.25)
        masks.append(alive(model))
    assert masks == [[[0], []], [[0], []]]


@pytest.mark.filterwarnings("ignore:Initializing zero-element")
def test_an_empty_layer_and_a_layer_of_one_weight_are_no_special_case():
    model = nn.Sequential(nn.Linear(0, 3), row(2.0))
    assert pol.imp_prune(model, 0.4).survivors == 1
    assert pol.imp_prune(model, 0.6, scope="layer").survivors == 0
    assert pol.density(model) == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_other_dtypes_are_pruned_by_their_own_values(dtype):
    model = nn.Sequential(row(1, 3, -2), row(-1, 4)).to(dtype)
    pol.imp_prune(model, density=0.6)
    assert alive(model) == [[1, 2], [1]]
    assert model[0].weight.dtype == dtype


def test_the_optimizers_memory_of_pruned_entries_is_zeroed_and_of_survivors_kept():
    layer = row(1, -2, 3, -4)
    adam = torch.optim.Adam(layer.parameters(), lr=0.01)
    layer(torch.ones(4)).square().sum().backward()
    adam.step()
    before = {key: value.clone() for key, value in adam.state[layer.weight].items()}
    pol.prune(layer, {"weight": layer.weight.abs()}, density=0.5, optimizer=adam)
    (after,) = adam.state.values()
    assert after["step"] == before["step"] == 1
    for key in ("exp_avg", "exp_avg_sq"):
        assert after[key][0, :2].tolist() == [0, 0]
        assert torch.equal(after[key][0, 2:], before[key][0, 2:])
        assert before[key].all()


def twins() -> tuple[nn.Sequential, nn.Sequential, Tensor, Tensor]:
    """Two equal networks, and data to train them on."""
    generator = torch.Generator().manual_seed(7)
    nets = [nn.Sequential(nn.Linear(9, 8), nn.Tanh(), nn.Linear(8, 5)) for _ in range(2)]
    nets[1].load_state_dict(drawn(nets[0], generator).state_dict())
    inputs, wanted = (torch.randn(20, n, generator=generator) for n in (9, 5))
    return nets[0], nets[1], inputs, wanted


def train(model: nn.Module, inputs: Tensor, wanted: Tensor) -> None:
    sgd = torch.optim.SGD(model.parameters(), lr=0.05)
    for _ in range(3):
        sgd.zero_grad()
        (model(inputs) - wanted).square().mean().backward()
        sgd.step()
    model(inputs)  # torch's pruning computes its weights in a hook before the forward pass


@pytest.mark.parametrize("amount", [0.2, 0.37])
@pytest.mark.parametrize("scope", ["global", "layer"])
def test_three_rounds_of_training_and_pruning_agree_with_torch(scope, amount):
    ours, theirs, inputs, wanted = twins()
    held = [(theirs[0], "weight"), (theirs[2], "weight")]
    for _ in range(3):
        train(ours, inputs, wanted)
        train(theirs, inputs, wanted)
        pol.imp_prune(ours, amount, scope=scope)
        if scope == "global":
            torch_prune.global_unstructured(held, torch_prune.L1Unstructured, amount=amount)
        else:
            [torch_prune.l1_unstructured(layer, "weight", amount) for layer, _ in held]
        for (layer, _), mask in zip(held, pol.masks(ours).values(), strict=True):
            magnitudes = layer.weight[mask].abs()
            assert magnitudes.unique().numel() == magnitudes.numel(), "a tie: no comparison"
            assert torch.equal(mask, layer.weight_mask.bool())
    assert torch.equal(ours(inputs), theirs(inputs))
