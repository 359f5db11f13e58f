"""Equal scores in a model: structured masks by index, none by draw, and a line in the report."""

import copy
import math

import pytest
import torch
from torch import Tensor, nn

import polarity as pol
from polarity.selection.top_k import keep_top_by_sorting
from tests.forms import FORMS, Form
from tests.models import KINDS, WIDE, Kind, generator, seeded

WITHIN = 5  # deviations that a count may be away from its mean


def net() -> nn.Sequential:
    """Three layers; the first one's weight is 100 x 100."""
    return seeded(
        nn.Sequential(
            nn.Linear(100, 100), nn.ReLU(), nn.Linear(100, 100), nn.ReLU(), nn.Linear(100, 50)
        )
    )


def changed_signs() -> tuple[nn.Sequential, pol.scores.Score]:
    """A trained network of which about a quarter of the signs changed, and the score that asks."""
    model = net()
    start = pol.RewindPoint.capture(model)
    draw = generator(1)
    with torch.no_grad():
        for target in pol.find_targets(model).values():
            weight = target.stored[0]
            weight.add_(torch.randn(weight.shape, generator=draw) * weight.std())
    return model, pol.scores.large_final_diff_sign(start)


def signed_constants() -> nn.Module:
    model = pol.mask_weights(net())
    pol.reinit_signs(model, init=pol.RewindPoint.capture(model))
    return model


def all_equal(*modules: nn.Module) -> nn.Module:
    model = nn.Sequential(*modules)
    for parameter in model.parameters():
        nn.init.constant_(parameter, 0.5)
    return model


def densities(model: nn.Module) -> list[float]:
    return [float(mask.float().mean()) for mask in pol.masks(model).values()]


def coarse(name: str, weight: Tensor) -> Tensor:
    """A score with a handful of values, ties in every layer, and zeros of both signs."""
    return (weight * 2).round() / 2


def drawn_by_the_rule(
    model: nn.Module, score: pol.scores.Score, keep: int, seed: int
) -> dict[str, Tensor]:
    found = pol.find_targets(model)
    scores = {name: score(name, target.weight.detach()) for name, target in found.items()}
    live = {name: target.live for name, target in found.items()}
    return keep_top_by_sorting(scores, keep, live, ties="random", generator=generator(seed))


def same(masks: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(mask, other[name]) for name, mask in masks.items())


def test_changed_signs_by_index_keep_whole_first_rows_and_by_draw_rows_of_binomial_density():
    """FAULTS' own example: three quarters of the scores are equal, zero."""
    rows = {}
    for ties in ("index", "random"):
        model, score = changed_signs()
        positive = score("0.weight", model[0].weight.detach()) > 0
        pol.imp_prune(
            model, density=0.5, scope="layer", score=score, ties=ties, generator=generator()
        )
        mask = pol.masks(model)["0.weight"]
        assert mask[positive].all()
        rows[ties] = (mask & ~positive).sum(1) / (~positive).sum(1), (~positive).sum(1)
    shares, _ = rows["index"]
    assert (shares[:30] == 1).all()
    assert (shares[40:] == 0).all()
    shares, tied = rows["random"]
    share = (5000 - int(positive.sum())) / int((~positive).sum())
    assert ((shares - share).abs() < WITHIN * (share * (1 - share) / tied).sqrt()).all()


def test_after_signed_constants_pruning_by_draw_empties_no_rows():
    emptied = {}
    for ties in ("index", "random"):
        model = signed_constants()
        report = pol.imp_prune(model, 0.5, scope="layer", ties=ties, generator=generator())
        emptied[ties] = [int((mask.sum(1) == 0).sum()) for mask in pol.masks(model).values()]
        assert [layer.density for layer in report] == [0.5] * 3
        rows = torch.cat([mask.sum(1) for mask in pol.masks(model).values()])
    assert emptied == {"index": [50, 50, 25], "random": [0, 0, 0]}
    assert ((rows - 50).abs() < WITHIN * math.sqrt(100 / 4)).all()


