"""What wraps a model, the models to wrap, and the calls that attach to them."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

import polarity as pol
from polarity import dense_to_sparse, scores
from tests.forms import random_masks
from tests.models import seeded

WRAPPERS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "compile": lambda model: torch.compile(model, backend="eager"),
    "DataParallel": DataParallel,
    "DDP": DistributedDataParallel,
    "AveragedModel": AveragedModel,
    "compiled DDP": lambda model: torch.compile(DistributedDataParallel(model), backend="eager"),
    "average of a compiled one": lambda model: AveragedModel(torch.compile(model, backend="eager")),
}
each_wrapper = pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
OUTSIDE = [name for name in WRAPPERS if "DDP" not in name]
INPUTS = torch.randn(6, 4, generator=torch.Generator().manual_seed(5))


def plain() -> nn.Sequential:
    return seeded(nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 3)))


def masked() -> nn.Module:
    model = plain()
    return pol.load_masks(model, random_masks(model))


def thresholded() -> nn.Module:
    model = masked()
    dense_to_sparse.threshold_weights(model, None, decay=0.1, s0=-3.0)
    return model


def signed_in() -> nn.Module:
    return pol.sign_in(masked())


def interpolated() -> nn.Module:
    return pol.interpolate_norms(masked(), generator=torch.Generator().manual_seed(0))


def merged() -> nn.Module:
    return pol.merge(masked())


def draw() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def point(model: nn.Module) -> dict[str, Tensor]:
    return pol.RewindPoint.capture(model).weights


def returned(model: nn.Module, result: nn.Module) -> dict[str, Tensor]:
    """Return what the model holds, if the call gave back the very object that it was given."""
    assert result is model
    return point(model)


ATTACH = {
    "mask_weights": pol.mask_weights,
    "load_masks": lambda m: pol.load_masks(m, {"0.weight": torch.ones(8, 4)}),
    "imp_prune": lambda m: pol.imp_prune(m, 0.5),
    "lrr_step": lambda m: pol.lrr_step(m, 0.5, rewind=pol.RewindPoint.capture(m)),
    "PruneRounds": lambda m: pol.PruneRounds(m, every=1, rounds=1),
    "prune": lambda m: pol.prune(m, scores.magnitude, density=0.5),
    "sign_in": pol.sign_in,
    "interpolate_norms": pol.interpolate_norms,
    "SignedMask.apply": lambda m: pol.signed_mask(masked()).apply(m),
    "start_from_mask": lambda m: pol.start_from_mask(m, random_masks(plain())),
    "threshold_weights": lambda m: dense_to_sparse.threshold_weights(m, None, decay=0.1),
}
