"""Running statistics, computed anew: against float64 numpy, and nothing else is touched."""

import numpy as np
import pytest
import torch
from torch import nn

import polarity as pol
from polarity.attach.norms import interpolate_norms
from tests.models import seeded


def conv_net() -> nn.Module:
    return seeded(
        nn.Sequential(
            nn.Conv2d(2, 3, 1),
            nn.BatchNorm2d(3, momentum=0.3),
            nn.Dropout(0.5),
            nn.ReLU(),
            nn.Conv2d(3, 4, 1),
            nn.BatchNorm2d(4, momentum=None),
        )
    )


def batches(count: int = 3, seed: int = 0) -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return [torch.randn(5, 2, 4, 4, generator=draw) + i for i in range(count)]


def numpy_statistics(model: nn.Module, data: list[torch.Tensor]) -> list[np.ndarray]:
    """Return both layers' averaged means and variances, by float64 numpy from the definitions."""
    weight = {name: value.detach().double().numpy() for name, value in model.named_parameters()}

    def conv(x: np.ndarray, at: int) -> np.ndarray:
        kernel = weight[f"{at}.weight"][:, :, 0, 0]
        return np.einsum("oi,nihw->nohw", kernel, x) + weight[f"{at}.bias"][:, None, None]

    means: list[list[np.ndarray]] = [[], []]
    variances: list[list[np.ndarray]] = [[], []]
    for batch in data:
        first = conv(batch.double().numpy(), 0)
        mean, var = first.mean((0, 2, 3)), first.var((0, 2, 3))
        means[0].append(mean)
        variances[0].append(first.var((0, 2, 3), ddof=1))
        normed = (first - mean[:, None, None]) / np.sqrt(var[:, None, None] + model[1].eps)
        normed = normed * weight["1.weight"][:, None, None] + weight["1.bias"][:, None, None]
        second = conv(np.maximum(normed, 0), 4)
        means[1].append(second.mean((0, 2, 3)))
        variances[1].append(second.var((0, 2, 3), ddof=1))
    return [np.mean(each, axis=0) for each in (*means, *variances)]


def statistics(model: nn.Module) -> list[torch.Tensor]:
    layers = [each for each in model.modules() if isinstance(each, nn.BatchNorm2d)]
    return [each.running_mean for each in layers] + [each.running_var for each in layers]


def test_statistics_equal_numpys_averages_over_the_batches():
    model = conv_net().train()
    data = batches()
    assert pol.recalibrate_batch_norm(model, data) == ("1", "5")
    for found, expected in zip(statistics(model), numpy_statistics(model, data), strict=True):
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5, atol=1e-6)
    assert [int(model[i].num_batches_tracked) for i in (1, 5)] == [3, 3]


def test_one_batch_makes_evaluation_equal_to_training_up_to_the_unbiased_variance():
    model = seeded(nn.Sequential(nn.BatchNorm1d(3)))
    x = torch.randn(1000, 3, generator=torch.Generator().manual_seed(0))
    pol.recalibrate_batch_norm(model, [x])
    trained = model.train()(x)
    model[0].reset_running_stats()
    pol.recalibrate_batch_norm(model, [x])
    torch.testing.assert_close(model.eval()(x), trained, rtol=2e-3, atol=1e-3)


def test_nothing_else_changes_and_nothing_is_drawn():
    model = conv_net()
    model[0].eval()
    model[1].train()
    model[2].train()
    model[5].eval()
    flags = [module.training for module in model.modules()]
    parameters = [each.clone() for each in model.parameters()]
    buffers = [id(each) for each in model.buffers()]
    random_state = torch.get_rng_state()
    pol.recalibrate_batch_norm(model, batches())
    assert [module.training for module in model.modules()] == flags
    assert all(torch.equal(a, b) for a, b in zip(parameters, model.parameters(), strict=True))
    assert all(each.grad is None for each in model.parameters())
    assert [model[1].momentum, model[5].momentum] == [0.3, None]
    assert [id(each) for each in model.buffers()] == buffers
    assert torch.equal(torch.get_rng_state(), random_state)


def test_the_same_batches_give_the_same_statistics_whatever_was_there_before():
    one, other = conv_net(), conv_net()
    with torch.no_grad():
        other[1].running_mean.fill_(100.0)
    other.train()
    other(batches(seed=5)[0])
    for model in (one, other):
        pol.recalibrate_batch_norm(model, batches())
    assert all(map(torch.equal, statistics(one), statistics(other)))


