"""Look at a training run: sign flips, sharpness, error barriers, running statistics."""

from polarity.analysis.batch_norm import recalibrate_batch_norm
from polarity.analysis.connectivity import ErrorBarrier, error_barrier
from polarity.analysis.flip_report import FlipReport, FlipSeries, LayerFlips
from polarity.analysis.flips import sign_flips
from polarity.analysis.sharpness import sharpness
from polarity.analysis.sign_tracker import SignTracker
from polarity.analysis.stability import init_noise_stability, sgd_noise_stability

__all__ = [
    "ErrorBarrier",
    "FlipReport",
    "FlipSeries",
    "LayerFlips",
    "SignTracker",
    "error_barrier",
    "init_noise_stability",
    "recalibrate_batch_norm",
    "sgd_noise_stability",
    "sharpness",
    "sign_flips",
]
