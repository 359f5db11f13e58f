"""Compressed models compute what they computed; what is swapped is what was measured faster."""

import math
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

import polarity as pol
from polarity import deploy
from tests.helpers import dense_wins, reasons, sparse_wins, swapped_modules
from tests.laws.refusals import fingerprint
from tests.models import Recurrent, light_vit, noise, thin_mlp, thinned, x_of


def test_the_two_things_measured_compute_the_same():
    model, seen = thin_mlp(), []

    def compare(dense, sparse):
        seen.extend(zip(dense(), sparse(), strict=True))
        return 2.0, 1.0

    deploy.compress(model, x_of(4, 6), measure=compare)
    assert len(seen) == 2
    for ours, theirs in seen:
        assert ours.abs().max() > 0.1
        torch.testing.assert_close(ours, theirs)


def test_the_default_measure_times_both_in_turns():
    calls = []
    dense, sparse = deploy.time_in_turns(
        lambda: [calls.append("d") for _ in range(20_000)], lambda: calls.append("s")
    )
    assert dense > 5 * sparse > 0
    turns = [a for a, b in pairwise(calls) if a != b]
    assert turns.count("d") >= 7
    assert turns.count("s") >= 7


def test_what_is_slower_or_hardly_faster_stays_the_same_object():
    model = thin_mlp()
    before = [(id(p), fingerprint(p)) for p in model.parameters()]
    report = deploy.compress(model, x_of(4, 6), measure=dense_wins)
    assert set(reasons(report).values()) == {"slower"}
    assert [layer.speedup for layer in report] == [0.5, 0.5]
    report = deploy.compress(model, x_of(4, 6), measure=lambda d, s: (1.05, 1.0))
    assert set(reasons(report).values()) == {"not 1.1x faster"}
    assert report.swapped == ()
    assert [(id(p), fingerprint(p)) for p in model.parameters()] == before
    report = deploy.compress(model, x_of(4, 6), margin=1.0, measure=lambda d, s: (1.05, 1.0))
    assert report.swapped == ("0.weight", "2.weight")


def test_a_report_has_a_line_for_every_layer():
    model = nn.Sequential(thin_mlp(), nn.Linear(3, 2))
    report = deploy.compress(model, x_of(2, 4, 6), measure=sparse_wins)
    assert [layer.name for layer in report] == ["0.0.weight", "0.2.weight", "1.weight"]
    first = report.layers[0]
    assert (first.shape, first.rows, first.swapped) == ((8, 6), (8,), True)
    assert (first.density, first.speedup) == (10 / 48, 2.0)
    text = str(report)
    assert "2.00x  sparse: faster" in text
    assert "dense: density 1 is above break_even=0.4, not measured" in text
    assert "cpu, " in text
    assert 0 <= report.difference < 1e-6


def test_the_report_is_printed_only_when_asked_for(capsys):
    deploy.compress(thin_mlp(), x_of(1, 6), measure=sparse_wins)
    assert capsys.readouterr().out == ""
    report = deploy.compress(thin_mlp(), x_of(1, 6), measure=sparse_wins, verbose=True)
    assert capsys.readouterr().out == f"{report}\n"


@pytest.mark.parametrize("measure", [sparse_wins, dense_wins])
def test_modes_gradients_random_state_and_hooks_are_what_they_were(measure):
    model = nn.Sequential(thin_mlp(), nn.Dropout(0.5), nn.BatchNorm1d(3)).train()
    model[0].eval()
    modes = [module.training for module in model.modules()]
    random = torch.get_rng_state()
    buffers = fingerprint(dict(model[2].named_buffers()))
    deploy.compress(model, x_of(4, 6), measure=measure)
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), random)
    assert fingerprint(dict(model[2].named_buffers())) == buffers
    assert [name for name, each in model.named_modules() if "forward" in vars(each)] == []


def test_swapped_layers_in_a_row_compute_the_same_and_return_contiguous_outputs():
    chain = [nn.Linear(6, 9), nn.GELU(), nn.Dropout(0.1), nn.Linear(9, 7), nn.Flatten(0)]
    model = thinned(nn.Sequential(*chain, nn.Linear(28, 5), nn.Tanh(), nn.Linear(5, 2)))
    x = x_of(4, 6)
    expected = model(x)
    assert len(deploy.compress(model, x, measure=sparse_wins).swapped) == 4
    torch.testing.assert_close(model(x), expected)
    for rows in ((1, 6), (4, 6), (100, 6), (3, 5, 6)):
        assert model[0](x_of(*rows)).is_contiguous()


def test_each_layer_is_measured_once_and_decides_for_itself():
    model = thinned(nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 7)))
    seen = []

    def second_loses(dense, sparse):
        seen.append(sparse()[0].shape[-1])
        return (2.0, 1.0) if seen[-1] == 9 else (1.0, 2.0)

    report = deploy.compress(model, x_of(4, 6), measure=second_loses)
    assert seen == [9, 7]
    assert report.swapped == ("0.weight",)


def test_a_vision_transformer_and_a_recurrent_net():
    vit = thinned(light_vit()).double()
    images = noise(2, 3, 32, 32)(torch.Generator().manual_seed(2))[0].double()
    expected = vit(images)
    report = deploy.compress(vit, images, measure=sparse_wins)
    assert len(report.swapped) == 5  # two in each of two blocks, and the head
    torch.testing.assert_close(vit(images), expected)
    net = thinned(Recurrent(nn.LSTM, num_layers=2))
    x = x_of(3, 5, 4)
    expected = net(x)
    assert deploy.compress(net, x, measure=sparse_wins).swapped == ("head.weight",)
    torch.testing.assert_close(net(x), expected)


