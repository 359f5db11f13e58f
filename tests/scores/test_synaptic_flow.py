"""SynFlow against a hand-written loop, and where it may and may not be asked."""

import copy
import warnings

import pytest
import torch
import torchvision
from torch import Tensor, nn

import polarity as pol
from polarity._bits.random import seed_from, words_in
from polarity.scores import synflow
from tests.helpers import everything_of
from tests.models import conv_net, mlp, noisy


def synflow_by_hand(
    model: nn.Module, ones: Tensor, density: float, steps: int, seed: int | None = None
) -> list[list[int]]:
    """Tanaka et al.'s algorithm 1 on a copy: which entries live after each step, numbered.

    With a seed equal saliencies are ranked by the random words of the entries.
    """
    model = copy.deepcopy(model).double().eval()
    for value in model.state_dict().values():
        if value.is_floating_point():
            value.abs_()
    weights = [p for p in model.parameters() if p.dim() > 1]
    total = sum(w.numel() for w in weights)
    alive, history = set(range(total)), []
    keys = [0] * total
    if seed is not None:
        named = [(name, p.numel()) for name, p in model.named_parameters() if p.dim() > 1]
        keys = [int(word) >> 2 for each in named for word in words_in(seed, each[0], 0, each[1])]
    for step in range(1, steps + 1):
        model.zero_grad()
        model(ones.double()).sum().backward()
        flat = torch.cat([(w.detach() * w.grad).abs().flatten() for w in weights]).tolist()
        count = round(density ** (step / steps) * total)
        alive = set(sorted(alive, key=lambda i: (-flat[i], -keys[i], i))[:count])
        history.append(sorted(alive))
        mask = torch.zeros(total)
        mask[history[-1]] = 1
        with torch.no_grad():
            for w, part in zip(weights, mask.split([w.numel() for w in weights]), strict=True):
                w.mul_(part.view_as(w))
    return history


def survivors(model: nn.Module) -> list[int]:
    flat = torch.cat([mask.flatten() for mask in pol.masks(model).values()])
    return flat.nonzero().flatten().tolist()


@pytest.mark.parametrize(
    ("make", "ones"),
    [
        (lambda: mlp(8, 20, 20, 5).double(), torch.ones(1, 8)),
        (conv_net, torch.ones(1, 2, 6, 6)),
        (lambda: conv_net().float(), torch.ones(1, 2, 6, 6)),
    ],
    ids=["mlp", "conv", "float32"],
)
@pytest.mark.parametrize("density", [0.5, 0.1, 0.03])
def test_synflow_gives_the_mask_of_a_hundred_steps(make, ones, density):
    model = make()
    scores = synflow(model, torch.rand(ones.shape), density=density)
    history = synflow_by_hand(make(), ones, density, steps=100)
    pol.prune(model, scores, density=density)
    assert survivors(model) == history[-1]


def test_synflow_ranks_by_the_step_of_removal():
    model, steps, density = conv_net(), 10, 0.05
    scores = synflow(model, torch.ones(1, 2, 6, 6), density=density, steps=steps)
    history = synflow_by_hand(model, torch.ones(1, 2, 6, 6), density, steps)
    flat = torch.cat([each.flatten() for each in scores.values()])
    assert flat.unique().numel() == flat.numel(), "every entry has a place of its own"
    assert flat.min() > 0
    assert flat.max() == 1
    for step, alive in enumerate(history, 1):
        twin = conv_net()
        pol.prune(twin, scores, density=density ** (step / steps))
        assert survivors(twin) == alive


def test_synflow_draws_among_equal_saliencies_at_every_step():
    def constant() -> nn.Module:
        model = mlp(8, 16, 16, 4).double()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.fill_(0.5 if parameter.dim() > 1 else 0.0)
        return model

    def drawn() -> torch.Generator:
        return torch.Generator().manual_seed(3)

    model, ones, density, steps = constant(), torch.ones(1, 8), 0.1, 5
    scores = synflow(model, ones, density=density, steps=steps, ties="random", generator=drawn())
    history = synflow_by_hand(model, ones, density, steps, seed=seed_from(drawn()))
    for step, alive in enumerate(history, 1):
        twin = constant()
        pol.prune(twin, scores, density=density ** (step / steps))
        assert survivors(twin) == alive
    once = synflow(model, ones, density=density, steps=1, ties="random", generator=drawn())
    for between in (0.15, 0.5, 0.9):  # the order of removal within a step, and of what is left
        twin = constant()
        pol.prune(twin, once, density=between)
        assert survivors(twin) == synflow_by_hand(model, ones, between, 1, seed_from(drawn()))[0]
    by_index = synflow(model, ones, density=density, steps=steps)
    assert any(not torch.equal(scores[name], by_index[name]) for name in scores)