@pytest.mark.parametrize("tied", ["changed signs", "all equal"])
def test_global_scope_by_draw_does_not_strip_later_layers(tied):
    """Each layer's density is within five binomial deviations of one half."""
    at_density = {}
    for ties in ("index", "random"):
        model, score = changed_signs()
        if tied == "all equal":
            model, score = all_equal(*net()), pol.scores.magnitude
        pol.imp_prune(model, density=0.5, score=score, ties=ties, generator=generator())
        at_density[ties] = densities(model)
    assert at_density["index"][0] > 0.85
    assert at_density["index"][-1] < 0.3
    for density, size in zip(at_density["random"], (10_000, 10_000, 5000), strict=True):
        assert abs(density - 0.5) < WITHIN * math.sqrt(0.25 / size)


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
@pytest.mark.parametrize("kind", [*KINDS, WIDE], ids=lambda kind: kind.name)
def test_every_kind_and_form_of_weight_is_drawn_by_the_rule(kind: Kind, form: Form):
    model = form.attach(seeded(kind.build()))
    total = sum(target.shape.numel() for target in pol.find_targets(model).values())
    expected = drawn_by_the_rule(model, coarse, round(0.3 * total), seed=4)
    pol.prune(model, coarse, density=0.3, ties="random", generator=generator(4))
    assert same(pol.masks(model), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_dtype_and_layout_do_not_change_what_is_drawn(dtype, layout):
    model = all_equal(nn.Conv2d(8, 16, 3), nn.Conv2d(16, 8, 3)).to(dtype)
    model = model.to(memory_format=layout)
    pol.imp_prune(model, 0.4, ties="random", generator=generator(2))
    plain = all_equal(nn.Conv2d(8, 16, 3), nn.Conv2d(16, 8, 3))
    pol.imp_prune(plain, 0.4, ties="random", generator=generator(2))
    assert same(pol.masks(model), pol.masks(plain))


def test_another_name_or_seed_draws_other_survivors():
    model = all_equal(nn.Linear(20, 20), nn.Linear(20, 20))
    pol.imp_prune(model, 0.5, scope="layer", ties="random", generator=generator(0))
    first, second = pol.masks(model).values()
    assert not torch.equal(first, second)
    other = all_equal(nn.Linear(20, 20), nn.Linear(20, 20))
    pol.imp_prune(other, 0.5, scope="layer", ties="random", generator=generator(1))
    assert not torch.equal(first, pol.masks(other)["0.weight"])


def test_densities_scores_by_name_and_lrr_draw_by_the_same_rule():
    counts = {"0.weight": 0.25, "1.weight": 0.5}
    zeros = {name: torch.zeros(20, 20) for name in counts}
    live = {name: torch.ones(20, 20).bool() for name in counts}
    expected = {
        name: keep_top_by_sorting(
            {name: zeros[name]},
            round(density * 400),
            {name: live[name]},
            ties="random",
            generator=generator(),
        )[name]
        for name, density in counts.items()
    }
    for scores in (zeros, lambda name, weight: torch.zeros_like(weight), pol.scores.magnitude):
        model = all_equal(nn.Linear(20, 20), nn.Linear(20, 20))
        pol.prune(model, scores, densities=counts, ties="random", generator=generator())
        assert same(pol.masks(model), expected)
    model = all_equal(nn.Linear(20, 20), nn.Linear(20, 20))
    start = pol.RewindPoint.capture(model)
    pol.lrr_step(model, density=0.5, rewind=start, ties="random", generator=generator())
    together = keep_top_by_sorting(zeros, 400, live, ties="random", generator=generator())
    assert same(pol.masks(model), together)


@pytest.mark.parametrize("amount", [0, 0.1, 0.37, 0.9, 1])
@pytest.mark.parametrize("scope", ["global", "layer"])
def test_counts_stay_exact_round_after_round(amount, scope):
    model = all_equal(nn.Linear(21, 10), nn.Linear(10, 7))
    left = {"0.weight": 210, "1.weight": 70}
    for _ in range(3):
        report = pol.imp_prune(model, amount, scope=scope, ties="random", generator=generator())
        if scope == "layer":
            left = {name: count - round(amount * count) for name, count in left.items()}
            assert {layer.name: layer.after for layer in report} == left
        masks = pol.masks(model)
        assert [layer.after for layer in report] == [int(mask.sum()) for mask in masks.values()]
        assert report.survivors == report.before - round(amount * report.before) or scope == "layer"


def test_by_index_nothing_is_drawn_and_by_draw_one_seed():
    source = generator()
    before = source.get_state()
    pol.imp_prune(net(), 0.5, generator=source)
    assert torch.equal(source.get_state(), before)
    for model, scope in ((net(), "global"), (signed_constants(), "layer")):
        source = generator()
        pol.imp_prune(model, 0.5, scope=scope, ties="random", generator=source)
        once = generator()
        torch.randint(2**62, (), generator=once)
        assert torch.equal(source.get_state(), once.get_state())


def test_a_score_that_draws_draws_before_the_ties():
    def noise_then_equal(name: str, weight: Tensor, generator: torch.Generator) -> Tensor:
        torch.rand(3, generator=generator)
        return torch.zeros_like(weight)

    model = all_equal(nn.Linear(20, 20))
    pol.prune(model, noise_then_equal, density=0.5, ties="random", generator=generator())
    after = generator()
    torch.rand(3, generator=after)
    other = all_equal(nn.Linear(20, 20))
    pol.imp_prune(other, 0.5, ties="random", generator=after)
    assert same(pol.masks(model), pol.masks(other))


def test_without_a_generator_the_global_one_of_the_cpu_is_the_source():
    masks = []
    with torch.random.fork_rng(devices=[]):
        for _ in range(2):
            model = all_equal(nn.Linear(20, 20))
            torch.manual_seed(7)
            pol.imp_prune(model, 0.5, ties="random")
            masks.append(pol.masks(model))
    assert same(*masks)
    model = all_equal(nn.Linear(20, 20))
    pol.imp_prune(model, 0.5, ties="random", generator=generator(7))
    assert same(pol.masks(model), masks[0])


def test_a_refused_call_leaves_model_and_generator_as_they_were():
    model = all_equal(nn.Linear(4, 4))
    before, source = copy.deepcopy(model.state_dict()), generator()
    with torch.no_grad():
        model[0].weight[3, 3] = before["0.weight"][3, 3] = math.nan
    with pytest.raises(ValueError, match="NaN"):
        pol.imp_prune(model, 0.5, ties="random", generator=source)
    foreign = torch.optim.SGD(nn.Linear(2, 2).parameters())
    with torch.no_grad():
        model[0].weight[3, 3] = before["0.weight"][3, 3] = 0.5
    with pytest.raises(ValueError, match="optimizer"):
        pol.imp_prune(model, 0.5, ties="random", generator=source, optimizer=foreign)
    assert torch.equal(source.get_state(), generator().get_state())
    assert list(model.state_dict()) == list(before)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("bad", ["first", None, 1], ids=repr)
def test_another_word_for_ties_is_refused_by_every_call_before_anything_changes(bad):
    model = all_equal(nn.Linear(4, 4))
    start = pol.RewindPoint.capture(model)
    calls = [
        lambda: pol.imp_prune(model, 0.5, ties=bad),
        lambda: pol.imp_prune(model, 0.5, rewind=start, ties=bad),
        lambda: pol.lrr_step(model, 0.5, rewind=start, ties=bad),
        lambda: pol.prune(model, pol.scores.magnitude, density=0.5, ties=bad),
        lambda: pol.prune(model, pol.scores.magnitude, densities={"0.weight": 0.5}, ties=bad),
        lambda: pol.scores.synflow(model, torch.ones(1, 4), density=0.5, ties=bad),
        lambda: pol.Delta(0.5, ties=bad),
    ]
    state = torch.get_rng_state()
    for call in calls:
        with pytest.raises(ValueError, match=rf"^ties={bad!r}.*, expected 'index' or 'random'"):
            call()
    assert torch.equal(torch.get_rng_state(), state)
    assert pol.find_targets(model)["0.weight"].is_plain


def ladder(distinct: int, tied: int) -> nn.Sequential:
    """A layer of ``distinct`` large weights, no two equal, and ``tied`` small ones, all equal."""
    layer = nn.Linear(distinct + tied, 1, bias=False)
    with torch.no_grad():
        layer.weight.fill_(0.5)
        layer.weight[0, :distinct] = torch.arange(1, distinct + 1)
    return nn.Sequential(layer)


def test_the_report_says_how_many_survivors_ties_decided_and_what_to_do():
    by_index = pol.imp_prune(ladder(588, 612), density=1000 / 1200)
    assert by_index.notes == (
        "ties: 412 of 1,000 survivors were chosen among equal scores by index: "
        'ties="random" draws them',
    )
    drawn = pol.imp_prune(ladder(588, 612), density=1000 / 1200, ties="random")
    assert drawn.notes == ("ties: 412 of 1,000 survivors were chosen among equal scores at random",)
    assert str(drawn).splitlines()[-2] == drawn.notes[0]


@pytest.mark.parametrize("ties", ["index", "random"])
def test_the_report_is_silent_where_ties_decided_one_percent_or_less(ties):
    def notes(distinct: int, tied: int, keep: int) -> tuple[str, ...]:
        density = keep / (distinct + tied)
        return pol.imp_prune(ladder(distinct, tied), density=density, ties=ties).notes

    assert notes(990, 500, keep=1000) == ()
    assert notes(989, 500, keep=1000)[0].startswith("ties: 11 of 1,000")
    # All equal ones stay, or all go: no tie decides.
    assert notes(500, 500, keep=1000) == ()
    assert notes(500, 500, keep=500) == ()
    assert notes(500, 500, keep=0) == ()


def test_the_report_adds_up_the_ties_of_layers():
    model = nn.Sequential(*ladder(50, 50), *ladder(60, 40), *ladder(100, 0))
    report = pol.imp_prune(model, density=0.6, scope="layer")
    # The first layer keeps 10 of 50 equal ones, the second none of 40, the third has none.
    assert report.notes[0].startswith("ties: 10 of 180 ")


def test_rewinding_keeps_the_note_on_ties():
    model = all_equal(nn.Linear(10, 10))
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    start = pol.RewindPoint.capture(model, sgd)
    for call in (pol.imp_prune, pol.lrr_step):
        notes = call(model, 0.5, rewind=start, optimizer=sgd).notes
        assert notes[0].startswith("ties: ")
        assert notes[-1] == "rewound: optimizer"


@pytest.mark.gpu
def test_a_gpu_draws_the_same_survivors():
    model, score = changed_signs()
    other = copy.deepcopy(model).cuda()
    for each in (model, other):
        pol.imp_prune(each, 0.5, score=score, ties="random", generator=generator())
    on_gpu = {name: mask.cpu() for name, mask in pol.masks(other).items()}
    assert same(pol.masks(model), on_gpu)
