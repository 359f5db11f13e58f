"""Make a pruned network faster: sparse products in the linear layers where they pay."""

from polarity.deploy.compress import compress
from polarity.deploy.report import CompressReport, LayerDecision
from polarity.deploy.restore import decompress, restore
from polarity.deploy.sparse_linear import SparseLinear
from polarity.deploy.timing import time_in_turns

__all__ = [
    "CompressReport",
    "LayerDecision",
    "SparseLinear",
    "compress",
    "decompress",
    "restore",
    "time_in_turns",
]