def test_synflow_draws_one_seed_for_ties_and_none_by_index_or_if_refused():
    source, once = torch.Generator().manual_seed(0), torch.Generator().manual_seed(0)
    before, model = source.get_state(), mlp(8, 16, 4)
    synflow(model, torch.ones(1, 8), density=0.5, steps=3, generator=source)
    dead = nn.Sequential(nn.Linear(8, 2), nn.Linear(2, 1))
    nn.init.zeros_(dead[1].weight)
    with pytest.raises(ValueError, match="every saliency is zero"):
        synflow(dead, torch.ones(1, 8), density=0.5, ties="random", generator=source)
    assert torch.equal(source.get_state(), before)
    synflow(model, torch.ones(1, 8), density=0.5, steps=3, ties="random", generator=source)
    seed_from(once)
    assert torch.equal(source.get_state(), once.get_state())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        synflow(model, torch.ones(1, 8), density=0.5, steps=3, ties="random")
        assert torch.equal(torch.get_rng_state(), once.get_state())


def test_one_step_of_synflow_is_not_a_hundred():
    model, ones = mlp(8, 20, 20, 5).double(), torch.ones(1, 8)
    masks = []
    for steps in (1, 100):
        twin = copy.deepcopy(model)
        pol.prune(twin, synflow(twin, ones, density=0.05, steps=steps), density=0.05)
        assert survivors(twin) == synflow_by_hand(model, ones, 0.05, steps)[-1]
        masks.append(survivors(twin))
    assert masks[0] != masks[1]


def test_synflow_keeps_every_layer_where_magnitude_loses_one():
    def narrow() -> nn.Module:
        model = mlp(10, 100, 100, 100, 10).double()
        with torch.no_grad():
            model[2].weight.mul_(0.01)
            for layer in model[::2]:
                layer.bias.zero_()
        return model

    counts = {}
    for name, scores in {
        "magnitude": {n: p.abs() for n, p in narrow().named_parameters() if p.dim() > 1},
        "synflow": synflow(narrow(), torch.ones(1, 10), density=0.005),
    }.items():
        model = narrow()
        pol.prune(model, scores, density=0.005)
        counts[name] = [int(mask.sum()) for mask in pol.masks(model).values()]
    assert min(counts["magnitude"]) == 0
    assert min(counts["synflow"]) > 0
    assert sum(counts["synflow"]) == sum(counts["magnitude"]) == round(0.005 * 22_000)


def test_synflow_goes_on_from_the_masks_that_are_there():
    model = mlp(8, 20, 20, 5).double()
    pol.imp_prune(model, density=0.5)
    before = set(survivors(model))
    scores = synflow(model, torch.ones(1, 8), density=0.1)
    for name, mask in pol.masks(model).items():
        assert scores[name][~mask].count_nonzero() == 0
        assert (scores[name][mask] > 0.5).all()
    plain = pol.merge(copy.deepcopy(model))
    pol.prune(model, scores, density=0.1)
    assert set(survivors(model)) <= before
    assert survivors(model) == synflow_by_hand(plain, torch.ones(1, 8), 0.1, 100)[-1]


def test_synflow_needs_more_than_float32_in_a_deep_network():
    deep = mlp(*[50] * 30)
    for layer in deep[::2]:
        layer.weight.data.mul_(10)
    inputs = torch.ones(1, 50)
    with pytest.raises(ValueError, match=r"range of torch\.float32.*dtype"):
        synflow(deep, inputs, density=0.1, steps=3, dtype=None)
    pol.prune(deep, synflow(deep, inputs, density=0.1, steps=3), density=0.1)
    assert pol.density(deep) == 0.1


def test_synflow_can_compute_in_the_models_own_dtype():
    model = mlp(8, 20, 5)
    same = synflow(model, torch.ones(1, 8), density=0.1, dtype=None)
    other = synflow(model, torch.ones(1, 8), density=0.1, dtype=torch.float32)
    assert {each.dtype for each in same.values()} == {torch.float64}
    assert [name for name in same if not torch.equal(same[name], other[name])] == []


@pytest.mark.parametrize(
    ("given", "error", "parts"),
    [
        ({"density": 0}, ValueError, ["density=0", "(0, 1]"]),
        ({"density": 1.5}, ValueError, ["density=1.5"]),
        ({"density": 0.5, "steps": 0}, ValueError, ["steps=0", "at least 1"]),
        ({"density": 0.5, "steps": 1.5}, TypeError, ["steps=1.5", "int"]),
        ({"density": 0.5, "dtype": torch.int32}, ValueError, ["dtype=torch.int32", "floating"]),
        ({"density": 0.9}, ValueError, ["density=0.9", "live"]),
    ],
)
def test_synflow_refuses_what_cannot_be_and_changes_nothing(given, error, parts):
    model = pol.mask_weights(noisy())
    pol.imp_prune(model, density=0.6)
    before = everything_of(model)
    with pytest.raises(error) as raised:
        synflow(model, torch.ones(1, 6), **given)
    assert [part for part in parts if part not in str(raised.value)] == []
    assert everything_of(model) == before


