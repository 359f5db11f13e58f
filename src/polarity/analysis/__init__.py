"""Look at a model and its training: a summary, sign flips, sharpness, error barriers."""

from polarity.analysis.batch_norm import recalibrate_batch_norm
from polarity.analysis.connectivity import ErrorBarrier, error_barrier
from polarity.analysis.flip_report import FlipReport, FlipSeries, LayerFlips
from polarity.analysis.flips import sign_flips
from polarity.analysis.sharpness import sharpness
from polarity.analysis.sign_tracker import SignTracker
from polarity.analysis.stability import init_noise_stability, sgd_noise_stability
from polarity.analysis.summary import summary
from polarity.analysis.summary_report import Summary, WeightSummary

__all__ = [
    "ErrorBarrier",
    "FlipReport",
    "FlipSeries",
    "LayerFlips",
    "SignTracker",
    "Summary",
    "WeightSummary",
    "error_barrier",
    "init_noise_stability",
    "recalibrate_batch_norm",
    "sgd_noise_stability",
    "sharpness",
    "sign_flips",
    "summary",
]
