"""Training that ends sparse: schedules that change the masks of a model while it trains.

A training loop calls ``.step()`` of a schedule after each ``optimizer.step()``. Soft thresholds
(STR) need no schedule: ``threshold_weights`` gives them to the optimizer.
"""

from polarity.dense_to_sparse.acdc import ACDC, acdc_switches
from polarity.dense_to_sparse.drop_and_grow import drop_and_grow
from polarity.dense_to_sparse.extract import extract_soft_mask
from polarity.dense_to_sparse.find_decay import DecaySearch, find_decay
from polarity.dense_to_sparse.gradual import GradualMagnitude
from polarity.dense_to_sparse.report import LayerUpdate, UpdateReport
from polarity.dense_to_sparse.set_and_rigl import SET, RigL
from polarity.dense_to_sparse.soft_threshold import threshold_weights
from polarity.dense_to_sparse.support import (
    soft_density,
    soft_mask,
    threshold_report,
    weights_before_threshold,
)
from polarity.dense_to_sparse.threshold_report import LayerThreshold, ThresholdReport

# Found here too; its page is that of polarity.SoftThreshold, where the other forms of a weight are.
from polarity.parametrizations.soft_threshold import SoftThreshold as SoftThreshold

__all__ = [
    "ACDC",
    "SET",
    "DecaySearch",
    "GradualMagnitude",
    "LayerThreshold",
    "LayerUpdate",
    "RigL",
    "ThresholdReport",
    "UpdateReport",
    "acdc_switches",
    "drop_and_grow",
    "extract_soft_mask",
    "find_decay",
    "soft_density",
    "soft_mask",
    "threshold_report",
    "threshold_weights",
    "weights_before_threshold",
]