def test_synflow_refuses_a_network_through_which_nothing_flows():
    dead = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
    nn.init.zeros_(dead[1].weight)
    with pytest.raises(ValueError, match=r"every saliency is zero.* where '1\.weight' is zero"):
        synflow(dead, torch.ones(1, 3), density=0.5)


class Residual(nn.Module):
    """``x + gain * second(first(x))``, with a gain of zero in a norm, a scale or a layer."""

    def __init__(self, gain: str, width: int = 6) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(width, width), nn.Linear(width, width)
        self.norm = nn.BatchNorm1d(width) if gain == "norm" else nn.Identity()
        self.scale = nn.Parameter(torch.ones(width if gain == "scale" else ()))
        for each in (self.first, self.second):
            nn.init.zeros_(each.bias)
        self.gain = {"norm": "norm.weight", "layer": "second.weight"}.get(gain, "scale")
        nn.init.zeros_(self.get_parameter(self.gain))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.scale * self.norm(self.second(self.first(x).relu()))


def warned(model: nn.Module, inputs: Tensor, **given: object) -> str:
    """Return what synflow warns of, or nothing."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        synflow(model, inputs, density=0.5, steps=2, **given)
    assert len(caught) <= 1
    assert all(each.filename == __file__ for each in caught)
    return str(caught[0].message) if caught else ""


@pytest.mark.parametrize("gain", ["norm", "scale", "layer", "number"])
def test_synflow_names_the_branches_that_a_gain_of_zero_closes(gain):
    model = nn.Sequential(nn.Linear(6, 6), Residual(gain), nn.Linear(6, 3), nn.Linear(3, 3))
    nn.init.zeros_(model[3].bias)
    before = everything_of(model)
    text = warned(model, torch.ones(1, 6))
    assert everything_of(model) == before
    scored, gains = text.split("nothing flows")
    assert [name for name, _ in model.named_parameters() if f"'{name}'" in scored] == [
        "1.first.weight",
        "1.second.weight",
    ]
    assert [name for name, _ in model.named_parameters() if f"'{name}'" in gains] == [
        f"1.{model[1].gain}"
    ]
    assert "ones_" in gains
    assert "exclude=" in gains


def test_every_gain_of_zero_in_a_row_is_named_and_only_branches_behind_them():
    class Unused(Residual):
        def __init__(self) -> None:
            super().__init__("norm")
            self.unused = nn.Linear(6, 6)
            self.nothing = nn.Parameter(torch.zeros(3))
            nn.init.zeros_(self.scale)

    text = warned(nn.Sequential(nn.Linear(6, 6), Unused()), torch.ones(1, 6))
    assert "all of '1.first.weight', '1.second.weight' as zero" in text
    assert "where '1.scale', '1.norm.weight' are zero" in text


def test_the_remedies_of_synflows_warning_remedy_it():
    model = nn.Sequential(nn.Linear(6, 6), Residual("norm"), nn.Linear(6, 3))
    closed = ("1.first.weight", "1.second.weight")
    assert warned(model, torch.ones(1, 6), exclude=closed) == ""
    twin = copy.deepcopy(model)
    nn.init.ones_(twin[1].norm.weight)
    assert warned(twin, torch.ones(1, 6)) == ""


@pytest.mark.filterwarnings("ignore:synflow scores all of")
def test_what_synflow_warns_of_is_pruned_first():
    model = nn.Sequential(nn.Linear(6, 6), Residual("norm"), nn.Linear(6, 3))
    pol.prune(model, synflow(model, torch.ones(1, 6), density=0.5, steps=2), density=0.5)
    kept = {name: int(mask.sum()) for name, mask in pol.masks(model).items()}
    assert kept == {"0.weight": 36, "1.first.weight": 9, "1.second.weight": 0, "2.weight": 18}


def test_synflow_warns_of_torchvisions_zero_init_residual():
    block = torchvision.models.resnet.BasicBlock
    model = torchvision.models.ResNet(block, [1, 1, 1, 1], zero_init_residual=True)
    names = [f"layer{k}.0.conv{i}.weight" for k in range(1, 5) for i in (1, 2)]
    text = warned(model, torch.ones(1, 3, 32, 32))
    assert f"all of {', '.join(map(repr, names))} as zero" in text
    assert "'layer4.0.bn2.weight'" in text
    assert "downsample" not in text


def test_synflow_does_not_warn_where_no_gain_is_zero():
    assert warned(conv_net(), torch.ones(1, 2, 6, 6)) == ""
    model = mlp(8, 20, 5)
    for layer in model[::2]:
        nn.init.zeros_(layer.bias)
    assert warned(model, torch.ones(1, 8)) == ""
    half = nn.Sequential(nn.Linear(6, 6), Residual("norm"))
    half[1].norm.weight.data[0] = 1.0
    assert warned(half, torch.ones(1, 6)) == ""
