"""Which weights become compact: those whose layers are measured to gain, or that were named."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import polarity as pol
from tests.helpers import dense_wins, everything_of, plain_state, sparse_wins
from tests.models import Tied, mlp, seeded, x_of

W0, W2 = "0.weight", "2.weight"


def pruned(*widths: int, density: float = 0.2, signed: bool = False) -> nn.Module:
    model = mlp(*(widths or (6, 8, 3))).eval()
    pol.imp_prune(model, density=density, scope="layer")
    return pol.sign_in(model) if signed else model


def forms(report: pol.CompactReport) -> dict[str, str]:
    return {each.name: each.form for each in report}


def never(masked: Callable[[], object], compact: Callable[[], object]) -> tuple[float, float]:
    raise AssertionError("measured")


def stored(model: nn.Module) -> list[Tensor]:
    return [p for n, p in model.named_parameters() if "original" in n]


@pytest.mark.parametrize("signed", [False, True])
def test_survivors_are_stored_in_the_same_parameters(signed: bool) -> None:
    model = pruned(signed=signed)
    before, leaves = plain_state(model), stored(model)
    outputs = model(x_of(4, 6)).detach()
    report = pol.compact(model, x_of(4, 6), measure=sparse_wins)
    assert forms(report) == {W0: "sparse", W2: "sparse"}
    after = stored(model)
    assert all(one is other for one, other in zip(leaves, after, strict=True))
    counts = [10, 10, 5, 5] if signed else [10, 5]
    assert [tuple(leaf.shape) for leaf in after] == [(count,) for count in counts]
    torch.testing.assert_close(model(x_of(4, 6)), outputs)
    for name, value in model.state_dict().items():  # dense on disk
        assert torch.equal(value, before[name])


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("frozen", [False, True])
def test_what_is_measured_is_a_layer_forward_and_backward(signed: bool, frozen: bool) -> None:
    model = pruned(signed=signed)
    model[0].bias.requires_grad_(not frozen)
    seen = []

    def compare(masked: Any, compact: Any) -> tuple[float, float]:
        seen.append((masked(), compact()))
        return 2.0, 1.0

    targets = pol.find_targets(model)
    where = [targets[name].mask for name in (W0, W2) for _ in targets[name].stored]
    pol.compact(model, x_of(4, 6), measure=compare)
    assert len(seen) == 2
    pairs = []
    for place, (dense, sparse) in enumerate(seen):
        # The bias, what the weight is stored as, and the input of the second layer alone.
        assert len(dense) == len(sparse) == (1 - frozen if place == 0 else 2) + 1 + signed
        assert [each.shape for each in dense if each.dim() == 1] == [
            each.shape for each in sparse if each.shape in ((8,), (3,))
        ]
        pairs += list(zip(dense, sparse, strict=True))
    for dense, sparse in pairs:
        if dense.shape == sparse.shape:
            torch.testing.assert_close(dense, sparse)
        else:
            torch.testing.assert_close(dense[where.pop(0)], sparse)
    assert where == []


def test_what_is_slower_or_hardly_faster_stays_masked() -> None:
    model = pruned()
    before = everything_of(model)
    report = pol.compact(model, x_of(4, 6), measure=dense_wins)
    assert {each.reason for each in report} == {"slower"}
    assert [each.speedup for each in report] == [0.5, 0.5]
    report = pol.compact(model, x_of(4, 6), measure=lambda masked, compact: (1.05, 1.0))
    assert {each.reason for each in report} == {"not 1.1x faster"}
    assert report.compact == report.swapped == ()
    assert everything_of(model) == before
    report = pol.compact(model, x_of(4, 6), margin=1, measure=lambda masked, compact: (1.05, 1.0))
    assert report.compact == (W0, W2)


def test_each_layer_decides_for_itself_and_a_second_call_decides_again() -> None:
    model = pruned()
    plain = pruned()
    before = plain_state(model)

    def wins(outputs: int) -> Any:
        def measure(masked: Any, compact: Any) -> tuple[float, float]:
            return (2.0, 1.0) if any(each.shape == (outputs,) for each in compact()) else (1.0, 2.0)

        return measure

    assert forms(pol.compact(model, x_of(4, 6), measure=wins(8))) == {W0: "sparse", W2: "masked"}
    assert [tuple(leaf.shape) for leaf in stored(model)] == [(10,), (3, 8)]
    assert forms(pol.compact(model, x_of(4, 6), measure=wins(3))) == {W0: "masked", W2: "sparse"}
    assert [tuple(leaf.shape) for leaf in stored(model)] == [(8, 6), (5,)]
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    torch.testing.assert_close(model(x_of(4, 6)), plain(x_of(4, 6)))
    pol.compact(model, x_of(4, 6), measure=dense_wins)
    with pytest.raises(ValueError, match="has no compact weights"):
        pol.expand(model)


def test_without_example_inputs_nothing_is_measured_and_density_and_size_decide() -> None:
    model = pruned(256, 256, 256, 4, density=0.05)
    report = pol.compact(model, measure=never)
    assert report.machine == ""
    assert report.compact == (W0, W2)
    assert report[W0].reason == "density 0.05 is at most break_even=0.1, not measured"
    small = "too small to gain (fewer than 65536 entries), not measured"
    assert report["4.weight"].reason == small
    denser = pruned(256, 256, density=0.11)
    report = pol.compact(denser, measure=never)
    assert report[W0].reason == "density 0.11 is above break_even=0.1, not measured"
    assert pol.compact(denser, break_even=0.2, measure=never).compact == (W0,)


def test_break_even_is_the_density_above_which_nothing_is_measured() -> None:
    model = pruned(density=0.5)
    report = pol.compact(model, x_of(4, 6), measure=never)
    assert report[W0].reason == "density 0.5 is above break_even=0.4, not measured"
    assert report[W0].rows == (4,)
    report = pol.compact(model, x_of(4, 6), break_even=0.5, measure=sparse_wins)
    assert report.swapped == (W0, W2)
    assert pol.compact(pruned(), break_even=0.1, measure=never).compact == ()
    # Given, it holds for layers of every size.
    assert pol.compact(pruned(), break_even=0.3, measure=never).compact == (W0, W2)


def test_named_weights_are_compact_in_any_case() -> None:
    model = pruned()
    expected = model(x_of(4, 6)).detach()
    report = pol.compact(model, x_of(4, 6), targets=W0, measure=dense_wins)
    assert forms(report) == {W0: "scattered"}
    assert report.compact == (W0,)
    assert report.swapped == ()
    assert not isinstance(model[0].weight, pol.SurvivorWeight)
    assert torch.equal(model(x_of(4, 6)), expected)
    report = pol.compact(model, x_of(4, 6), targets=nn.Linear, measure=sparse_wins)
    assert forms(report) == {W0: "sparse", W2: "sparse"}
    assert isinstance(model[0].weight, pol.SurvivorWeight)


def test_weights_that_are_excluded_are_left_as_they_are() -> None:
    model = pruned()
    pol.compact(model, targets=W2)
    report = pol.compact(model, x_of(4, 6), exclude=W2, measure=sparse_wins)
    assert forms(report) == {W0: "sparse"}
    assert [tuple(leaf.shape) for leaf in stored(model)] == [(10,), (5,)]
    pol.compact(model, x_of(4, 6), exclude=W2, measure=dense_wins)
    assert [tuple(leaf.shape) for leaf in stored(model)] == [(8, 6), (5,)]


def test_layers_that_are_no_plain_linear_layers_stay_masked_unless_named() -> None:
    model = nn.Sequential(nn.Conv2d(2, 4, 1), nn.Flatten(), nn.Linear(16, 3))
    pol.imp_prune(seeded(model), density=0.3)
    x = x_of(2, 2, 2, 2)
    expected = model(x).detach()
    report = pol.compact(model, x, measure=sparse_wins)
    assert forms(report) == {"0.weight": "masked", "2.weight": "sparse"}
    assert report[W0].reason == "a Conv2d may compute something else than a linear map"
    assert forms(pol.compact(model, x, targets=W0, measure=never)) == {W0: "scattered"}
    torch.testing.assert_close(model(x), expected)


def test_tied_weights_stay_masked_unless_named() -> None:
    model = seeded(Tied())
    pol.imp_prune(model, density=0.3, targets=["encoder.weight", "middle.weight"])
    x = torch.tensor([1, 2, 3])
    expected = model(x).detach()
    report = pol.compact(model, x, measure=sparse_wins)
    assert forms(report) == {"encoder.weight": "masked", "middle.weight": "sparse"}
    assert report["encoder.weight"].reason == "tied to decoder.weight"
    report = pol.compact(model, x, targets="encoder.weight", measure=never)
    assert forms(report) == {"encoder.weight": "scattered"}
    torch.testing.assert_close(model(x), expected)


def test_a_layer_in_several_places_is_measured_with_all_its_calls() -> None:
    shared = nn.Linear(6, 6)
    model = seeded(nn.Sequential(shared, nn.ReLU(), shared))
    pol.imp_prune(model, density=0.3)
    report = pol.compact(model, x_of(4, 6), measure=lambda masked, compact: (2.0, 1.0))
    assert report[W0].rows == (4, 4)
    assert report[W0].dense_seconds == 2.0  # two different calls, of which one needs no gradient
    assert forms(report) == {W0: "sparse"}


def test_attention_reads_its_weights_without_calling_their_layers() -> None:
    model = seeded(nn.MultiheadAttention(8, 2, batch_first=True))
    pol.imp_prune(model, density=0.3)
    x = x_of(2, 5, 8)
    expected = model(x, x, x)[0].detach()
    report = pol.compact(model, (x, x, x), measure=never)
    assert set(forms(report).values()) == {"masked"}
    assert report["out_proj.weight"].reason == "not called (its weight may be read directly)"
    report = pol.compact(model, break_even=1.0)
    assert report["out_proj.weight"].reason == "attention reads its weight without calling it"
    pol.compact(model, targets=tuple(pol.masks(model)))
    torch.testing.assert_close(model(x, x, x)[0], expected)


def test_what_has_no_sparse_product_stays_masked() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        report = pol.compact(pruned(), x_of(4, 6), measure=never)
    said = "PyTorch has no sparse product in bfloat16 on cpu"
    assert {each.reason for each in report} == {said}
    half = pruned().bfloat16()
    assert {each.reason for each in pol.compact(half, break_even=1.0)} == {said}
    empty = pol.compact(pruned(), x_of(0, 6), measure=never)
    assert {each.reason for each in empty} == {"called with no rows"}


def test_a_bias_is_no_linear_map() -> None:
    model = seeded(nn.Sequential(nn.Linear(6, 8)))
    pol.imp_prune(model, density=0.3, targets=["0.weight", "0.bias"])
    report = pol.compact(model, x_of(4, 6), measure=sparse_wins)
    assert forms(report) == {"0.weight": "sparse", "0.bias": "masked"}
    assert report["0.bias"].reason == "the bias of its layer"


@pytest.mark.parametrize("measure", [sparse_wins, dense_wins])
def test_the_run_leaves_modes_buffers_gradients_and_random_state(measure: Any) -> None:
    model = nn.Sequential(pruned(), nn.Dropout(0.5), nn.BatchNorm1d(3)).train()
    model[0].eval()
    model(x_of(4, 6)).sum().backward()
    kept = [model[0][0].bias.grad.clone(), model[2].running_mean.clone(), torch.get_rng_state()]
    modes = [module.training for module in model.modules()]
    pol.compact(model, x_of(4, 6), measure=measure)
    now = [model[0][0].bias.grad, model[2].running_mean, torch.get_rng_state()]
    assert all(torch.equal(*pair) for pair in zip(kept, now, strict=True))
    assert [module.training for module in model.modules()] == modes
    assert [name for name, each in model.named_modules() if "forward" in vars(each)] == []


def test_gradients_of_compact_weights_are_dropped_and_others_stay() -> None:
    model = pruned()
    model(x_of(4, 6)).sum().backward()
    pol.compact(model, targets=W0)
    assert model[0].parametrizations.weight.original.grad is None
    assert model[2].parametrizations.weight.original.grad is not None
    model(x_of(4, 6)).sum().backward()
    pol.expand(model)
    assert model[0].parametrizations.weight.original.grad is None


def test_inputs_are_drawn_by_the_generator_or_with_a_fixed_seed() -> None:
    def drawn(generator: torch.Generator | None) -> list[Any]:
        seen: list[Any] = []

        def measure(masked: Any, compact: Any) -> tuple[float, float]:
            seen.extend(compact())
            return 2.0, 1.0

        model, state = pruned(), torch.get_rng_state()
        pol.compact(model, x_of(4, 6), measure=measure, generator=generator)
        assert torch.equal(torch.get_rng_state(), state)
        return seen

    fixed = [drawn(None), drawn(None)]
    assert all(torch.equal(*pair) for pair in zip(*fixed, strict=True))
    one, other = drawn(torch.Generator().manual_seed(1)), drawn(torch.Generator().manual_seed(2))
    assert not torch.equal(one[0], other[0])


def test_the_call_may_be_made_in_inference_mode_and_without_gradients() -> None:
    for mode in (torch.inference_mode, torch.no_grad):
        model = pruned()
        with mode():
            report = pol.compact(model, x_of(4, 6), measure=sparse_wins)
        assert report.swapped == (W0, W2)
        model(x_of(4, 6)).sum().backward()
        assert model[0].parametrizations.weight.original.grad.shape == (10,)


def test_wrappers_are_looked_through() -> None:
    model = pruned()
    wrapped = nn.DataParallel(model)
    assert pol.compact(wrapped, x_of(4, 6), measure=sparse_wins).swapped == (W0, W2)
    pol.expand(wrapped)
    assert [tuple(leaf.shape) for leaf in stored(model)] == [(8, 6), (3, 8)]
