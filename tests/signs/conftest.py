"""The small network that the tests of signs train by hand, its start, and layers of every size."""

import pytest
from torch import nn

import polarity as pol
from tests.models import redraw
from tests.signs.cases import Fields, fields


@pytest.fixture
def net() -> nn.Sequential:
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 5)
    )
    redraw(net, 1)
    return net


@pytest.fixture
def start(net) -> pol.RewindPoint:
    return pol.RewindPoint.capture(net)


@pytest.fixture
def layers() -> Fields:
    return fields({"a": (31, 17), "none": (0, 3), "b": (200,), "c": (5, 2, 3, 3)})