def test_instance_norm_with_running_statistics_is_averaged_too():
    tracking = nn.InstanceNorm1d(2, track_running_stats=True, momentum=0.7)
    model = nn.Sequential(tracking, nn.InstanceNorm1d(2))
    draw = torch.Generator().manual_seed(0)
    data = [torch.randn(3, 2, 6, generator=draw) * (i + 1) + i for i in range(4)]
    assert pol.recalibrate_batch_norm(model, data) == ("0",)
    arrays = [each.double().numpy() for each in data]
    # Instance statistics are averaged over the instances of a batch.
    means = np.mean([each.mean(2).mean(0) for each in arrays], axis=0)
    variances = np.mean([each.var(2, ddof=1).mean(0) for each in arrays], axis=0)
    np.testing.assert_allclose(tracking.running_mean.numpy(), means, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(tracking.running_var.numpy(), variances, rtol=1e-5)
    assert int(tracking.num_batches_tracked) == 4
    assert tracking.momentum == 0.7
    assert not tracking._forward_pre_hooks


def test_a_layer_that_is_called_twice_averages_over_its_calls():
    norm = nn.BatchNorm1d(1)

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = norm

        def forward(self, x):
            return self.norm(x), self.norm(3 * x)

    pol.recalibrate_batch_norm(
        Twice(), [torch.tensor([[0.0], [2.0]]), torch.tensor([[4.0], [6.0]])]
    )
    assert norm.running_mean.item() == pytest.approx((1 + 3 + 5 + 15) / 4)
    assert norm.running_var.item() == pytest.approx((2 + 18 + 2 + 18) / 4)


def test_sync_batch_norm_outside_a_process_group_is_batch_norm():
    model = conv_net()
    synced = nn.SyncBatchNorm.convert_sync_batchnorm(conv_net())
    for each in (model, synced):
        pol.recalibrate_batch_norm(each, batches())
    expected = {name: value for name, value in model.state_dict().items() if "running" in name}
    found = synced.state_dict()
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert len(expected) == 4


def test_interpolated_norms_take_their_trained_values():
    plain, converted = conv_net(), interpolate_norms(conv_net())
    values = torch.tensor([2.0, -1.0, 3.0])
    with torch.no_grad():
        plain[1].weight.copy_(values)
    converted[1].weight = values
    for model in (plain, converted.train()):
        pol.recalibrate_batch_norm(model, batches())
    assert all(map(torch.equal, statistics(plain), statistics(converted)))


def test_loader_batches_and_other_inputs():
    pairs = [(x, torch.zeros(len(x))) for x in batches()]
    one, other, third, fourth, fifth = (conv_net() for _ in range(5))
    pol.recalibrate_batch_norm(one, batches())
    pol.recalibrate_batch_norm(other, iter(pairs))
    dicts = [{"image": x} for x in batches()]
    pol.recalibrate_batch_norm(third, dicts, forward=lambda net, batch: net(batch["image"]))
    pol.recalibrate_batch_norm(fourth, [{"input": x} for x in batches()])
    pol.recalibrate_batch_norm(fifth, [((x,), torch.zeros(len(x))) for x in batches()])
    for model in (other, third, fourth, fifth):
        assert all(map(torch.equal, statistics(one), statistics(model)))


def test_a_model_without_running_statistics_is_left_alone_and_not_fed():
    def fail(*_):
        raise AssertionError("was fed")

    model = nn.Sequential(nn.LayerNorm(3), nn.BatchNorm1d(3, track_running_stats=False))
    assert pol.recalibrate_batch_norm(model, [], forward=fail) == ()


def test_after_an_error_everything_is_as_it_was():
    model = conv_net().train()
    pol.recalibrate_batch_norm(model, batches(seed=3))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    good = batches()[0]
    for bad, kind in (([], ValueError), ([good, torch.randn(5, 7, 4, 4)], RuntimeError)):
        with pytest.raises(kind):
            pol.recalibrate_batch_norm(model, bad)
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
        assert all(module.training for module in model.modules())
        assert model[1].momentum == 0.3


def test_an_empty_loader_and_a_lazy_layer_are_named():
    with pytest.raises(ValueError, match="batches is empty"):
        pol.recalibrate_batch_norm(conv_net(), [])
    with pytest.raises(ValueError, match=r"^0 is lazy"):
        pol.recalibrate_batch_norm(nn.Sequential(nn.LazyBatchNorm1d()), [torch.ones(2, 2)])


@pytest.mark.gpu
def test_a_model_on_a_gpu_takes_batches_from_the_cpu():
    model, other = conv_net(), conv_net().cuda()
    for each in (model, other):
        pol.recalibrate_batch_norm(each, batches())
    for a, b in zip(statistics(model), statistics(other), strict=True):
        torch.testing.assert_close(a, b.cpu(), rtol=1e-3, atol=1e-3)
