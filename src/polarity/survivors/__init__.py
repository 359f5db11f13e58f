"""Train only what is left: weights that are stored as the survivors of their masks."""

from polarity.survivors.compact import compact
from polarity.survivors.expand import expand
from polarity.survivors.report import CompactReport, WeightDecision

__all__ = ["CompactReport", "WeightDecision", "compact", "expand"]
