"""Training that ends sparse: schedules that change the masks of a model while it trains.

A training loop calls ``.step()`` of a schedule after each ``optimizer.step()``.
"""

from polarity.dense_to_sparse.acdc import ACDC, acdc_switches
from polarity.dense_to_sparse.drop_and_grow import drop_and_grow
from polarity.dense_to_sparse.gradual import GradualMagnitude
from polarity.dense_to_sparse.report import LayerUpdate, UpdateReport
from polarity.dense_to_sparse.set_and_rigl import SET, RigL

__all__ = [
    "ACDC",
    "SET",
    "GradualMagnitude",
    "LayerUpdate",
    "RigL",
    "UpdateReport",
    "acdc_switches",
    "drop_and_grow",
]