def test_a_module_in_several_places_is_swapped_in_all():
    shared = nn.Linear(6, 6)
    model = thinned(nn.Sequential(shared, nn.ReLU(), shared))
    keep = [shared]  # a place that no module knows of
    x = x_of(4, 6)
    expected = model(x)
    report = deploy.compress(model, x, measure=sparse_wins)
    assert report.layers[0].rows == (4, 4)
    assert report.layers[0].dense_seconds == 4.0  # two calls, 2 s each
    assert model[0] is model[2] is keep[0]
    torch.testing.assert_close(model(x), expected)


def test_positional_and_keyword_inputs():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(6, 4), nn.Linear(3, 4)

        def forward(self, first, *, second):
            return {"sum": [self.a(first) + self.b(second)], "count": torch.tensor(3)}

    model = thinned(Two())
    given = {"first": x_of(2, 6), "second": x_of(2, 3)}
    expected = model(**given)["sum"][0]
    assert deploy.compress(model, given, measure=sparse_wins).swapped == ("a.weight", "b.weight")
    torch.testing.assert_close(model(**given)["sum"][0], expected)


def test_masks_and_factors_have_to_be_merged_first():
    x = x_of(4, 6)
    for attach in (pol.mask_weights, pol.sign_in, pol.interpolate_norms):
        model = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6)).eval()
        attach(model)
        before = fingerprint(model.state_dict())
        with pytest.raises(ValueError, match=r"call polarity.merge\(model\) first"):
            deploy.compress(model, x, measure=sparse_wins)
        assert fingerprint(model.state_dict()) == before
    merged = pol.merge(pol.mask_weights(thin_mlp()))
    assert deploy.compress(merged, x, measure=sparse_wins).swapped == ("0.weight", "2.weight")
    theirs = thin_mlp()
    prune.random_unstructured(theirs[0], "weight", amount=0.5)
    with pytest.raises(ValueError, match=r"0.weight still has a mask of torch.nn.utils.prune"):
        deploy.compress(theirs, x, measure=sparse_wins)


@pytest.mark.parametrize(
    ("arguments", "error", "part"),
    [
        ({"margin": 0.5}, ValueError, "margin=0.5, expected a number of at least 1"),
        ({"margin": None}, TypeError, "margin=None is a NoneType"),
        ({"margin": "2"}, TypeError, "margin='2' is a str"),
        ({"break_even": 1.5}, ValueError, "break_even=1.5 is out of range"),
        ({"tolerance": -1.0}, ValueError, "tolerance=-1.0, expected a number of at least 0"),
        ({"tolerance": math.nan}, ValueError, "tolerance=nan"),
    ],
)
def test_bad_arguments_are_named(arguments, error, part):
    model = thin_mlp()
    with pytest.raises(error) as raised:
        deploy.compress(model, x_of(4, 6), **arguments)
    assert part in str(raised.value)
    assert swapped_modules(model) == []


def test_models_that_cannot_be_compressed_are_refused():
    with pytest.raises(TypeError, match=r"model is an int, expected a torch.nn.Module"):
        deploy.compress(3, x_of(4, 6))
    with pytest.raises(ValueError, match=r"ReLU has no nn.Linear"):
        deploy.compress(nn.ReLU(), x_of(4, 6))
    with pytest.raises(ValueError, match=r"weight is lazy"):
        deploy.compress(nn.LazyLinear(3), x_of(4, 6))
    model = thin_mlp()
    deploy.compress(model, x_of(4, 6), measure=sparse_wins)
    with pytest.raises(ValueError, match="expected its last dimension to be in_features=6"):
        model(x_of(2, 12))
    with pytest.raises(TypeError, match=r"polarity.deploy.compress"):
        deploy.SparseLinear()
    state = model.state_dict()
    with pytest.raises(ValueError, match=r"'0' is no nn.Linear of the model"):
        deploy.restore(nn.Sequential(nn.ReLU()), state)
    del state["0.values"]
    with pytest.raises(ValueError, match=r"0.values is missing"):
        deploy.restore(thin_mlp(), state)


def test_whatever_fails_the_model_is_left_as_it_was():
    class Unsteady(nn.Module):
        """Computes something else every time."""

        def __init__(self):
            super().__init__()
            self.inner, self.calls = thin_mlp(), 0

        def forward(self, x):
            self.calls += 1
            return self.inner(x) * self.calls

    def broken(dense, sparse):
        raise OSError("no clock")

    for model, measure, error in (
        (Unsteady(), sparse_wins, ValueError),
        (thin_mlp(), broken, OSError),
        (thin_mlp(), sparse_wins, RuntimeError),
    ):
        inputs = x_of(4, 7) if error is RuntimeError else x_of(4, 6)
        leaves = [id(p) for p in model.parameters()]
        state = fingerprint(model.state_dict())
        with pytest.raises(error):
            deploy.compress(model, inputs, measure=measure)
        assert [id(p) for p in model.parameters()] == leaves
        assert fingerprint(model.state_dict()) == state
        assert swapped_modules(model) == []
        assert not any("forward" in vars(each) for each in model.modules())
    unsteady = Unsteady()
    report = deploy.compress(unsteady, x_of(4, 6), measure=sparse_wins, tolerance=math.inf)
    assert report.difference == pytest.approx(1.0)


@pytest.mark.gpu
def test_on_a_gpu():
    model, x = thin_mlp().cuda(), x_of(4, 6).cuda()
    expected = model(x)
    report = deploy.compress(model, x, measure=sparse_wins)
    assert report.swapped == ("0.weight", "2.weight")
    torch.testing.assert_close(model(x), expected)
    assert model(x[:1]).is_cuda
    assert deploy.time_in_turns(lambda: model(x), lambda: model(x))[0] > 0
    deploy.decompress(model)
    assert torch.equal(model(x), expected)
